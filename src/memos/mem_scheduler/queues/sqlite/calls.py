"""Which messages have a key, an item id or a business task: numbers of messages by their names.

A submit call mints keys that run on, so one row of `call` finds them all; a chained message, which brings
its key, is a call of its own. Item and task ids are found by 32-bit hashes: one index entry each in small
calls, one array a call in large ones, of which there are few to look through. A hash may be shared, so
whoever looks compares the texts.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Literal
from zlib import crc32

from memos.mem_scheduler.schemas.keys import offset_of

SMALL_MAX = 32  # messages of a call whose names are index entries
_TASK_SEED = 1
_SECTION_BITS = 14
_CANDIDATES_MAX = 4  # calls that may begin between a call's first key and another one of its keys


def remember(
    connection: sqlite3.Connection,
    base: int,
    keys: Sequence[str],
    items: Sequence[str],
    tasks: Sequence[str | None],
    places: Sequence[int] | None,
) -> None:
    """A call's messages have the numbers from `base` on; `places` says the id of each (None: the same)."""
    count = len(keys)
    names = None
    if count > SMALL_MAX:
        hashes = array("I", map(crc32, map(str.encode, items)))
        if any(tasks):
            hashes.extend([0 if task is None else hash_of_task(task) for task in tasks])
        names = hashes.tobytes()
    else:
        at = places or range(base, base + count)
        connection.executemany(
            "INSERT OR IGNORE INTO name (section, hash, id) VALUES (?, ?, ?)",
            [
                *zip(repeat(base >> _SECTION_BITS), map(hash_of_item, items), at),
                *(
                    (base >> _SECTION_BITS, hash_of_task(task), message_id)
                    for task, message_id in zip(tasks, at, strict=True)
                    if task
                ),
            ],
        )
    offsets = None if places is None else array("I", [place - base for place in places]).tobytes()
    connection.execute(
        "INSERT INTO call (base, key, count, places, names) VALUES (?, ?, ?, ?, ?)",
        (base, keys[0], count, offsets, names),
    )


def hash_of_item(item_id: str) -> int:
    return crc32(item_id.encode())


def hash_of_task(task_id: str) -> int:
    return crc32(task_id.encode(), _TASK_SEED)


def id_of_key(connection: sqlite3.Connection, key: str) -> int | None:
    """The id of the message that was last known by that key; it may be gone."""
    rows = connection.execute(
        "SELECT base, key, count, places FROM call WHERE key <= ? ORDER BY key DESC, base DESC LIMIT ?",
        (key, _CANDIDATES_MAX),
    )
    for base, first, count, places in rows:
        offset = 0 if key == first else offset_of(key, first) if count > 1 else None
        if offset is not None and 0 <= offset < count:
            return int(base + _place(places, offset))
    return None


def ids_of_item(connection: sqlite3.Connection, item_id: str) -> set[int]:
    """Ids of messages that may have this item id."""
    return _ids_of(connection, hash_of_item(item_id), task=False)


def ids_of_task(connection: sqlite3.Connection, task_id: str) -> set[int]:
    """Ids of messages that may be of this business task."""
    return _ids_of(connection, hash_of_task(task_id), task=True)


def forget(connection: sqlite3.Connection, pack_ids: Iterable[int]) -> set[int]:
    """Calls go of which nothing is known any more, after these packs went. Returns the packs whose
    messages' names are to be forgotten one by one (`forget_names`)."""
    small: set[int] = set()
    calls: dict[int, int] = {}
    end, is_small = -1, False
    for pack_id in sorted(pack_ids):
        if pack_id >= end:
            row = connection.execute(
                "SELECT base, count, names IS NULL FROM call WHERE base <= ? ORDER BY base DESC LIMIT 1",
                (pack_id,),
            ).fetchone()
            if row is None:
                continue
            base, count, is_small = row
            end = base + count
            calls[base] = end
        if is_small:
            small.add(pack_id)
    for base, stop in calls.items():
        left = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM pack WHERE id >= ?1 AND id < ?2)"
            " OR EXISTS (SELECT 1 FROM ended WHERE id >= ?1 AND id < ?2)"
            " OR EXISTS (SELECT 1 FROM ended_pack WHERE id >= ?1 AND id < ?2)",
            (base, stop),
        ).fetchone()[0]
        if not left:
            connection.execute("DELETE FROM call WHERE base = ?", (base,))
    return small


def forget_names(
    connection: sqlite3.Connection, message_id: int, messages: Sequence[tuple[str, str | None]]
) -> None:
    """Items and tasks of messages of a small call, with ids from `message_id` on, are looked for no more."""
    gone = []
    for at, (item_id, task_id) in enumerate(messages, message_id):
        # Ids and numbers of a small call may fall into two sections; the one of its base is used.
        for section in {at >> _SECTION_BITS, (at - SMALL_MAX) >> _SECTION_BITS}:
            gone.append((section, hash_of_item(item_id), at))
            if task_id:
                gone.append((section, hash_of_task(task_id), at))
    connection.executemany("DELETE FROM name WHERE section = ? AND hash = ? AND id = ?", gone)


def call_start(connection: sqlite3.Connection, number: int) -> int:
    """The first number of the call of a message. No message of an earlier call has this number or more."""
    row = connection.execute(
        "SELECT base FROM call WHERE base <= ? ORDER BY base DESC LIMIT 1", (number,)
    ).fetchone()
    return number if row is None else int(row[0])


def _place(places: bytes | None, offset: int) -> int:
    return offset if places is None else int.from_bytes(places[4 * offset : 4 * offset + 4], _ORDER)


def _ids_of(connection: sqlite3.Connection, code: int, *, task: bool) -> set[int]:
    found = {
        row[0]
        for row in connection.execute(
            "WITH RECURSIVE part (section) AS (SELECT min(section) FROM name UNION ALL"
            " SELECT (SELECT min(section) FROM name WHERE section > part.section) FROM part"
            " WHERE part.section IS NOT NULL)"
            " SELECT id FROM name WHERE section IN (SELECT section FROM part) AND hash = ?",
            (code,),
        )
    }
    wanted = array("I", [code]).tobytes()
    for base, count, places, names in connection.execute(
        "SELECT base, count, places, names FROM call WHERE names IS NOT NULL AND instr(names, ?)", (wanted,)
    ):
        start, stop = (4 * count, len(names)) if task else (0, 4 * count)
        at = names.find(wanted, start, stop)
        while at >= 0:
            if at % 4 == 0:
                found.add(base + _place(places, (at - start) // 4))
            at = names.find(wanted, at + 1, stop)
    return found


_ORDER: Literal["little", "big"] = "little" if array("I", [1]).tobytes()[0] else "big"
