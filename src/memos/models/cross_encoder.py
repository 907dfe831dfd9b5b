"""A reranker on this machine: a BERT cross-encoder exported to ONNX, such as ms-marco-MiniLM-L6-v2.

The folder holds `model.onnx` (or `onnx/model.onnx`, as model hubs lay it out) and the WordPiece `vocab.txt`.
Query and text go through the model together, so it is slower and surer than comparing vectors. Off unless
it is configured; needs nothing that the default install lacks but the weights.

Guarantees: one score per text in input order, larger is more relevant; thread-safe; a pair is cut at 512
tokens, the query at 96; memory is bounded by `BATCH_TOKENS_MAX`. Every failure is a ModelError.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memos import tracing
from memos.errors import BadCompletion, InvalidInput, ModelUnavailable
from memos.models.wordpiece import WordPiece

QUERY_TOKENS_MAX = 96
PAIR_TOKENS_MAX = 512
TEXTS_MAX = 1_000
BATCH_TOKENS_MAX = 8_192  # padded tokens of one run
_FILES = ("model.onnx", "onnx/model.onnx")
_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})


class CrossEncoder:
    """Fulfils `memos.models.base.Reranker`. Reads the model when it is made, about a second."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        if threads < 1:
            raise InvalidInput(f"threads must be at least 1, not {threads}")
        model = next((folder / name for name in _FILES if (folder / name).is_file()), None)
        if model is None:
            raise ModelUnavailable(f"{folder} holds no {' or '.join(_FILES)}")
        self._tokenizer = WordPiece.load(folder / "vocab.txt")
        self._session = _session(model, threads=threads)
        wanted = {one.name for one in self._session.get_inputs()}
        if "input_ids" not in wanted or not wanted <= _INPUTS:
            raise ModelUnavailable(f"{model} takes {sorted(wanted)}, not {sorted(_INPUTS)}: no cross-encoder")
        self._inputs = wanted

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """The model's own scale: logits of relevance."""
        if len(texts) > TEXTS_MAX:
            raise InvalidInput(f"{len(texts)} texts; at most {TEXTS_MAX} are reranked in one call")
        asked = self._tokenizer.encode(query, tokens_max=QUERY_TOKENS_MAX)
        rows = [
            self._tokenizer.encode(text, tokens_max=PAIR_TOKENS_MAX - len(asked) + 1)[1:] for text in texts
        ]
        scores = [0.0] * len(rows)
        for batch in _batches([len(asked) + len(row) for row in rows]):
            with tracing.span("rerank", memos_texts=len(batch)):
                found = self._run(asked, [rows[place] for place in batch])
            for place, score in zip(batch, found, strict=True):
                scores[place] = score
        return scores

    def _run(self, asked: Sequence[int], rows: Sequence[Sequence[int]]) -> list[float]:
        import numpy as np

        length = len(asked) + max(len(row) for row in rows)
        ids = np.full((len(rows), length), self._tokenizer.pad_id, dtype=np.int64)
        mask, kinds = np.zeros_like(ids), np.zeros_like(ids)
        for number, row in enumerate(rows):
            end = len(asked) + len(row)
            ids[number, : len(asked)] = asked
            ids[number, len(asked) : end] = row
            mask[number, :end] = 1
            kinds[number, len(asked) : end] = 1
        fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
        try:
            (logits, *_) = self._session.run(None, {name: fed[name] for name in self._inputs})
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ModelUnavailable(f"the cross-encoder failed on {ids.shape} tokens: {error}") from error
        columns = np.asarray(logits, dtype=np.float64).reshape(len(rows), -1)
        # One column is the relevance; of two the second is that of the class "relevant".
        scores = [float(row[-1] - row[0]) if len(row) == 2 else float(row[0]) for row in columns]
        if columns.shape[1] not in (1, 2) or not all(map(math.isfinite, scores)):
            raise BadCompletion(f"the cross-encoder gave no scores but {columns.shape}", str(columns[:3]))
        return scores


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of the pairs, longest first, in groups of at most BATCH_TOKENS_MAX tokens with padding."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    start = 0
    while start < len(order):
        count = max(1, BATCH_TOKENS_MAX // lengths[order[start]])
        yield order[start : start + count]
        start += count


def _session(model: Path, *, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelUnavailable(f"onnxruntime cannot be loaded: {error}") from error
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ModelUnavailable(f"onnxruntime cannot run {model}: {error}") from error
