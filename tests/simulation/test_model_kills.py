"""SIGKILL inside each question to a model, and between its commit and the queue's finish.

The worker is a process of its own over the durable queue and store; the model is a real HTTP endpoint.
Whatever the worker was doing, the next process does the work once, and what is committed is not asked
about again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.model_child import CUBE, USER, settings_of

from memos.memory.item import MemoryItem, MemoryKind, Source
from memos.memory.store import AddItems, ItemFilter
from memos.runtime import Runtime, build
from memos.testing_server import ModelServer, Say, Slow

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0


@dataclass(frozen=True)
class Step:
    """A message, the model's replies to it, in which of them the worker dies, and what must hold in the end."""

    label: str
    content: str
    replies: tuple[dict[str, Any], ...]
    dies_in: int
    items: tuple[MemoryItem, ...]
    holds: Any  # Runtime -> bool


def item(name: str, text: str, **fields: Any) -> MemoryItem:
    return MemoryItem(name, CUBE, USER, text, **fields)


BOATS = tuple(item(f"m{n}", text) for n, text in enumerate(["My boat is Petrel.", "A boat is blue."]))
PARTS = tuple(
    item(f"d{n}", f"The boat Petrel has {thing}.", raw=False)
    for n, thing in enumerate(["a mast", "a keel", "a sail", "an anchor", "a bell", "a rudder"])
)
HOME = (
    item("r1", "I live in Paris.", role="user"),
    item("d1", "The user lives in Paris.", raw=False, sources=(Source("item", item_id="r1"),)),
)
INTENT = {"queries": [{"index": 0, "keywords": [], "trigger_retrieval": True, "missing_evidence": ["boat"]}]}


def texts(runtime: Runtime, **wanted: Any) -> list[str]:
    return [one.memory for one in runtime.store.find(ItemFilter(cube_ids=(CUBE,), **wanted)).items]


def is_recalled(runtime: Runtime) -> bool:
    working = runtime.store.working(CUBE)
    return working.version == 1 and len(working.items) == 2


STEPS = {
    "intent": Step("mem_update", "What is my boat?", (INTENT, {"new_order": [0]}), 1, BOATS, is_recalled),
    "rank": Step("mem_update", "What is my boat?", (INTENT, {"new_order": [0]}), 2, BOATS, is_recalled),
    "preferences": Step(
        "pref_add",
        "It was so loud that we left.",
        (
            {
                "preferences": [
                    {
                        "turn": 0,
                        "quote": "so loud that we left",
                        "polarity": "dislike",
                        "object": "loud places",
                        "explicit": False,
                    }
                ]
            },
        ),
        1,
        (),
        lambda runtime: (
            texts(runtime, kinds=(MemoryKind.PREFERENCE,)) == ["The user seems not to like loud places."]
        ),
    ),
    "feedback": Step(
        "mem_feedback",
        json.dumps({"feedback_content": "Nope, these days Lyon is my home.", "retrieved_memory_ids": ["d1"]}),
        ({"changes": [{"action": "correct", "targets": [0], "text": "The user lives in Lyon."}]},),
        1,
        HOME,
        lambda runtime: texts(runtime, raw=False) == ["The user lives in Lyon."],
    ),
    "summaries": Step(
        "mem_organize",
        json.dumps({"scope": "summarise"}),
        ({"summaries": [{"group": 0, "text": "The boat Petrel has a mast and a keel."}]},),
        1,
        PARTS,
        lambda runtime: (
            texts(runtime, raw=False, tags=("summary",)) == ["The boat Petrel has a mast and a keel."]
        ),
    ),
}


def prepared(home: Path, server: ModelServer, step: Step) -> None:
    with build(settings_of(home, server.url), start=False) as runtime:
        if step.items:
            runtime.store.apply([AddItems(tuple(runtime.indexer.index(list(step.items))))])


def worker(home: Path, server: ModelServer, label: str = "", content: str = "", die: str = "") -> Any:
    asked = {"home": str(home), "url": server.url, "label": label, "content": content, "die": die}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation.model_child", json.dumps(asked)],
        cwd=ROOT,
        env={**os.environ, "MEMOS_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process: Any) -> str:
    """What the process said, once it is over."""
    out, _ = process.communicate(timeout=WAIT_S)
    return str(out)


def until_asked(server: ModelServer, count: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while len(server.chats()) < count:
        assert time.monotonic() < deadline, "the model was not asked"
        time.sleep(0.01)


def assert_done_once(home: Path, server: ModelServer, step: Step) -> None:
    with build(settings_of(home, server.url), start=False) as runtime:
        assert step.holds(runtime)
        assert runtime.store.verify() == []
        depth = runtime.queue.depth(lanes=False)
        assert (depth.remaining, depth.running, depth.dead) == (0, 0, 0)


@pytest.mark.parametrize("name", list(STEPS))
def test_a_worker_that_dies_while_it_asks_loses_nothing(tmp_path: Path, name: str) -> None:
    """Killed while the model is answering: the next process asks again and does the work once."""
    step = STEPS[name]
    says = [Say(json.dumps(reply)) for reply in step.replies]
    with ModelServer([*says[: step.dies_in - 1], Slow(says[step.dies_in - 1], 50.0)]) as server:
        prepared(tmp_path, server, step)
        first = worker(tmp_path, server, step.label, step.content)
        until_asked(server, step.dies_in)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=WAIT_S)
        server.script(*says)
        assert "done" in ended(worker(tmp_path, server)).splitlines()
        assert len(server.chats()) == step.dies_in + len(says)
        assert_done_once(tmp_path, server, step)


@pytest.mark.parametrize("name", ["rank", "preferences", "feedback"])
def test_what_is_committed_is_not_asked_about_again(tmp_path: Path, name: str) -> None:
    """Killed between commit and finish: the redelivered message finds its mark and costs no call."""
    step = STEPS[name]
    with ModelServer([Say(json.dumps(reply)) for reply in step.replies]) as server:
        prepared(tmp_path, server, step)
        first = worker(tmp_path, server, step.label, step.content, die=step.label)
        assert "done" not in ended(first).splitlines() and first.returncode == -signal.SIGKILL
        asked = len(server.chats())
        assert asked == len(step.replies)
        assert "done" in ended(worker(tmp_path, server)).splitlines()
        assert len(server.chats()) == asked
        assert_done_once(tmp_path, server, step)
