"""The activation area of a cube: there where it is configured, and only there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.torch_there import torch_or_skip

torch_or_skip()

from memos.configs.mem_cube import GeneralMemCubeConfig
from memos.errors import ConfigError, ModelUnavailable
from memos.mem_cube.general import GeneralMemCube
from memos.memories.activation.kv import KVCacheMemory
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing_model import write_tiny_model

CACHES = {"backend": "kv_cache"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=3)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with build(Settings(home=tmp_path, models={"embedder": "none"}), start=False) as running:
        yield running


def named(folder: Path) -> GeneralMemCubeConfig:
    llm = {"backend": "huggingface", "config": {"model_name_or_path": str(folder)}}
    return GeneralMemCubeConfig(cube_id="pets", act_mem=CACHES | {"config": {"extractor_llm": llm}})


def test_a_memory_of_the_cube_becomes_a_cache(tmp_path: Path, runtime: Runtime, folder: Path) -> None:
    """With a model's folder: a stored memory is read, handed out as a cache of its length, dumped and loaded
    by another cube; a cube's own dump holds no tensors."""
    cube = GeneralMemCube(named(folder), runtime=runtime)
    assert isinstance(cube.act_mem, KVCacheMemory) and cube.act_mem.get_all() == []
    [name] = cube.text_mem.add(["Max is a dog."], user_id="ann")
    item = cube.act_mem.from_textual_memory(cube.text_mem.get(name))
    cube.act_mem.add([item])
    assert item.metadata["source_text"] == "Max is a dog."
    assert cube.act_mem.get_cache([item.id]).get_seq_length() == len(item.ids)
    cube.act_mem.dump(tmp_path / "caches")
    other = GeneralMemCube(named(folder), runtime=runtime)
    assert other.act_mem is not None and other.act_mem.get(item.id) is None
    other.act_mem.load(tmp_path / "caches")
    assert other.act_mem.get_cache([item.id]).get_seq_length() == len(item.ids)
    cube.dump(tmp_path / "dump")
    assert not [path for path in (tmp_path / "dump").rglob("*") if path.suffix == ".safetensors"]


def test_without_a_folder_it_is_the_model_of_the_chat(tmp_path: Path, folder: Path) -> None:
    """No second copy of the weights is loaded."""
    models = {"embedder": "none", "chat_backend": "hf", "chat_model": str(folder), "chat_threads": 1}
    with build(Settings(home=tmp_path, models=models), start=False) as running:
        cube = GeneralMemCube(GeneralMemCubeConfig(act_mem=CACHES), runtime=running)
        assert cube.act_mem is not None
        assert cube.act_mem.llm is running.models.llm.model  # type: ignore[union-attr]


def test_no_model_is_an_error_that_says_what_to_set(runtime: Runtime, tmp_path: Path) -> None:
    """Neither a folder nor a chat model of this process; a folder without a model."""
    with pytest.raises(ConfigError, match=r"extractor_llm.*MEMOS_MODELS__CHAT_BACKEND=hf"):
        GeneralMemCube(GeneralMemCubeConfig(act_mem=CACHES), runtime=runtime)
    with pytest.raises(ModelUnavailable, match=r"no config\.json"):
        GeneralMemCube(named(tmp_path), runtime=runtime)


def test_without_the_extra_it_is_an_error_that_names_it(
    runtime: Runtime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not installed is told with the command; a cube that asks for no caches works without."""
    monkeypatch.setitem(sys.modules, "memos.memory.activation.kv_memory", None)
    with pytest.raises(ConfigError, match=r"kv_cache.*pip install 'memscheduler\[hf\]'"):
        GeneralMemCube(named(folder), runtime=runtime)
    assert GeneralMemCube("pets", runtime=runtime).act_mem is None
