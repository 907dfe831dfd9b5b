"""Erasing a subject: everything of one user leaves the store, in one transaction, and stays out.

Items become tombstones without a name (a late task finds "gone" and brings nothing back); journal rows about
them, or caused by the user, are redacted in place, so that the chain still holds; web logs, followups and
monitor state go. In a cube that is the user's alone all of that goes, whoever caused it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from memos.memory.item import ItemStatus
from memos.memory.relational.tables import Tables
from memos.memory.relational.writing import Writing
from memos.memory.store import SetStatus

_CHUNK = 500


def erase(
    writing: Writing, user_id: str, *, now: int, store_id: str, state_names: Sequence[str]
) -> dict[str, int]:
    """Everything of the user, inside the caller's transaction; how many of each went. Ends the writing."""
    tables = writing.tables.erasing
    writing.tables.cubes.hold_all()
    own = tables.own_cubes(user_id)
    living = tables.living(user_id)
    for start in range(0, len(living), _CHUNK):
        writing.apply(SetStatus(tuple(living[start : start + _CHUNK]), ItemStatus.DELETED, "erased"))
    writing.finish()
    held = writing.tables.blocks.erase_user(user_id)
    every = tables.every(user_id)
    counts = {
        "items": len(living),
        "journal_rows_redacted": tables.redact(user_id, own, now),
        "web_logs": tables.drop_logs(user_id, own, every),
        "followups": tables.drop_followups(user_id),
        "states": tables.drop_states(own, state_names),
        **held,
    }
    name = _name(store_id, user_id)
    tables.rename(user_id, name)
    writing.tables.meta.put(name, str(now))
    counts["tombstones"] = len(every)
    return counts


def erased_at(tables: Tables, user_id: str, *, store_id: str) -> float | None:
    """When the user was erased last (wall time); None: never."""
    kept = tables.meta.get(_name(store_id, user_id))
    return None if kept is None else int(kept) / 1_000_000


def _name(store_id: str, user_id: str) -> str:
    """What stands for the user once the name is gone."""
    subject = hashlib.blake2b(f"{store_id}\x00{user_id}".encode(errors="surrogatepass"), digest_size=12)
    return f"erased-{subject.hexdigest()}"


def names_any(body: str, every: set[str]) -> bool:
    """Whether a web log's JSON shows one of the items: ids stand between quotes in it."""
    return any(part in every for part in body.split('"'))
