"""The activation area of a cube: there where it is configured, and only there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.torch_there import torch_or_skip

torch_or_skip()

from memos import metrics
from memos.configs.mem_cube import GeneralMemCubeConfig
from memos.errors import ActivationMiss, ConfigError, ModelUnavailable
from memos.mem_cube.general import GeneralMemCube
from memos.memories.activation.item import KVCacheItem
from memos.memories.activation.kv import KVCacheMemory
from memos.memory.activation.base import MissReason
from memos.memory.item import ItemStatus
from memos.memory.store import ErasingStore, SetStatus, TouchItems, UpdateItem
from memos.memory.textual import TextualMemoryItem
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


def made_of(cube: GeneralMemCube, name: str, how: str) -> KVCacheItem:
    """A cache that holds the memory `name`, by one of the ways a program has."""
    caches, memory = cube.act_mem, cube.text_mem.get(name)
    assert caches is not None
    if how == "memory":
        return caches.from_textual_memory(memory)
    if how == "text":
        return caches.extract(f"What is known:\n- {memory.memory}\n")
    if how == "summary":
        return caches.extract("There is an animal.", of=[memory])
    ids, cache = caches.llm.build_kv_cache(f"Remember this. {memory.memory}")
    return KVCacheItem(ids, caches.llm.past_of(cache), caches.llm)


def change(cube: GeneralMemCube, name: str, how: str) -> None:
    runtime = cube.runtime
    if how == "delete":
        cube.text_mem.delete([name])
    elif how == "edit":
        cube.text_mem.update(name, "Max is a cat.")
    elif how == "archive":
        runtime.store.apply([SetStatus((name,), ItemStatus.ARCHIVED, "old")])
    elif how == "erase":
        assert isinstance(runtime.store, ErasingStore)
        runtime.store.erase("ann")
    else:
        [item] = runtime.store.get([name])
        told = replace(item, extra={"corrected_by": ["another"]})
        runtime.store.apply([UpdateItem(runtime.indexer.index([told])[0], None, "feedback")])


@pytest.mark.parametrize(
    ("by", "how"),
    [
        *(("memory", how) for how in ("delete", "edit", "archive", "correct", "erase")),
        *((by, "delete") for by in ("text", "summary", "bare cache")),
    ],
)
def test_a_cache_goes_with_the_memory_it_was_made_of(
    runtime: Runtime, folder: Path, tmp_path: Path, how: str, by: str
) -> None:
    """However it was made and whoever changed the memory: the cache is given to nobody, dumped nowhere and loaded by
    nobody, the miss is counted with its reason, and the caches of other memories stay."""
    cube = GeneralMemCube(named(folder), runtime=runtime)
    assert cube.act_mem is not None
    [name] = cube.text_mem.add(["Max is a dog."], user_id="ann")
    [other] = cube.text_mem.add(["The lamp is green."], user_id="bob")
    gone, stays = made_of(cube, name, by), made_of(cube, other, by)
    cube.act_mem.add([gone, stays])
    cube.act_mem.dump(tmp_path / "caches")
    runtime.store.apply([TouchItems((name, other), "used")])
    assert len(cube.act_mem.get_all()) == 2
    change(cube, name, how)
    before = metrics.ACTIVATION_LOOKUPS.value(outcome="miss", reason="invalidated")
    assert cube.act_mem.get_cache([gone.id]) is None
    assert metrics.ACTIVATION_LOOKUPS.value(outcome="miss", reason="invalidated") == before + 1
    assert cube.act_mem.get_cache([gone.id, stays.id]).get_seq_length() == len(stays.ids)
    assert [one.id for one in cube.act_mem.get_all()] == [stays.id]
    if (
        by != "bare cache"
    ):  # of one that says nothing of itself, only a memory that is still there can be found
        with pytest.raises(ActivationMiss) as caught:
            cube.act_mem.add([gone, stays])
        assert caught.value.reason == MissReason.INVALIDATED
    fresh = GeneralMemCube(named(folder), runtime=runtime).act_mem
    assert fresh is not None
    fresh.load(tmp_path / "caches")
    assert [one.id for one in fresh.get_all()] == [stays.id]
    cube.act_mem.dump(tmp_path / "caches")
    assert len(list((tmp_path / "caches").glob("seg-*"))) == 1


def test_a_text_of_the_programs_own_is_kept(runtime: Runtime, folder: Path) -> None:
    """What is no memory of the store, or was made of none, stays whatever happens to memories."""
    cube = GeneralMemCube(named(folder), runtime=runtime)
    assert cube.act_mem is not None
    [name] = cube.text_mem.add(["Max is a dog."], user_id="ann")
    items = [
        cube.act_mem.extract("You are kind."),
        cube.act_mem.from_textual_memory(TextualMemoryItem(id="mine", memory="A note.")),
    ]
    cube.act_mem.add(items)
    cube.text_mem.delete([name])
    assert cube.act_mem.get_all() == items
