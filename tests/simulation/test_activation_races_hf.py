"""Chats over tensors of a real model while memories are edited, corrected, deleted and erased, prefixes are made,
dropped and evicted: no prompt and no kept file holds what had gone, and no chat fails."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.torch_there import torch_or_skip

torch_or_skip()

from fastapi.testclient import TestClient

from memos.api.app import create_app
from memos.erasure import erase
from memos.mem_chat.chat import MemChat
from memos.mem_chat.events import Text
from memos.mem_os.main import MOS
from memos.memory.activation.hf import HFActivation
from memos.memory.item import WorkingEntry
from memos.memory.store import ItemFilter, ReplaceWorking
from memos.models.hf.model import HFModel
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing_model import write_tiny_model

CUBE = USER = "u"
FACTS = 24
PLACES = 10
CHATS = 40
QUESTION = "Where does the old boat lie?"


def fact(number: int, version: int = 0) -> str:
    return f"Boat {number} lies in harbour {number} and bears the sign sign{number}v{version}x."


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    folder = write_tiny_model(tmp_path / "model", seed=3)
    settings = Settings(
        home=tmp_path / "home",
        models={
            "embedder": "none",
            "chat_backend": "hf",
            "chat_model": str(folder),
            "chat_tokens_max": 2,
            "chat_threads": 1,
        },
        scheduler={"enable_activation_memory": True, "act_mem_update_interval": 0.0, "model_steps": ()},
        activation={"bytes_max": 1024**2, "prefix_tokens_min": 64},
        api={"enable_chat": True},
    )
    with build(settings, start=False) as running:
        yield running


def kept_ids(backend: HFActivation) -> list[list[int]]:
    """The tokens of every prefix in files, from the first one on."""
    found = []
    for folder in (backend.files.root / backend.files.fingerprint).iterdir():
        manifest = backend.files.manifest(folder.name)
        for head in manifest.held.values():
            segments = backend.files.read_path(folder.name, manifest.path_to(head))
            found.append([int(one) for segment in segments for one in segment.ids])
    return found


class Signs:
    """The signs of memories that are gone, and the prompts that a model was given."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.deleted: set[str] = set()
        self.faults: list[str] = []
        self.prompts = 0
        self.reused = 0
        self._started = threading.local()

    def begin(self) -> None:
        """This thread's next chat starts now: what is gone by now must not be in its prompt."""
        self._started.gone = frozenset(self.gone)

    def watch(self, model: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = model.answer

        def watched(ids: Sequence[int], **named: Any) -> Any:
            text = model.text.text_of(ids)
            seen = [sign for sign in getattr(self._started, "gone", ()) if sign in text]
            if seen:
                self.faults.append(f"a prompt holds {seen}")
            self.prompts += 1
            self.reused += named.get("past") is not None
            return answer(ids, **named)

        monkeypatch.setattr(model, "answer", watched)


def says_nothing(chat: MemChat, turn: Any, *_: Any) -> Iterator[Text]:
    """For the rare chat in which random weights say nothing at all."""
    turn.answer = "nothing"
    yield Text(turn.answer)


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_that_went_is_read_or_kept(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """By MOS.chat and over HTTP at once, with every kind of change and of promotion beside them."""
    signs, over, problems = Signs(), threading.Event(), []
    llm: Any = runtime.models.llm
    signs.watch(llm.model, monkeypatch)
    monkeypatch.setattr(MemChat, "_quote", says_nothing)  # a quoted memory would be remembered as said
    mos = MOS(runtime=runtime)
    mos.create_user(USER)
    mos.register_mem_cube(CUBE, user_id=USER)
    ids = {n: mos.add(memory_content=fact(n), user_id=USER)[0] for n in range(FACTS)}
    versions = dict.fromkeys(ids, 0)
    client = TestClient(create_app(runtime))
    rounds = {"chats": 0}

    def until_over(step: Callable[[random.Random], None], number: int) -> threading.Thread:
        def run() -> None:
            chance = random.Random(seed * 100 + number)
            while not over.is_set():
                try:
                    step(chance)
                except BaseException as error:  # told by the assertion below
                    problems.append(repr(error))
                    return

        return threading.Thread(target=run)

    def chats(_: random.Random) -> None:
        signs.begin()
        assert mos.chat(QUESTION, user_id=USER)
        rounds["chats"] += 1

    def posts(_: random.Random) -> None:
        signs.begin()
        body = {"user_id": USER, "query": QUESTION, "add_message_on_answer": False}
        answer = client.post("/product/chat/complete", json=body)
        assert answer.status_code == 200 and answer.json()["data"]["response"], answer.text
        rounds["chats"] += 1

    def changes(chance: random.Random) -> None:
        number = chance.choice(list(ids))
        sign = f"sign{number}v{versions[number]}x"
        kind = chance.random()
        if kind < 0.4:
            versions[number] += 1
            mos.update(CUBE, ids[number], fact(number, versions[number]), user_id=USER)
            signs.gone.add(sign)
        elif kind < 0.6 and len(ids) > PLACES:
            mos.delete(CUBE, ids.pop(number), user_id=USER)
            signs.gone.add(sign)
            signs.deleted.add(sign)
        elif kind < 0.7:
            said = {"role": "assistant", "content": fact(number, versions[number])}
            body = {
                "user_id": USER,
                "feedback_content": f"No, boat {number} lies in harbour {number + 500}.",
                "history": [{"role": "user", "content": QUESTION}, said],
                "retrieved_memory_ids": [ids[number]],
                "async_mode": "sync",
            }
            assert client.post("/product/feedback", json=body).status_code == 200
        else:
            chosen = chance.sample(list(ids.values()), PLACES)
            entries = tuple(WorkingEntry(one) for one in chosen)
            runtime.store.apply([ReplaceWorking(CUBE, entries, None, "test")])
        time.sleep(0.02)

    def promotes(chance: random.Random) -> None:
        keeper = runtime.activation.keeper
        assert keeper is not None
        runtime.scheduler.update_activation_memory(user_id=USER, mem_cube_id=CUBE)
        keeper.sweep()
        if chance.random() < 0.1:
            keeper.doom([keeper.blocks.namespace(USER, (CUBE,))], "dropped")

    threads = [until_over(step, n) for n, step in enumerate((chats, posts, changes, promotes, promotes))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 120
    while rounds["chats"] < CHATS and not problems and time.monotonic() < deadline:
        time.sleep(0.05)
    over.set()
    for thread in threads:
        thread.join()
    assert problems == [] and signs.faults == []
    assert rounds["chats"] >= CHATS and signs.prompts >= CHATS and signs.reused > 5
    keeper = runtime.activation.keeper
    assert keeper is not None and isinstance(keeper.backend, HFActivation)
    assert keeper.sweep().left == 0
    runtime.scheduler.update_activation_memory(user_id=USER, mem_cube_id=CUBE)
    texts = [llm.model.text.text_of(ids_of) for ids_of in kept_ids(keeper.backend)]
    assert texts and not [sign for sign in signs.gone for text in texts if sign in text]
    for one in runtime.store.find(ItemFilter(cube_ids=(CUBE,)), limit=500).items:
        mos.delete(CUBE, one.id, user_id=USER)
    swept = keeper.sweep()
    assert swept.left == 0
    assert list(runtime.settings.activation_path.rglob("seg-*")) == []
    assert erase(runtime, USER).counts["activation_left"] == 0
    assert runtime.store.verify() == []
