"""What the test of one fact works with: the processes, and what stands in the two files after each step.

Reads past the handlers: rows, index entries, journal, logs and queue come from SQL over the files, recall
channels from a second store over the same file. Items are named by their texts, which a name keeps when
the row is wiped.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.one_fact_child import CUBE

from memos.clock import SystemClock
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.memory.postgres import PostgresAddress, PostgresStore
from memos.memory.sqlite import SqliteStore
from memos.memory.store import MemoryStore
from memos.models.base import Embedder
from memos.retrieval.keywords import analyse

WAIT_S = 60.0
PROGRAM = Path(__file__).with_name("one_fact_child.py")
Kill = tuple[str, str]  # label, "commit" or "finish"


class Process:
    """A child over a home. Leaving the block closes it; how it ended is in `ended`."""

    def __init__(self, home: Path, address: PostgresAddress | None = None) -> None:
        where = [] if address is None else [address.url, address.schema, address.role]
        self._child = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(home), *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._answer() == "ready"

    def do(self, name: str, **arguments: Any) -> Any:
        """Have a command carried out; its answer, None when the process died over it."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"name": name, **arguments}) + "\n")
        self._child.stdin.flush()
        return self._answer()

    def killed(self) -> None:
        """Wait until it has killed itself."""
        assert self._child.wait(WAIT_S) == -signal.SIGKILL
        self._close()

    def quit(self) -> None:
        """Let it close its runtime and end."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        assert self._child.wait(WAIT_S) == 0
        self._close()

    def abandon(self) -> None:
        """End it, whatever it does."""
        self._child.kill()
        self._child.wait(WAIT_S)
        self._close()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        return json.loads(line) if line else None

    def _close(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # it died with a command unread
                    pipe.close()


@dataclass(frozen=True, slots=True)
class Row:
    """One item as it stands in its row and the indexes."""

    kind: str
    status: str
    version: int
    raw: bool
    read: str
    uses: int
    ended: bool  # `valid_until` is set
    fact: tuple[str, str] | None  # slot, value
    sources: frozenset[str]
    superseded_by: str
    corrected_by: tuple[str, ...]
    indexed: bool


@dataclass
class World:
    """A home, the process that works on it, and how far the files were looked at."""

    home: Path
    embedder: Embedder
    process: Process | None = None
    names: dict[str, str] = field(default_factory=dict)
    journal_seen: int = 0
    logs_seen: int = 0
    address: PostgresAddress | None = None  # where the store is, when it is no file

    # -- the processes ---------------------------------------------------------------------------------

    def live(self, *, start: bool = True) -> Process:
        """The process, a new one where there is none."""
        if self.process is None:
            self.process = Process(self.home, self.address)
            if start:
                self.process.do("start")
        return self.process

    def step(self, commands: Sequence[dict[str, Any]], kills: Sequence[Kill] = ()) -> list[Any]:
        """Carry out the commands; with each kill a process dies of its own, and the next one goes on."""
        answers: list[Any] = []
        left = list(commands)
        for label, where in kills:
            process = self.process
            if process is None:
                process = self.process = Process(self.home, self.address)
                process.do("arm", label=label, where=where)
                process.do("start")
            else:
                process.do("arm", label=label, where=where)
            answers += [process.do(**command) for command in left]
            left = []
            process.killed()
            self.process = None
        answers += [self.live().do(**command) for command in left]
        assert self.live().do("drain") is True
        return answers

    # -- what stands in the files ----------------------------------------------------------------------

    def rows(self) -> dict[str, Row]:
        """Every item, by its name."""
        with self._memory() as files:
            found = list(files.execute("SELECT * FROM item ORDER BY no"))
            posted = {one[0] for one in files.execute("SELECT DISTINCT item_no FROM posting")}
            vectors = {one[0] for one in files.execute("SELECT item_no FROM vector")}
            mentioned = {one[0] for one in files.execute("SELECT item_no FROM mention WHERE live = 1")}
        for row in found:
            if row["memory"]:
                self.names[row["id"]] = row["memory"]
        rows = {}
        for row in found:
            body = json.loads(row["body"])
            extra = body.get("extra") or {}
            fact = extra.get("fact")
            live = row["no"] in posted
            assert live == bool(row["live"])
            assert live or row["no"] not in mentioned
            # What is archived keeps its text and its vector, to come back; what is deleted keeps nothing.
            wiped = row["status"] == "deleted"
            assert (row["no"] in vectors) == (not wiped)
            assert ((row["memory"], row["terms"]) == ("", "{}")) == wiped
            name = self.names[row["id"]]
            while name in rows:  # it says so once more
                name += "'"
            rows[name] = Row(
                kind=row["kind"],
                status=row["status"],
                version=row["version"],
                raw=bool(row["raw"]),
                read=row["read"],
                uses=row["use_count"],
                ended=row["valid_until"] is not None,
                fact=(fact["slot"], fact["value"]) if fact else None,
                sources=frozenset(
                    self.names[one["item_id"]] for one in body.get("sources") or () if one.get("item_id")
                ),
                superseded_by=self.names.get(extra.get("superseded_by", ""), ""),
                corrected_by=tuple(self.names[one] for one in extra.get("corrected_by", ())),
                indexed=live,
            )
        return rows

    def ids(self) -> list[str]:
        """The ids of all items, the oldest first."""
        with self._memory() as files:
            return [one[0] for one in files.execute("SELECT id FROM item ORDER BY no")]

    def id_of(self, name: str) -> str:
        """The id of the item that says `name`."""
        [found] = [item_id for item_id, text in self.names.items() if text == name]
        return found

    def working(self) -> tuple[int, list[str]]:
        """The version of the working set, and what stands in it."""
        with self._memory() as files:
            version = files.execute("SELECT working_version FROM cube WHERE id = ?", (CUBE,)).fetchone()[0]
            entries = files.execute("SELECT id FROM working JOIN item ON item.no = item_no ORDER BY place")
            return version, [self.names[one[0]] for one in entries]

    def tasks(self) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
        """What changed since the last look: for each task, or request, its label and (op, name) of each
        of its journal rows. Two entries of one label are two tasks."""
        with self._memory() as files:
            rows = list(files.execute("SELECT * FROM journal WHERE n > ? ORDER BY n", (self.journal_seen,)))
        self.journal_seen = max([self.journal_seen, *(row["n"] for row in rows)])
        tasks: dict[tuple[str, str, int], list[tuple[str, str]]] = {}
        for row in rows:
            # A request has no message key: what it did in one transaction has one `seq`.
            task = (row["label"], row["message_key"], 0 if row["message_key"] else row["seq"])
            tasks.setdefault(task, []).append((row["op"], self.names.get(row["item_id"], "")))
        return sorted((label, tuple(sorted(ops))) for (label, _, _), ops in tasks.items())

    def logs(self) -> Counter[str]:
        """The web logs since the last look, by label; a message and what is told of are part of it."""
        with self._memory() as files:
            rows = list(files.execute("SELECT no, body FROM web_log WHERE no > ?", (self.logs_seen,)))
        self.logs_seen = max([self.logs_seen, *(row["no"] for row in rows)])
        told: Counter[str] = Counter()
        for row in rows:
            body = json.loads(row["body"])
            role = body["log_content"].split("]")[0].strip("[") if body["label"] == "addMessage" else ""
            told[f"{body['label']} {role}".strip()] += 1
        return told

    def settled(self) -> Counter[str]:
        """The queue is empty, nothing was given up, the store is whole; messages by label, all completed."""
        clock = SystemClock()
        with closing(SqliteQueue(self.home / "queue.db", clock=clock, random=random.Random(1))) as queue:
            depth = queue.depth()
            assert (depth.remaining, depth.running, depth.dead) == (0, 0, 0)
            assert queue.dead.list() == []
            statuses = queue.statuses(limit=1_000)
        assert {one.state.value for one in statuses} == {"completed"}
        assert len({one.key for one in statuses}) == len(statuses)
        with closing(self._store()) as store:
            assert store.pending_followups() == []
            assert store.marks(limit=10) == []
            assert store.verify() == []
        return Counter(one.label for one in statuses)

    def recalled(self, text: str, *, links: Sequence[str] = ()) -> dict[str, set[str]]:
        """What each channel finds for `text` (and, by links, for `links`), by names."""
        [vector] = self.embedder.embed([text])
        terms = {term: float(count) for term, count in analyse(text).items()}
        with closing(self._store()) as store, store.read(CUBE) as view:
            channels = {
                "text": view.search_text(terms, limit=50),
                "vector": view.search_vector(vector, limit=50),
                "links": view.search_links(list(links), limit=50),
            }
            return {
                name: {item.memory for item in view.items(list(found))} for name, found in channels.items()
            }

    def everywhere(self, text: str) -> list[str]:
        """The tables of the store that hold `text` in any column."""
        found = []
        with self._memory() as files:
            tables = files.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            for (table,) in tables.fetchall():
                for row in files.execute(f'SELECT * FROM "{table}"'):
                    if any(isinstance(one, str) and text.casefold() in one.casefold() for one in row):
                        found.append(table)
                        break
        return sorted(found)

    def _store(self) -> MemoryStore:
        if self.address is None:
            return SqliteStore(self.home / "memory.db", clock=SystemClock())
        return PostgresStore(self.address, clock=SystemClock())

    def _memory(self) -> closing[sqlite3.Connection]:
        """The file; of a store that is none a copy as it is now."""
        file = self.home / "memory.db"
        if self.address is not None:
            file.unlink(missing_ok=True)
            with closing(self._store()) as store:
                store.backup(file)
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        return closing(connection)
