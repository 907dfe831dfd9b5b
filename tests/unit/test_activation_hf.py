"""Activation memory of a model in this process, in a whole runtime: promoted, reused, cut, erased."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.torch_there import torch_or_skip

torch_or_skip()

from memos.api.handlers import handlers_of
from memos.api.product_models import APIADDRequest
from memos.configs.mem_cube import GeneralMemCubeConfig
from memos.erasure import erase
from memos.mem_chat.chat import ChatQuery
from memos.mem_cube.general import GeneralMemCube
from memos.mem_os.main import MOS
from memos.memory.item import ItemStatus, WorkingEntry
from memos.memory.store import ItemFilter, ReplaceWorking, SetStatus
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing_model import write_tiny_model

FACTS = [f"Boat {n} lies in harbour {n} and was painted in colour {n}." for n in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=3)


@pytest.fixture
def settings(tmp_path: Path, folder: Path) -> Settings:
    return Settings(
        home=tmp_path,
        models={
            "embedder": "none",
            "chat_backend": "hf",
            "chat_model": str(folder),
            "chat_tokens_max": 4,
            "chat_threads": 1,
        },
        scheduler={"enable_activation_memory": True, "act_mem_update_interval": 0.0, "model_steps": ()},
    )


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    with build(settings, start=False) as running:
        messages = [{"role": "user", "content": text} for text in FACTS]
        handlers_of(running).add.handle_add_memories(
            APIADDRequest(user_id="u", messages=messages, async_mode="sync")
        )
        items = running.store.find(ItemFilter(), limit=50).items[:8]
        entries = tuple(WorkingEntry(one.id) for one in items)
        running.store.apply([ReplaceWorking("u", entries, None, "test")])
        yield running


def ask(runtime: Runtime) -> Any:
    asked = ChatQuery("u", "Where does boat 3 lie?", ("u",), (), add_message_on_answer=False)
    return runtime.chat.answer(asked).reused


def files(runtime: Runtime) -> list[Path]:
    return sorted(runtime.settings.activation_path.rglob("seg-*.safetensors"))


def test_tensors_are_reused_across_a_restart_and_removed_with_their_memories(
    runtime: Runtime, settings: Settings
) -> None:
    """Without a setting beyond the model: the first chat has nothing, the promoted prefix is reused, also by
    another runtime; a deleted memory ends it there; erasing leaves no segment."""
    assert ask(runtime).reason == "not_built"
    runtime.scheduler.update_activation_memory(user_id="u", mem_cube_id="u")
    assert files(runtime)
    first = ask(runtime)
    assert first.reused == first.predicted > 256 and first.prompt > first.reused
    with build(settings, start=False) as again:
        assert ask(again).reused == first.reused
    [prefix] = runtime.activation.blocks.index.prefixes()  # type: ignore[attr-defined]
    runtime.store.apply([SetStatus((prefix.item_ids[5],), ItemStatus.DELETED, "t")])
    cut = ask(runtime)
    assert cut.predicted == prefix.ends[5] and 0 < cut.reused <= prefix.ends[5]
    runtime.scheduler.update_activation_memory(user_id="u", mem_cube_id="u")
    whole = ask(runtime)
    assert cut.reused < whole.reused < first.reused
    receipt = erase(runtime, "u")
    assert receipt.counts["activation_prefixes"] == 1 and receipt.counts["activation_left"] == 0
    assert files(runtime) == []


def test_a_damaged_file_costs_no_answer(runtime: Runtime) -> None:
    """The chat answers, the reason is told, and the next promotion mends it."""
    runtime.scheduler.update_activation_memory(user_id="u", mem_cube_id="u")
    for path in files(runtime):
        path.write_bytes(path.read_bytes()[:-40])
    missed = ask(runtime)
    assert missed is not None and not missed.reused and missed.reason != "none"
    runtime.scheduler.update_activation_memory(user_id="u", mem_cube_id="u")
    assert ask(runtime).reused > 256


def test_what_is_kept_is_described_and_not_handed_out(runtime: Runtime) -> None:
    """MOS.get_all and the cube object list the prefix and the program's caches with the memories in them, a text and
    its size, for their reader alone; an edit shows as fewer usable memories, and there are no tensors."""
    ask(runtime)
    runtime.scheduler.update_activation_memory(user_id="u", mem_cube_id="u")
    config = GeneralMemCubeConfig(cube_id="u", act_mem={"backend": "kv_cache"})
    cube = GeneralMemCube(config, runtime=runtime)
    assert cube.act_mem is not None
    [made] = runtime.store.prefixes()  # type: ignore[attr-defined]
    text = next(one for one in cube.text_mem.get_all() if one.id not in made.item_ids)
    cube.act_mem.add([cube.act_mem.from_textual_memory(text)])
    mos = MOS(runtime=runtime)
    for name in ("u", "bob"):
        mos.create_user(name)
        mos.register_mem_cube(cube, user_id=name)
    [kept] = mos.get_all(user_id="u")["act_mem"]
    assert kept["cube_id"] == "u"
    prefix, cache = kept["memories"]
    about = prefix.metadata
    assert (about.backend, about.user_id, about.memory_type) == ("transformers", "u", "ActivationMemory")
    assert len(about.memory_ids) == len(about.versions) == about.usable_memories == 8
    assert about.tokens > 100 and about.bytes > 0 and about.created_at
    assert cache.metadata.memory_ids == [text.id] and cache.metadata.backend == "kv_cache"
    [others] = mos.get_all(user_id="bob", mem_cube_id="u")["act_mem"]
    assert [one.id for one in others["memories"]] == [cache.id]
    seen = runtime.scheduler.services.cube_of("u").act_mem
    assert [one.id for one in seen.get_all()] == [prefix.id] and seen.get(prefix.id) == prefix
    cube.text_mem.update(about.memory_ids[2], "Boat 2 was sold.")
    cube.text_mem.delete([text.id])
    [kept] = mos.get_all(user_id="u")["act_mem"]
    assert [one.metadata.usable_memories for one in kept["memories"]] == [2]
    assert json.loads(kept["memories"][0].model_dump_json())["memory"] == prefix.memory
