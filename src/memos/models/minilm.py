"""The default embedder: all-MiniLM-L6-v2 (Wang et al. 2020; Reimers & Gurevych 2019) on onnxruntime.

`minilm.onnx` holds the computation without weights (`tools/build_minilm_graph.py` writes it); the
weights are handed over from the mapped safetensors file, so there is no torch and no second copy on disk.

Guarantees: rows of length 1 in the order of the texts, for any `str`; texts are cut at 256 tokens as the
original does; thread-safe; memory is bounded by `BATCH_TOKENS_MAX` whatever the number of texts. numpy
and onnxruntime are imported when an embedder is loaded, not before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memos.errors import InvalidInput, ModelUnavailable
from memos.models import safetensors
from memos.models.base import Vectors
from memos.models.weights import Hashes, require_weights, verified_hashes
from memos.models.wordpiece import WordPiece

if TYPE_CHECKING:
    import onnxruntime

DIM = 384
TOKENS_MAX = 256
VOCABULARY_SIZE = 30_522
LAYERS = 6
BATCH_TOKENS_MAX = 1_024  # padded tokens of one run: past that, bigger batches are no faster
PADDED_SHARE_MIN = 0.8  # of the longest text of a run: shorter ones would be mostly padding
RECIPE = "all-MiniLM-L6-v2;wordpiece-1;mean;l2;256"  # change it when the same text gets another vector
_GRAPH = "minilm.onnx"


class MiniLMEmbedder:
    """Fulfils `memos.models.base.Embedder`. Make one with `load`."""

    def __init__(
        self,
        *,
        tokenizer: WordPiece,
        tensors: Mapping[str, Vectors],
        hashes: Hashes,
        threads: int = 1,
    ) -> None:
        """`tensors`: the weights by their names in the safetensors file; kept for the session's life."""
        if threads < 1:
            raise InvalidInput(f"threads must be at least 1, not {threads}")
        if tokenizer.size != VOCABULARY_SIZE:
            raise ModelUnavailable(f"the vocabulary has {tokenizer.size} tokens, not {VOCABULARY_SIZE}")
        self._tokenizer = tokenizer
        self._tensors = _needed(tensors)
        self._session = _session(self._tensors, threads=threads)
        recipe = "\n".join([RECIPE, hashes.model, hashes.vocabulary])
        self._fingerprint = f"minilm-{hashlib.sha256(recipe.encode()).hexdigest()[:32]}"

    @classmethod
    def load(cls, folder: Path | None = None, *, threads: int = 1) -> MiniLMEmbedder:
        """From the installed weights' package, or from `folder`; about 0.3 s.

        ModelUnavailable when there are no weights (it names `memos models install`), when they are
        damaged, or when they are of another architecture.
        """
        weights = require_weights(folder)
        hashes = verified_hashes(weights)
        return cls(
            tokenizer=WordPiece.load(weights.vocabulary),
            tensors=safetensors.read(weights.model),
            hashes=hashes,
            threads=threads,
        )

    @property
    def dim(self) -> int:
        return DIM

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def embed(self, texts: Sequence[str]) -> Vectors:
        """`(n, 384)` float32 unit rows. Texts of like length run together, so that little is padding."""
        import numpy as np

        if isinstance(texts, str):
            raise InvalidInput("embed takes a sequence of texts, not one text: wrap it in a list")
        for text in texts:
            if not isinstance(text, str):
                raise InvalidInput(f"embed takes texts only, not {type(text).__name__}")
        vectors = np.empty((len(texts), DIM), dtype=np.float32)
        encoded = [self._tokenizer.encode(text, tokens_max=TOKENS_MAX) for text in texts]
        for batch in _batches(encoded):
            vectors[batch] = self._run([encoded[index] for index in batch])
        return vectors

    def _run(self, rows: Sequence[Sequence[int]]) -> Vectors:
        """Encode one batch of token ids."""
        import numpy as np

        length = max(len(row) for row in rows)
        ids = np.full((len(rows), length), self._tokenizer.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        try:
            (vectors,) = self._session.run(["vectors"], {"input_ids": ids, "attention_mask": mask})
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ModelUnavailable(f"the embedder failed on {ids.shape} tokens: {error}") from error
        result: Vectors = vectors
        return result


def _batches(encoded: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indexes of the texts, longest first, in groups of like length and at most BATCH_TOKENS_MAX tokens with
    padding. Measured on turns, eight or sixteen a call: 5.5 ms of CPU each; 7.6 when lengths are mixed, 6.7 alone.
    """
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
    start = 0
    while start < len(order):
        longest = len(encoded[order[start]])
        end, last = start + 1, min(len(order), start + max(1, BATCH_TOKENS_MAX // longest))
        while end < last and len(encoded[order[end]]) >= PADDED_SHARE_MIN * longest:
            end += 1
        yield order[start:end]
        start = end


def _weight_shapes() -> dict[str, tuple[int, ...]]:
    """Every weight that the graph names, with its shape in the safetensors file."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY_SIZE, DIM),
        "embeddings.position_embeddings.weight": (512, DIM),
        "embeddings.token_type_embeddings.weight": (2, DIM),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        dense = {
            f"{name}.attention.self.query": (DIM, DIM),
            f"{name}.attention.self.key": (DIM, DIM),
            f"{name}.attention.self.value": (DIM, DIM),
            f"{name}.attention.output.dense": (DIM, DIM),
            f"{name}.intermediate.dense": (4 * DIM, DIM),
            f"{name}.output.dense": (DIM, 4 * DIM),
        }
        for part, shape in dense.items():
            shapes |= {f"{part}.weight": shape, f"{part}.bias": shape[:1]}
    for norm in norms:
        shapes |= {f"{norm}.weight": (DIM,), f"{norm}.bias": (DIM,)}
    return shapes


def _needed(tensors: Mapping[str, Vectors]) -> dict[str, Vectors]:
    """The weights of the graph, each checked: a missing or misshapen one would crash deep inside."""
    needed: dict[str, Vectors] = {}
    for name, shape in _weight_shapes().items():
        tensor = tensors.get(name)
        if tensor is None:
            raise ModelUnavailable(f"the weights are not those of a MiniLM-L6 encoder: {name} is missing")
        if tensor.shape != shape:
            raise ModelUnavailable(
                f"the weights are not those of a MiniLM-L6 encoder: {name} has shape {tensor.shape}, not {shape}"
            )
        needed[name] = tensor
    return needed


def _session(tensors: Mapping[str, Vectors], *, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session over the graph with these weights. They are not copied: the caller keeps them."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelUnavailable(f"onnxruntime cannot be loaded: {error}") from error

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    # Idle threads of a pool would spin and cost a whole core for nothing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = resources.files("memos.models").joinpath(_GRAPH).read_bytes()
    try:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors.values()]
        options.add_external_initializers(list(tensors), values)
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ModelUnavailable(f"onnxruntime cannot run the embedder: {error}") from error
