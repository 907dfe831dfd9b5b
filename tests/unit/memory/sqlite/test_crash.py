"""Killed at any point, the file holds all of a change or nothing of it, and what was answered is there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from memos.memory.sqlite import SqliteStore
from memos.memory.store import ItemFilter
from memos.testing import ManualClock

_PREAMBLE = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from memos.clock import SystemClock
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.item import MemoryItem, WorkingEntry
from memos.memory.sqlite import SqliteStore
from memos.memory.store import *

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def added(*ids, text="text"):
    return AddItems(tuple(
        IndexedItem(MemoryItem(id=i, cube_id="c", user_id="u", memory=text), {"text": 1}) for i in ids
    ))

def effects(key, *ids, text="text"):
    message = ScheduleMessageItem(user_id="u", mem_cube_id="c", label="mem_update", content="x")
    log = ScheduleLogForWebItem(user_id="u", mem_cube_id="c", label="addMemory", log_content="x")
    changes = [added(*ids, text=text), ReplaceWorking("c", tuple(map(WorkingEntry, ids[:5])), None, "r")]
    return dict(changes=changes, followups=[Followup("child of " + key, key, message)], logs=[log])

path = Path(sys.argv[1])
"""


def child(program: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs `program` after the preamble."""
    return subprocess.Popen(
        [sys.executable, "-c", _PREAMBLE + textwrap.dedent(program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def reopened(path: Path) -> SqliteStore:
    return SqliteStore(path, clock=ManualClock())


def test_killed_inside_a_transaction(tmp_path: Path) -> None:
    """A process that dies while it writes, after pages have gone to disk, leaves nothing of the change."""
    path = tmp_path / "m.db"
    killed = child(
        """
        class Deadly(list):
            def __iter__(self):
                yield from list.__iter__(self)
                die()

        with SqliteStore(path, clock=SystemClock()) as store:
            store.apply_once("first", **effects("first", "a", "b"))
            ids = [f"i{n}" for n in range(8_000)]
            call = effects("second", *ids, text="a long text " * 200)
            store.apply_once("second", Deadly(call["changes"]), followups=call["followups"], logs=call["logs"])
        """,
        path,
    )
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert path.with_name("m.db-wal").stat().st_size > 10_000_000  # a good part was on disk already
    with reopened(path) as store:
        assert store.verify() == []
        assert [item.id for item in store.find(ItemFilter()).items] == ["b", "a"]
        assert [entry.item_id for entry in store.working("c").entries] == ["a", "b"]
        assert store.marks(limit=9) == [("first", "")]
        assert [followup.key for followup in store.pending_followups()] == ["child of first"]
        assert len(store.web_logs()) == 1
        assert store.seq("c") == 1


def test_killed_between_commit_and_return(tmp_path: Path) -> None:
    """A process that dies with the commit behind it has done the task: the repeat has no effect and
    brings the followup that nobody has submitted."""
    path = tmp_path / "m.db"
    program = """
        store = SqliteStore(path, clock=SystemClock())
        write = store._database.write

        @contextmanager
        def deadly(**how):
            with write(**how) as connection:
                yield connection
            die()

        store._database.write = deadly
        store.apply_once("key", **effects("key", "a"))
        """
    killed = child(program, path)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with reopened(path) as store:
        assert store.was_applied("key")
        before = (store.journal(), store.web_logs(), store.working("c"), store.seq("c"))
        again = store.apply_once("key", [])
        assert not again.fresh
        assert [followup.key for followup in again.followups] == ["child of key"]
        assert (store.journal(), store.web_logs(), store.working("c"), store.seq("c")) == before
        assert store.find(ItemFilter()).total == 1
        assert store.verify() == []


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_time(tmp_path: Path, seed: int) -> None:
    """Killed at a random moment: every call that was answered is there, each key has all of its effects
    or none, and repeating all keys brings every effect exactly once."""
    path = tmp_path / "m.db"
    killed = child(
        """
        store = SqliteStore(path, clock=SystemClock())
        for n in range(10_000):
            store.apply_once(f"K{n}", **effects(f"K{n}", f"a{n}", f"b{n}"))
            print(n, flush=True)
        """,
        path,
    )
    assert killed.stdout is not None
    answered = int(killed.stdout.readline())
    moment = threading.Timer(random.Random(seed).uniform(0.0, 0.1), killed.kill)
    moment.start()
    for line in killed.stdout:
        answered = int(line)
    killed.wait(timeout=60)
    moment.join()
    killed.stdout.close()
    with reopened(path) as store:
        assert store.verify() == []
        done = [n for n in range(answered + 2) if store.was_applied(f"K{n}")]
        assert done in ([*range(answered + 1)], [*range(answered + 2)])
        assert store.find(ItemFilter()).total == 2 * len(done)
        assert len(store.pending_followups()) == len(done)
        assert store.seq("c") == len(done)
        assert {item.id for item in store.working("c").items} == {f"a{done[-1]}", f"b{done[-1]}"}


def test_processes_write_one_file_together(tmp_path: Path) -> None:
    """Several processes write, read and race for the same keys: no change is lost, none happens twice."""
    path = tmp_path / "m.db"
    reopened(path).close()
    writers = [
        child(
            """
            name = sys.argv[2]
            with SqliteStore(path, clock=SystemClock(), busy_timeout_s=60) as store:
                fresh = 0
                for n in range(60):
                    store.apply([added(f"{name}-{n}")])
                    fresh += store.apply_once(f"K{n}", [added(f"shared-{n}")]).fresh
                    with store.read("c") as view:
                        assert view.size == len(view.search_text({"text": 1.0}, limit=9_999))
                print(fresh)
            """,
            path,
            name,
        )
        for name in ("p", "q", "r")
    ]
    answers = [process.communicate(timeout=100)[0] for process in writers]
    assert [process.returncode for process in writers] == [0, 0, 0]
    assert sum(map(int, answers)) == 60
    with reopened(path) as store:
        assert store.find(ItemFilter()).total == 4 * 60
        assert store.seq("c") == 4 * 60
        assert store.verify() == []
