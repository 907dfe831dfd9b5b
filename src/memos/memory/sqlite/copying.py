"""Whole tables of the file, read and filled row by row with their numbers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_DUMP = {
    "meta": "SELECT name, value FROM meta",
    "cube": """
SELECT no, id, seq, working_version, long_term, user, preference, working_only, archived, length, journal_rows,
       chain
FROM cube ORDER BY no""",
    "item": """
SELECT no, id, cube_no, user_id, kind, status, live, version, seq, raw, read, session_id, scenario, position,
       turn_id, content_hash, created_at, updated_at, happened_at, valid_until, use_count, used_at, has_vector,
       length, memory, body, terms
FROM item ORDER BY no""",
    "vector": "SELECT item.cube_no, vector.item_no, vector.value FROM vector JOIN item ON item.no = vector.item_no",
    "alias": "SELECT id, item_no FROM alias",
    "state": "SELECT cube_no, name, value FROM state",
    "journal": """
SELECT n, cube_no, seq, at, op, item_id, message_key, task_id, label, trace_id, user_id, reason, before, after,
       salt, payload, chain, redacted_at
FROM journal ORDER BY n""",
    "mark": "SELECT no, message_key, parent_key, at FROM mark ORDER BY no",
    "outbox": "SELECT no, message_key, parent_key, message, delay_s, at, ticked FROM outbox ORDER BY no",
    "web_log": "SELECT no, cube_id, user_id, label, trace_id, body FROM web_log ORDER BY no",
    "block": """
SELECT no, namespace, user_id, language, header, version, next_mark, chats, chats_since_change, changes,
       changed_at, used_at, counts
FROM block ORDER BY no""",
    "block_cube": "SELECT cube_id, block_no, place FROM block_cube",
    "block_item": "SELECT block_no, place, item_no, version, tokens, digest, mark FROM block_item",
    "prefix": """
SELECT no, id, namespace, user_id, backend, fingerprint, header, tokens, bytes, ends, extra, entries, sound, doomed,
       built_at
FROM prefix ORDER BY no""",
    "prefix_item": "SELECT prefix_no, place, item_no, version FROM prefix_item",
}
_LOAD = {
    "cube": """
INSERT INTO cube (no, id, seq, working_version, long_term, user, preference, working_only, archived, length,
                  journal_rows, chain)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
    "alias": "INSERT INTO alias (id, item_no) VALUES (?, ?)",
    "state": "INSERT INTO state (cube_no, name, value) VALUES (?, ?, ?)",
    "journal": """
INSERT INTO journal (n, cube_no, seq, at, op, item_id, message_key, task_id, label, trace_id, user_id, reason,
                     before, after, salt, payload, chain, redacted_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
    "mark": "INSERT INTO mark (no, message_key, parent_key, at) VALUES (?, ?, ?, ?)",
    "outbox": """
INSERT INTO outbox (no, message_key, parent_key, message, delay_s, at, ticked) VALUES (?, ?, ?, ?, ?, ?, ?)""",
    "web_log": "INSERT INTO web_log (no, cube_id, user_id, label, trace_id, body) VALUES (?, ?, ?, ?, ?, ?)",
    "block": """
INSERT INTO block (no, namespace, user_id, language, header, version, next_mark, chats, chats_since_change, changes,
                   changed_at, used_at, counts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
    "block_cube": "INSERT INTO block_cube (cube_id, block_no, place) VALUES (?, ?, ?)",
    "block_item": """
INSERT INTO block_item (block_no, place, item_no, version, tokens, digest, mark) VALUES (?, ?, ?, ?, ?, ?, ?)""",
    "prefix": """
INSERT INTO prefix (no, id, namespace, user_id, backend, fingerprint, header, tokens, bytes, ends, extra, entries, sound, doomed,
                    built_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
    "prefix_item": "INSERT INTO prefix_item (prefix_no, place, item_no, version) VALUES (?, ?, ?, ?)",
}
_FLAGS = {"item": (6, 9, 22), "outbox": (6,)}  # live, raw, has_vector; ticked
_ANY = """
SELECT EXISTS (SELECT 1 FROM cube) OR EXISTS (SELECT 1 FROM mark) OR EXISTS (SELECT 1 FROM outbox)
       OR EXISTS (SELECT 1 FROM web_log) OR EXISTS (SELECT 1 FROM block) OR EXISTS (SELECT 1 FROM prefix)
"""


@dataclass(frozen=True, slots=True)
class SqliteCopying:
    """Fulfils `CopyTables`."""

    connection: sqlite3.Connection

    def dump(self, table: str) -> Iterator[tuple[Any, ...]]:
        flags = _FLAGS.get(table, ())
        for row in self.connection.execute(_DUMP[table]):
            yield tuple(bool(value) if place in flags else value for place, value in enumerate(row))

    def load(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self.connection.executemany(_LOAD[table], rows)

    def is_empty(self) -> bool:
        return not self.connection.execute(_ANY).fetchone()[0]

    def restart_numbers(self) -> None:
        """AUTOINCREMENT goes on from the highest number by itself."""
