"""SIGKILL inside a promotion: while the server reads the prefix, and between its commit and the queue's finish.

The worker is a process of its own over the durable queue and store; the server is a real HTTP endpoint.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.activation_child import CUBE, USER, settings_of

from memos.memory.item import MemoryItem, WorkingEntry
from memos.memory.store import AddItems, ReplaceWorking
from memos.runtime import build
from memos.testing_prefixes import PromptCache
from memos.testing_server import ModelServer, Say, Slow

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0


def prepared(home: Path, server: ModelServer) -> None:
    """Eight memories at work, and a reader who chatted over them."""
    items = [
        MemoryItem(f"m{n}", CUBE, USER, f"Boat {n} lies in harbour {n} and is old. " * 4) for n in range(8)
    ]
    with build(settings_of(home, server.url), start=False) as runtime:
        runtime.store.apply([AddItems(tuple(runtime.indexer.index(items)))])
        entries = tuple(WorkingEntry(one.id) for one in items)
        runtime.store.apply([ReplaceWorking(CUBE, entries, None, "test")])
        runtime.activation.blocks.prepare(USER, (CUBE,), items, language="en", system_prompt="")


def worker(home: Path, server: ModelServer, *, submit: bool = False, die: bool = False) -> Any:
    asked = {"home": str(home), "url": server.url, "submit": submit, "die": die}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation.activation_child", json.dumps(asked)],
        cwd=ROOT,
        env={**os.environ, "MEMOS_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("step", ["reading", "finish"])
def test_a_worker_that_dies_in_a_promotion_leaves_one_prefix(tmp_path: Path, step: str) -> None:
    """The next process ends with one sound prefix on record, one file with tokens in it, one log, and nothing
    left to do; what was committed is not prepared again."""
    cache = PromptCache("llama_cpp")
    replies = [Slow(Say("x"), 50.0)] if step == "reading" else []
    with ModelServer(replies, default=Say("x"), models=["m"], prefixes=cache) as server:
        prepared(tmp_path, server)
        first = worker(tmp_path, server, submit=True, die=step == "finish")
        if step == "reading":
            deadline = time.monotonic() + WAIT_S
            while not server.chats():
                assert time.monotonic() < deadline, "the server was not asked"
                time.sleep(0.01)
            first.send_signal(signal.SIGKILL)
        first.communicate(timeout=WAIT_S)
        assert first.returncode == -signal.SIGKILL
        asked = len(server.chats())
        out, _ = worker(tmp_path, server).communicate(timeout=WAIT_S)
        assert "done" in out.splitlines()
        assert len(server.chats()) == asked + (step == "reading")
        with build(settings_of(tmp_path, server.url), start=False) as runtime:
            [prefix] = runtime.activation.blocks.index.prefixes()  # type: ignore[attr-defined]
            assert prefix.is_sound and len(prefix.item_ids) == 8
            assert [name for name, tokens in cache.files.items() if tokens] == [prefix.id]
            logs = [one for _, one in runtime.store.web_logs() if one.to_memory_type == "ActivationMemory"]
            assert len(logs) == 1
            assert runtime.store.verify() == []
            depth = runtime.queue.depth(lanes=False)
            assert (depth.remaining, depth.running, depth.dead) == (0, 0, 0)
