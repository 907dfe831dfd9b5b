"""The MiniLM embedder against a plain numpy encoder of the same weights."""

from __future__ import annotations

import itertools
import math
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memos.errors import InvalidInput, ModelUnavailable
from memos.models import minilm, safetensors
from memos.models.base import Embedder, Vectors
from memos.models.minilm import DIM, MiniLMEmbedder
from memos.models.weights import require_weights
from memos.models.wordpiece import WordPiece

Matrix = npt.NDArray[np.float32]


class ReferenceEncoder:
    """BERT with mean pooling, written from the paper: one text at a time, numpy only."""

    def __init__(self, tensors: dict[str, Vectors], tokenizer: WordPiece) -> None:
        self.tensors = tensors
        self.tokenizer = tokenizer
        self.erf = np.vectorize(math.erf, otypes=[np.float32])

    def dense(self, x: Matrix, name: str) -> Matrix:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def norm(self, x: Matrix, name: str) -> Matrix:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        return scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def heads(self, x: Matrix) -> Matrix:
        return x.reshape(len(x), 12, 32).transpose(1, 0, 2)

    def attention(self, x: Matrix, name: str) -> Matrix:
        query, key, value = (
            self.heads(self.dense(x, f"{name}.self.{part}")) for part in ("query", "key", "value")
        )
        dots = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(32))
        shares = np.exp(dots - dots.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = (shares @ value).transpose(1, 0, 2).reshape(len(x), DIM)
        return self.norm(self.dense(mixed, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")

    def feed_forward(self, x: Matrix, name: str) -> Matrix:
        inner = self.dense(x, f"{name}.intermediate.dense")
        inner = inner * (1 + self.erf(inner / math.sqrt(2))) / 2
        return self.norm(self.dense(inner, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")

    def embed(self, text: str) -> Matrix:
        ids = self.tokenizer.encode(text, tokens_max=256)
        table = "embeddings.{}_embeddings.weight".format
        x = self.tensors[table("word")][ids] + self.tensors[table("position")][: len(ids)]
        x = self.norm(x + self.tensors[table("token_type")][0], "embeddings.LayerNorm")
        for layer in range(6):
            name = f"encoder.layer.{layer}"
            x = self.feed_forward(self.attention(x, f"{name}.attention"), name)
        mean = x.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


WEIGHTS = require_weights()
TEXTS = [
    "",
    "My dog is called Max.",
    "The flight leaves at 9:45 from gate B12, doesn't it?",
    "我的狗叫麦克斯。",
    "Ça va très bien, merci 😀",
    "short",
    "A longer paragraph about gardens, weather and old friends who meet again. " * 5,
    "word " * 400,
]


@pytest.fixture(scope="module")
def embedder() -> MiniLMEmbedder:
    return MiniLMEmbedder.load()


@pytest.fixture(scope="module")
def reference() -> ReferenceEncoder:
    return ReferenceEncoder(safetensors.read(WEIGHTS.model), WordPiece.load(WEIGHTS.vocabulary))


def test_vectors_equal_those_of_a_plain_float32_encoder(
    embedder: MiniLMEmbedder, reference: ReferenceEncoder
) -> None:
    """Texts of all lengths in one call have a cosine of at least 0.9999 to the reference."""
    vectors = embedder.embed(TEXTS)
    cosines = [float(vector @ reference.embed(text)) for vector, text in zip(vectors, TEXTS, strict=True)]
    assert min(cosines) >= 0.9999


@given(texts=st.lists(st.text(st.characters(), max_size=60), max_size=12))
@settings(max_examples=25, deadline=None)
def test_company_does_not_change_a_vector(embedder: MiniLMEmbedder, texts: list[str]) -> None:
    """Whatever the texts, surrogates and NUL included, each gets the unit vector it gets alone."""
    together = embedder.embed(texts)
    assert together.shape == (len(texts), DIM)
    assert together.dtype == np.float32
    for text, vector in zip(texts, together, strict=True):
        assert abs(float(np.linalg.norm(vector)) - 1.0) < 1e-5
        assert float(vector @ embedder.embed([text])[0]) >= 0.99999


def test_texts_past_the_limit_are_cut(embedder: MiniLMEmbedder) -> None:
    """A text of 100,000 characters has the vector of its first 254 tokens."""
    long, cut = embedder.embed(["river " * 20_000, "river " * 254])
    assert float(long @ cut) >= 0.99999


def test_many_texts_run_in_bounded_batches(embedder: MiniLMEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run has more padded tokens than the bound, and each text is in exactly one run."""
    monkeypatch.setattr(minilm, "BATCH_TOKENS_MAX", 64)
    encoded = [[1] * length for length in itertools.chain(range(2, 40), [256, 3, 100])]
    batches = list(minilm._batches(encoded))
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(encoded)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(encoded[index]) for index in batch) <= 64
        shortest, longest = (pick(len(encoded[index]) for index in batch) for pick in (min, max))
        assert shortest >= minilm.PADDED_SHARE_MIN * longest  # little is padding
    texts = [f"number {number} " * (number % 7 + 1) for number in range(30)]
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(embedder.embed(texts), alone, atol=1e-5)


def test_threads_may_share_an_embedder(embedder: MiniLMEmbedder) -> None:
    """Concurrent calls give the vectors of calls one after the other."""
    wanted = [embedder.embed([text])[0] for text in TEXTS[:6]]
    wrong: list[int] = []

    def work(first: int) -> None:
        for step in range(12):
            index = (first + step) % 6
            if float(embedder.embed([TEXTS[index]])[0] @ wanted[index]) < 0.99999:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_it_fulfils_the_port(embedder: MiniLMEmbedder) -> None:
    """Dimension, empty input and refusal of a bare string are as the protocol says."""
    port: Embedder = embedder
    assert port.dim == 384
    assert port.embed([]).shape == (0, 384)
    with pytest.raises(InvalidInput, match="list"):
        port.embed("one text")
    with pytest.raises(InvalidInput, match="NoneType"):
        port.embed([None])  # type: ignore[list-item]


def test_the_fingerprint_follows_the_weights(embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """A folder with the same files has the same fingerprint; one changed weight gives another."""
    shutil.copy(WEIGHTS.model, tmp_path / "model.safetensors")
    shutil.copy(WEIGHTS.vocabulary, tmp_path / "vocab.txt")
    same = MiniLMEmbedder.load(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(struct.pack("<f", 0.123))
    changed = MiniLMEmbedder.load(tmp_path)
    assert same.fingerprint == embedder.fingerprint
    assert changed.fingerprint != embedder.fingerprint


def test_weights_of_another_architecture_are_refused(embedder: MiniLMEmbedder) -> None:
    """A missing tensor, a misshapen one and a short vocabulary are named before anything runs."""
    tokenizer = WordPiece.load(WEIGHTS.vocabulary)
    tensors = safetensors.read(WEIGHTS.model)
    hashes = minilm.Hashes(model="m", vocabulary="v")
    name = "encoder.layer.3.output.dense.weight"

    def build(
        tensors: dict[str, Vectors], tokenizer: WordPiece = tokenizer, threads: int = 1
    ) -> MiniLMEmbedder:
        return MiniLMEmbedder(tokenizer=tokenizer, tensors=tensors, hashes=hashes, threads=threads)

    with pytest.raises(ModelUnavailable, match=f"{name} is missing"):
        build({key: tensor for key, tensor in tensors.items() if key != name})
    with pytest.raises(ModelUnavailable, match=f"{name} has shape"):
        build(tensors | {name: tensors[name].T})
    with pytest.raises(ModelUnavailable, match="5 tokens"):
        build(tensors, WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    with pytest.raises(InvalidInput, match="threads"):
        build(tensors, threads=0)


def test_a_failure_of_the_runtime_is_translated(
    embedder: MiniLMEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error inside onnxruntime comes out as ModelUnavailable, when loading and when running."""
    monkeypatch.setattr(minilm, "_GRAPH", "base.py")
    with pytest.raises(ModelUnavailable, match="cannot run the embedder"):
        MiniLMEmbedder.load()

    class Beyond:
        """A tokenizer whose ids are not in the table."""

        size = minilm.VOCABULARY_SIZE
        pad_id = 0

        def encode(self, text: str, *, tokens_max: int) -> Sequence[int]:
            return [minilm.VOCABULARY_SIZE + 5]

    monkeypatch.setattr(embedder, "_tokenizer", Beyond())
    with pytest.raises(ModelUnavailable, match="failed on"):
        embedder.embed(["x"])


def test_importing_loads_no_vendor() -> None:
    """numpy and onnxruntime are not loaded before an embedder is."""
    program = (
        "import sys, memos.models.minilm, memos.models.cached\n"
        "sys.exit(sum(name in sys.modules for name in ('numpy', 'onnxruntime', 'tokenizers', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
