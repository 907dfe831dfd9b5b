"""Whole tables of the database, read and filled row by row with their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from memos.memory.postgres.session import Session

BATCH = 500

_DUMP: dict[str, LiteralString] = {
    "meta": "SELECT name, value FROM meta",
    "cube": """
SELECT no, id, seq, working_version, long_term, user_memory, preference, working_only, archived, length,
       journal_rows, chain
FROM cube ORDER BY no""",
    "item": """
SELECT no, id, cube_no, user_id, kind, status, live, version, seq, raw, read, session_id, scenario, position,
       turn_id, content_hash, created_at, updated_at, happened_at, valid_until, use_count, used_at, has_vector,
       length, memory, body, terms
FROM item ORDER BY no""",
    "vector": "SELECT cube_no, item_no, value FROM vector",
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
_LOAD: dict[str, LiteralString] = {
    "cube": """
INSERT INTO cube (no, id, seq, working_version, long_term, user_memory, preference, working_only, archived, length,
                  journal_rows, chain)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
    "alias": """
INSERT INTO alias (id, cube_no, item_no)
SELECT given.id, item_key.cube_no, item_key.no
FROM (VALUES (%s::text, %s::bigint)) AS given (id, no) JOIN item_key ON item_key.no = given.no""",
    "state": "INSERT INTO state (cube_no, name, value) VALUES (%s, %s, %s)",
    "journal": """
INSERT INTO journal (n, cube_no, seq, at, op, item_id, message_key, task_id, label, trace_id, user_id, reason,
                     before, after, salt, payload, chain, redacted_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
    "mark": "INSERT INTO mark (no, message_key, parent_key, at) VALUES (%s, %s, %s, %s)",
    "outbox": """
INSERT INTO outbox (no, message_key, parent_key, message, delay_s, at, ticked, cube_id, user_id)
SELECT given.no, given.message_key, given.parent_key, given.message, given.delay_s, given.at, given.ticked,
       coalesce(given.message::json ->> 'mem_cube_id', ''), coalesce(given.message::json ->> 'user_id', '')
FROM (VALUES (%s::bigint, %s::text, %s::text, %s::text, %s::double precision, %s::bigint, %s::boolean))
     AS given (no, message_key, parent_key, message, delay_s, at, ticked)""",
    "web_log": "INSERT INTO web_log (no, cube_id, user_id, label, trace_id, body) VALUES (%s, %s, %s, %s, %s, %s)",
    "block": """
INSERT INTO block (no, namespace, user_id, language, header, version, next_mark, chats, chats_since_change, changes,
                   changed_at, used_at, counts)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
    "block_cube": "INSERT INTO block_cube (cube_id, block_no, place) VALUES (%s, %s, %s)",
    "block_item": """
INSERT INTO block_item (block_no, place, cube_no, item_no, version, tokens, digest, mark)
SELECT given.block_no, given.place, item_key.cube_no, item_key.no, given.version, given.tokens, given.digest, given.mark
FROM (VALUES (%s::bigint, %s::bigint, %s::bigint, %s::bigint, %s::bigint, %s::text, %s::bigint))
     AS given (block_no, place, item_no, version, tokens, digest, mark)
JOIN item_key ON item_key.no = given.item_no""",
    "prefix": """
INSERT INTO prefix (no, id, namespace, user_id, backend, fingerprint, header, tokens, bytes, ends, extra, entries, sound, doomed,
                    built_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
    "prefix_item": """
INSERT INTO prefix_item (prefix_no, place, cube_no, item_no, version)
SELECT given.prefix_no, given.place, item_key.cube_no, item_key.no, given.version
FROM (VALUES (%s::bigint, %s::bigint, %s::bigint, %s::bigint)) AS given (prefix_no, place, item_no, version)
JOIN item_key ON item_key.no = given.item_no""",
}
_ANY = """
SELECT EXISTS (SELECT 1 FROM cube) OR EXISTS (SELECT 1 FROM mark) OR EXISTS (SELECT 1 FROM outbox)
       OR EXISTS (SELECT 1 FROM web_log) OR EXISTS (SELECT 1 FROM block) OR EXISTS (SELECT 1 FROM prefix)
"""
_RESTART = """
SELECT setval('item_no', (SELECT coalesce(max(no), 0) + 1 FROM item_key), false),
       setval('journal_n', (SELECT coalesce(max(n), 0) + 1 FROM journal), false),
       setval('cube_no_seq', (SELECT coalesce(max(no), 0) + 1 FROM cube), false),
       setval('mark_no_seq', (SELECT coalesce(max(no), 0) + 1 FROM mark), false),
       setval('outbox_no_seq', (SELECT coalesce(max(no), 0) + 1 FROM outbox), false),
       setval('web_log_no_seq', (SELECT coalesce(max(no), 0) + 1 FROM web_log), false),
       setval('block_no_seq', (SELECT coalesce(max(no), 0) + 1 FROM block), false),
       setval('prefix_no_seq', (SELECT coalesce(max(no), 0) + 1 FROM prefix), false)
"""


@dataclass(frozen=True, slots=True)
class PostgresCopying:
    """Fulfils `CopyTables`."""

    session: Session

    def dump(self, table: str) -> Iterator[tuple[Any, ...]]:
        with self.session.connection.cursor(name=f"dump_{table}") as cursor:
            cursor.itersize = BATCH
            yield from cursor.execute(_DUMP[table])

    def load(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self.session.connection.cursor() as cursor:
            cursor.executemany(_LOAD[table], rows)

    def is_empty(self) -> bool:
        row = self.session.row(_ANY)
        return row is not None and not row[0]

    def restart_numbers(self) -> None:
        self.session.row(_RESTART)
