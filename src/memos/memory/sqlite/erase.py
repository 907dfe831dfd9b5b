"""Erasing a subject: everything of one user leaves the file, in one transaction, and stays out.

Items become tombstones without a name (a late task finds "gone" and brings nothing back); journal rows about
them, or caused by the user, are redacted in place, so that the chain still holds; web logs, followups and
monitor state go. In a cube that is the user's alone all of that goes, whoever caused it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

from memos.memory.item import ItemStatus
from memos.memory.sqlite import index
from memos.memory.sqlite.lookup import marks
from memos.memory.sqlite.writing import Writing
from memos.memory.store import SetStatus

_CHUNK = 500
_LIVING = "SELECT id FROM item WHERE user_id = ? AND status <> 'deleted' ORDER BY no"
_EVERY = "SELECT id FROM item WHERE user_id = ?"
_TEXTS = """
SELECT DISTINCT memory FROM item AS own WHERE user_id = ?1 AND length(memory) >= ?2 AND NOT EXISTS
    (SELECT 1 FROM item WHERE item.content_hash = own.content_hash AND item.cube_no = own.cube_no
     AND item.user_id <> ?1)
ORDER BY length(memory) DESC LIMIT ?3
"""
_OWN_CUBES = """
SELECT no FROM cube WHERE NOT EXISTS (SELECT 1 FROM item WHERE item.cube_no = cube.no AND item.user_id <> ?1)
AND (id = ?1 OR EXISTS (SELECT 1 FROM item WHERE item.cube_no = cube.no AND item.user_id = ?1))
"""
_REDACT = """
UPDATE journal SET redacted_at = ?, salt = NULL, before = NULL, after = NULL, reason = '', user_id = ''
WHERE redacted_at IS NULL AND ({condition})
"""
_FOLLOWUPS = "DELETE FROM outbox WHERE json_extract(message, '$.user_id') = ?"
_RENAME = "UPDATE item SET user_id = ? WHERE user_id = ?"


def texts_of(connection: sqlite3.Connection, user_id: str, *, chars_min: int, limit: int) -> list[str]:
    """The longest texts that only this user said: what a search for traces looks for."""
    return [row[0] for row in connection.execute(_TEXTS, (user_id, chars_min, limit))]


def erase(
    writing: Writing, user_id: str, *, now: int, store_id: str, state_names: Sequence[str]
) -> dict[str, int]:
    """Everything of the user, inside the caller's transaction; how many of each went. Ends the writing."""
    connection = writing.connection
    own = [row[0] for row in connection.execute(_OWN_CUBES, (user_id,))]
    living = [row[0] for row in connection.execute(_LIVING, (user_id,))]
    for start in range(0, len(living), _CHUNK):
        writing.apply(SetStatus(tuple(living[start : start + _CHUNK]), ItemStatus.DELETED, "erased"))
    writing.finish()
    every = {row[0] for row in connection.execute(_EVERY, (user_id,))}
    counts = {
        "items": len(living),
        "journal_rows_redacted": _redact(connection, user_id, own, now),
        "web_logs": _drop_logs(connection, user_id, own, every),
        "followups": connection.execute(_FOLLOWUPS, (user_id,)).rowcount,
        "states": _drop_states(connection, own, state_names),
    }
    name = _name(store_id, user_id)
    connection.execute(_RENAME, (name, user_id))
    index.put_meta(connection, name, str(now))
    counts["tombstones"] = len(every)
    return counts


def erased_at(connection: sqlite3.Connection, user_id: str, *, store_id: str) -> float | None:
    """When the user was erased last (wall time); None: never."""
    kept = index.get_meta(connection, _name(store_id, user_id))
    return None if kept is None else int(kept) / 1_000_000


def _name(store_id: str, user_id: str) -> str:
    """What stands for the user once the name is gone."""
    subject = hashlib.blake2b(f"{store_id}\x00{user_id}".encode(errors="surrogatepass"), digest_size=12)
    return f"erased-{subject.hexdigest()}"


def _redact(connection: sqlite3.Connection, user_id: str, own: Sequence[int], now: int) -> int:
    conditions = ("user_id = ?", "item_id IN (SELECT id FROM item WHERE user_id = ?)")
    done = sum(
        connection.execute(_REDACT.format(condition=one), (now, user_id)).rowcount for one in conditions
    )
    for cube_no in own:
        done += connection.execute(_REDACT.format(condition="cube_no = ?"), (now, cube_no)).rowcount
    return done


def _drop_logs(connection: sqlite3.Connection, user_id: str, own: Sequence[int], every: set[str]) -> int:
    """Logs of the user and of their own cubes, and those of others that show what the user stored."""
    own_ids = {
        row[0]
        for start in range(0, len(own), _CHUNK)
        for row in connection.execute(
            f"SELECT id FROM cube WHERE no IN ({marks(len(own[start : start + _CHUNK]))})",
            tuple(own[start : start + _CHUNK]),
        )
    }
    gone = [
        no
        for no, cube_id, owner, body in connection.execute(
            "SELECT no, cube_id, user_id, body FROM web_log"
        ).fetchall()
        if owner == user_id or cube_id in own_ids or _names_any(body, every)
    ]
    connection.executemany("DELETE FROM web_log WHERE no = ?", [(no,) for no in gone])
    return len(gone)


def _names_any(body: str, every: set[str]) -> bool:
    """Whether a log shows one of the items: ids stand between quotes in its JSON."""
    return any(part in every for part in body.split('"'))


def _drop_states(connection: sqlite3.Connection, own: Sequence[int], names: Sequence[str]) -> int:
    done = 0
    for name in names:
        done += connection.execute("DELETE FROM state WHERE name = ?", (name,)).rowcount
    for cube_no in own:
        done += connection.execute("DELETE FROM state WHERE cube_no = ?", (cube_no,)).rowcount
    return done
