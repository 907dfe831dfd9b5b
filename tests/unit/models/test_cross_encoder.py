"""The cross-encoder on this machine, over a small graph that counts common words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memos.errors import ConfigError, InvalidInput, ModelUnavailable
from memos.models.cross_encoder import PAIR_TOKENS_MAX, CrossEncoder
from memos.runtime import build
from memos.settings import Settings

GRAPH = Path(__file__).parent / "overlap.onnx"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "boat", "petrel", "is", "called", "my", "rain", "red"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as model hubs lay it out."""
    (tmp_path / "onnx").mkdir()
    shutil.copy(GRAPH, tmp_path / "onnx" / "model.onnx")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


def test_each_text_is_scored_with_the_query(folder: Path) -> None:
    """Scores come in the order of the texts, whatever their lengths; words of both count."""
    scores = CrossEncoder(folder).rerank(
        "my boat is called", ["rain", "my boat is called petrel", "red boat", ""]
    )
    assert scores == [0.0, 4.0, 1.0, 0.0]


def test_many_and_long_texts_run_in_bounded_batches(folder: Path) -> None:
    """Hundreds of texts, some far longer than a pair may be, keep their order."""
    model = CrossEncoder(folder)
    texts = ["boat " * (n % 7) + "rain " * (n % 3) for n in range(300)] + ["boat " * 5_000]
    *scores, longest = model.rerank("boat", texts)
    assert scores == [float(n % 7) for n in range(300)]
    assert longest == PAIR_TOKENS_MAX - 4  # [CLS] boat [SEP] … [SEP]
    assert model.rerank("boat", []) == []


def test_what_is_no_cross_encoder_is_refused(tmp_path: Path, folder: Path) -> None:
    """An empty folder, a broken graph, a graph of another kind and too many texts say what is wrong."""
    with pytest.raises(ModelUnavailable, match="holds no"):
        CrossEncoder(tmp_path / "none")
    with pytest.raises(InvalidInput):
        CrossEncoder(folder).rerank("x", ["y"] * 1_001)
    (folder / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelUnavailable, match="cannot run"):
        CrossEncoder(folder)


def test_the_settings_switch_it_on(folder: Path, tmp_path: Path) -> None:
    """It is off by default, on by its name and folder, and a folder without it stops the start."""
    home = {"home": tmp_path / "home"}
    with build(Settings(**home, models={"embedder": "none"}), start=False) as runtime:
        assert runtime.reranker is None
    chosen = {"embedder": "none", "reranker": "cross_encoder", "reranker_folder": folder}
    with build(Settings(**home, models=chosen), start=False) as runtime:
        assert isinstance(runtime.reranker, CrossEncoder)
    with pytest.raises(ConfigError, match="RERANKER_FOLDER"):
        build(Settings(**home, models={**chosen, "reranker_folder": tmp_path / "none"}), start=False)
    with pytest.raises(ValueError, match="RERANKER_FOLDER"):
        Settings(**home, models={"reranker": "cross_encoder"})
