"""An audit of a queue's file: every row against the others, as they must agree after each transaction.

It reads the tables by itself and uses nothing of the code that wrote them but the names of places.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from typing import Any

from memos.mem_scheduler.queues.policies import slots_of
from memos.mem_scheduler.queues.sqlite import SqliteQueue

Row = dict[str, Any]


class FailingConnection:
    """A connection whose `at`-th call fails once, before it is done or (`done_first`) afterwards. A rollback
    does not: SQLite ends the transaction whatever happens to the statement."""

    def __init__(self, connection: sqlite3.Connection, *, at: int, done_first: bool) -> None:
        self.connection = connection
        self.failed = False
        self._left = at
        self._done_first = done_first

    def execute(self, *arguments: Any) -> Any:
        return self._call(self.connection.execute, arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self._call(self.connection.executemany, arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def _call(self, call: Any, arguments: tuple[Any, ...]) -> Any:
        self._left -= arguments[0] != "ROLLBACK"
        if self._left or arguments[0] == "ROLLBACK":
            return call(*arguments)
        if self._done_first:
            call(*arguments)
        self.failed = True
        raise sqlite3.OperationalError("the test pulled the plug")


def check_books(queue: SqliteQueue) -> None:
    """Assert that the tables of the file agree with each other."""
    with queue._file.read() as connection:
        tables = {
            name: _rows(connection, name)
            for name in ("pack", "ended", "ended_pack", "call", "lane", "class", "flow", "lease", "asked", "token")
        }  # fmt: skip
        (counter,) = _rows(connection, "counter")
    _check_messages(tables, counter)
    _check_counters(tables, counter)
    _check_leases(tables, counter)
    _check_lanes(tables, queue)
    _check_order(tables)


def _rows(connection: sqlite3.Connection, table: str) -> list[Row]:
    found = connection.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def _apart(ranges: list[tuple[int, int]], what: str) -> None:
    """Ranges (first, count) that share no number."""
    end = 0
    for first, count in sorted(ranges):
        assert count > 0, f"{what}: a range of {count} from {first}"
        assert first >= end, f"{what}: {first} is taken twice"
        end = first + count


def _check_messages(tables: dict[str, list[Row]], counter: Row) -> None:
    """Each message is in one row, with the id, number and key that its call gave it."""
    parts: list[tuple[int, list[list[Any]]]] = []
    for pack in tables["pack"]:
        first, _, label, named = json.loads(pack["ids"])
        assert (first, label, len(named)) == (pack["id"], pack["label"], pack["count"])
        assert len(json.loads(b"[%b]" % pack["body"])) == pack["count"]
        parts.append((first, named))
    elsewhere = {}
    for row in tables["ended"]:
        own = json.loads(row["parts"])
        ids = json.loads(row["packs"])
        assert sorted(one[0] for one in own) == sorted(ids)
        assert ids[0] == row["id"] and row["count"] == sum(len(one[3]) for one in own)
        assert row["last_id"] == max(one[0] + len(one[3]) for one in own) - 1
        elsewhere.update(dict.fromkeys(ids[1:], row["id"]))
        parts += [(one[0], one[3]) for one in own]
    assert {row["id"]: row["ended"] for row in tables["ended_pack"]} == elsewhere
    _apart([(first, len(named)) for first, named in parts], "ids")
    _apart([(number, 1) for _, named in parts for *_, number in named], "numbers")
    _apart([(row["base"], row["count"]) for row in tables["call"]], "calls")
    known = {at for row in tables["call"] for at in range(row["base"], row["base"] + row["count"])}
    assert {first + at for first, named in parts for at in range(len(named))} <= known
    assert {number for _, named in parts for *_, number in named} <= known
    assert max(known, default=0) <= counter["number"]
    keys = Counter(key for _, named in parts for key, *_ in named)
    assert not keys or keys.most_common(1)[0][1] == 1, "a key is known twice"


def _check_counters(tables: dict[str, list[Row]], counter: Row) -> None:
    packs = {pack["id"]: pack for pack in tables["pack"]}
    absorbed: Counter[int] = Counter()
    held = 0
    for pack in packs.values():
        root = pack
        if pack["place"] == 3:
            root = packs[pack["into_id"]]
            absorbed[root["id"]] += pack["count"]
        held += pack["count"] * (root["place"] != 4)
        if pack["place"] >= 3 or pack["absorbed"]:
            assert pack["count"] == 1
    assert held == counter["held"]
    assert {pack["id"]: pack["absorbed"] for pack in packs.values() if pack["absorbed"]} == absorbed
    assert sum(pack["place"] == 4 for pack in packs.values()) == counter["dead"]
    assert sum(row["count"] for row in tables["ended"]) == counter["settled"]
    given = [pack["pos"] + pack["count"] - 1 for pack in packs.values()]
    given += [pack["died_no"] or 0 for pack in packs.values()]
    given += [max(line["id"], line["turn"]) for line in tables["lane"]]
    given += [row["ticket"] for row in tables["flow"]] + [row["number"] for row in tables["token"]]
    assert max(given, default=0) <= counter["number"]


def _check_leases(tables: dict[str, list[Row]], counter: Row) -> None:
    packs = {pack["id"]: pack for pack in tables["pack"]}
    held: Counter[int] = Counter()
    for lease in tables["lease"]:
        own = [packs[pack_id] for pack_id in json.loads(lease["packs"])]
        held.update(pack["id"] for pack in own)
        labels: Counter[str] = Counter()
        for pack in own:
            assert (pack["lane"], pack["place"]) == (lease["lane"], 0)
            labels[pack["label"]] += pack["count"]
        assert labels == json.loads(lease["labels"])
        assert lease["epoch"] <= counter["epoch"]
    assert not held or held.most_common(1)[0][1] == 1, "a pack is held twice"
    for row in tables["asked"]:
        (lease,) = [one for one in tables["lease"] if one["epoch"] == row["epoch"]]
        own = [packs[pack_id] for pack_id in json.loads(lease["packs"])]
        assert any(pack["id"] <= row["id"] < pack["id"] + pack["count"] for pack in own)


def _check_lanes(tables: dict[str, list[Row]], queue: SqliteQueue) -> None:
    held = {pack_id for lease in tables["lease"] for pack_id in json.loads(lease["packs"])}
    packs = {pack["id"]: pack for pack in tables["pack"]}
    for line in tables["lane"]:
        own = [pack for pack in packs.values() if pack["lane"] == line["id"] and pack["place"] == 0]
        _apart([(pack["pos"], pack["count"]) for pack in own], "places")
        waiting = sorted((pack for pack in own if pack["id"] not in held), key=lambda pack: pack["pos"])
        delayed = [p for p in packs.values() if p["lane"] == line["id"] and p["place"] == 2]
        runners = {pack["id"] for pack in [*own, *delayed]}
        absorbed = sum(p["place"] == 3 and p["into_id"] in runners for p in packs.values())
        counted = {
            "queued": sum(pack["count"] for pack in waiting),
            "running": sum(pack["count"] for pack in own if pack["id"] in held),
            "delayed": sum(pack["count"] for pack in delayed),
            "leases": sum(lease["lane"] == line["id"] for lease in tables["lease"]),
        }
        assert {name: line[name] for name in counted} == counted
        assert line["held"] == counted["queued"] + counted["running"] + counted["delayed"] + absorbed > 0
        assert all(pack["pos"] > line["cursor"] for pack in waiting), "the cursor has passed what waits"
        head = waiting[0] if waiting else None
        assert line["head_label"] == (head and head["label"])
        if head is None or line["head_due"] is not None:
            assert line["ready_label"] is None
            assert head is None or head["due_at"] == line["head_due"]
        else:
            free = line["leases"] < slots_of(queue.policies.get(head["label"]))
            assert line["ready_label"] == (head["label"] if free else None)
    lanes = {line["id"] for line in tables["lane"]}
    assert {pack["lane"] for pack in packs.values() if pack["place"] in (0, 2)} <= lanes


def _check_order(tables: dict[str, list[Row]]) -> None:
    assert {row["name"]: row["lanes"] for row in tables["class"]} == Counter(
        line["class"] for line in tables["lane"]
    )
    ready = Counter(
        (line["class"], line["user_id"], line["ready_label"])
        for line in tables["lane"]
        if line["ready_label"] is not None
    )
    flows = {(row["class"], row["user_id"], row["label"]): row["ready"] for row in tables["flow"]}
    assert {name: number for name, number in flows.items() if number} == ready
