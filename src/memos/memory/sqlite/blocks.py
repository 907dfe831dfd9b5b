"""Blocks and kept prefixes in the file (`memos.memory.activation.index`). Each function within a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from memos.errors import VersionConflict
from memos.memory.activation.index import (
    Block,
    BlockCounts,
    ChatReuse,
    DoomPrefixes,
    KeptPrefix,
    PutPrefix,
)
from memos.memory.item import MemoryItem
from memos.memory.relational.blocks import block_of, block_written, prefix_of, still_says
from memos.memory.relational.rows import ITEM_COLUMNS, item_of, moment
from memos.memory.sqlite.chunks import chunks, marks

_COLUMNS = (
    "block.no, block.namespace, block.user_id, block.language, block.header, block.version, block.next_mark, "
    "block.chats, block.chats_since_change, block.changes, block.changed_at, block.used_at, block.counts"
)
_BLOCK = f"SELECT {_COLUMNS} FROM block WHERE namespace = ?"
_BLOCKS = f"SELECT {_COLUMNS} FROM block ORDER BY used_at DESC, no"
_BLOCKS_OF_CUBE = f"""
SELECT {_COLUMNS} FROM block JOIN block_cube ON block_cube.block_no = block.no
WHERE block_cube.cube_id = ? ORDER BY block.used_at DESC, block.no
"""
_CUBES = "SELECT cube_id FROM block_cube WHERE block_no = ? ORDER BY place"
_RESIDENTS = """
SELECT block_item.place, item.id, block_item.version, block_item.tokens, block_item.digest, block_item.mark
FROM block_item JOIN item ON item.no = block_item.item_no WHERE block_item.block_no = ? ORDER BY block_item.place
"""
_INSERT_BLOCK = """
INSERT INTO block (namespace, user_id, language, header, version, next_mark, chats, chats_since_change, changes,
                   changed_at, used_at, counts)
VALUES (?, ?, ?, ?, 1, ?, 0, 0, 0, ?, ?, ?)
ON CONFLICT (namespace) DO NOTHING
"""
_INSERT_CUBE = "INSERT INTO block_cube (cube_id, block_no, place) VALUES (?, ?, ?)"
_UPDATE_BLOCK = """
UPDATE block SET header = ?, version = version + 1, next_mark = ?, chats_since_change = 0, changes = changes + 1,
                 changed_at = ?, counts = ?
WHERE namespace = ? AND version = ?
"""
_CLEAR = "DELETE FROM block_item WHERE block_no = ?"
_NUMBERS = "SELECT id, no FROM item WHERE id IN ({marks})"
_LIVE = f"""
SELECT {ITEM_COLUMNS}, item.no, cube.id FROM item JOIN cube ON cube.no = item.cube_no
WHERE item.id IN ({{marks}}) AND item.live = 1
"""
_STANDING = """
SELECT item.id, block_item.version
FROM block JOIN block_item ON block_item.block_no = block.no JOIN item ON item.no = block_item.item_no
WHERE block.namespace = ?
"""
_INSERT_ITEM = """
INSERT INTO block_item (block_no, place, item_no, version, tokens, digest, mark) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_NOTE = """
UPDATE block SET chats = chats + 1, chats_since_change = chats_since_change + 1, used_at = ?, counts = ?
WHERE namespace = ?
"""
_COUNTS = "SELECT counts FROM block WHERE namespace = ?"
_PREFIX_COLUMNS = "no, id, namespace, user_id, backend, fingerprint, header, tokens, bytes, ends, extra, sound, doomed, built_at"
_PREFIXES = f"SELECT {_PREFIX_COLUMNS} FROM prefix WHERE (doomed <> '') = ? ORDER BY built_at DESC, no DESC"
_PREFIX_ITEMS = """
SELECT item.id, prefix_item.version FROM prefix_item JOIN item ON item.no = prefix_item.item_no
WHERE prefix_item.prefix_no = ? ORDER BY prefix_item.place
"""
_DOOM_OTHERS = """
UPDATE prefix SET doomed = ? WHERE namespace = ? AND backend = ? AND id <> ? AND doomed = ''
"""
_INSERT_PREFIX = """
INSERT INTO prefix (id, namespace, user_id, backend, fingerprint, header, tokens, bytes, ends, extra, entries,
                    sound, doomed, built_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?)
"""
_INSERT_PREFIX_ITEM = "INSERT INTO prefix_item (prefix_no, place, item_no, version) VALUES (?, ?, ?, ?)"
_NO_OF_PREFIX = "SELECT no FROM prefix WHERE backend = ? AND id = ?"
_DOOM = "UPDATE prefix SET doomed = ? WHERE backend = ? AND doomed = '' AND id IN ({marks})"
_DOOM_OF_USER = """
UPDATE prefix SET doomed = 'erased', header = '', user_id = '' WHERE user_id = ?1 OR no IN (
    SELECT prefix_no FROM prefix_item JOIN item ON item.no = prefix_item.item_no WHERE item.user_id = ?1)
"""


class SqliteBlocks:
    """Fulfils `BlockTables` on one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, namespace: str) -> Block | None:
        row = self._connection.execute(_BLOCK, (namespace,)).fetchone()
        return None if row is None else self._block(row)

    def all(self, cube_id: str | None, user_id: str | None) -> list[Block]:
        rows = (
            self._connection.execute(_BLOCKS)
            if cube_id is None
            else self._connection.execute(_BLOCKS_OF_CUBE, (cube_id,))
        ).fetchall()
        return [self._block(row) for row in rows if user_id is None or row[2] == user_id]

    def _block(self, row: Sequence[Any]) -> Block:
        residents = self._connection.execute(_RESIDENTS, (row[0],)).fetchall()
        cube_ids = [one[0] for one in self._connection.execute(_CUBES, (row[0],))]
        return block_of(row, residents, cube_ids)

    def put(self, block: Block, now: int) -> Block:
        counts = json.dumps(asdict(block.counts))
        if block.version == 0:
            made = self._connection.execute(
                _INSERT_BLOCK,
                (
                    block.namespace,
                    block.user_id,
                    block.language,
                    block.header,
                    block.state.next_mark,
                    now,
                    now,
                    counts,
                ),
            )
        else:
            made = self._connection.execute(
                _UPDATE_BLOCK,
                (block.header, block.state.next_mark, now, counts, block.namespace, block.version),
            )
        if made.rowcount != 1:
            raise VersionConflict(
                f"the block has changed since version {block.version}; read it again and retry"
            )
        no = self._connection.execute(
            "SELECT no FROM block WHERE namespace = ?", (block.namespace,)
        ).fetchone()[0]
        if block.version == 0:
            self._connection.executemany(
                _INSERT_CUBE,
                [(cube_id, no, place) for place, cube_id in enumerate(dict.fromkeys(block.cube_ids))],
            )
        self._connection.execute(_CLEAR, (no,))
        live = self._live([one.item_id for one in block.state.residents])
        residents = [
            one
            for one in block.state.residents
            if one.item_id in live and still_says(one, live[one.item_id][1])
        ]
        self._connection.executemany(
            _INSERT_ITEM,
            [
                (no, place, live[one.item_id][0], one.version, one.tokens, one.digest, one.mark)
                for place, one in enumerate(residents)
            ],
        )
        return block_written(block, residents, now)

    def _live(self, item_ids: Sequence[str]) -> dict[str, tuple[int, MemoryItem]]:
        found: dict[str, tuple[int, MemoryItem]] = {}
        for part in chunks(item_ids):
            for row in self._connection.execute(_LIVE.format(marks=marks(len(part))), part):
                found[row[0]] = (row[-2], item_of(row, row[-1]))
        return found

    def _numbers(self, item_ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for part in chunks(item_ids):
            found.update(self._connection.execute(_NUMBERS.format(marks=marks(len(part))), part).fetchall())
        return found

    def note_chat(self, namespace: str, outcome: ChatReuse, now: int) -> None:
        row = self._connection.execute(_COUNTS, (namespace,)).fetchone()
        if row is not None:
            counts = BlockCounts(**json.loads(row[0])).after(outcome, moment(now).timestamp())
            self._connection.execute(_NOTE, (now, json.dumps(asdict(counts)), namespace))

    def prefixes(self, namespaces: Sequence[str] | None, *, doomed: bool) -> list[KeptPrefix]:
        found = []
        for row in self._connection.execute(_PREFIXES, (int(doomed),)).fetchall():
            if namespaces is not None and row[2] not in namespaces:
                continue
            items = self._connection.execute(_PREFIX_ITEMS, (row[0],)).fetchall()
            found.append(prefix_of(row, items))
        return found

    def put_prefix(self, change: PutPrefix, now: int) -> None:
        prefix = change.prefix
        reason = change.reason or "replaced"
        self._connection.execute(_DOOM_OTHERS, (reason, prefix.namespace, prefix.backend, prefix.id))
        self.forget(prefix.backend, [prefix.id])
        standing = set(self._connection.execute(_STANDING, (prefix.namespace,)).fetchall())
        held = list(zip(prefix.item_ids, prefix.versions, strict=True))
        sound = next((place for place, one in enumerate(held) if one not in standing), len(held))
        cursor = self._connection.execute(
            _INSERT_PREFIX,
            (
                prefix.id,
                prefix.namespace,
                prefix.user_id,
                prefix.backend,
                prefix.fingerprint,
                prefix.header,
                prefix.tokens,
                prefix.bytes,
                json.dumps(prefix.ends),
                json.dumps(dict(prefix.extra)),
                len(prefix.item_ids),
                min(sound, prefix.sound),
                now,
            ),
        )
        known = self._numbers(prefix.item_ids)
        self._connection.executemany(
            _INSERT_PREFIX_ITEM,
            [
                (cursor.lastrowid, place, known[item_id], version)
                for place, (item_id, version) in enumerate(held)
                if item_id in known
            ],
        )

    def doom(self, change: DoomPrefixes) -> None:
        for part in chunks(change.ids):
            self._connection.execute(
                _DOOM.format(marks=marks(len(part))), (change.reason, change.backend, *part)
            )

    def forget(self, backend: str, ids: Iterable[str]) -> int:
        gone = 0
        for one in ids:
            row = self._connection.execute(_NO_OF_PREFIX, (backend, one)).fetchone()
            if row is not None:
                self._connection.execute("DELETE FROM prefix_item WHERE prefix_no = ?", row)
                gone += self._connection.execute("DELETE FROM prefix WHERE no = ?", row).rowcount
        return gone

    def erase_user(self, user_id: str) -> dict[str, int]:
        """The user's own blocks go; prefixes of the user, or with memories of the user in them, are doomed."""
        doomed = self._connection.execute(_DOOM_OF_USER, (user_id,)).rowcount
        nos = [
            row[0] for row in self._connection.execute("SELECT no FROM block WHERE user_id = ?", (user_id,))
        ]
        for no in nos:
            self._connection.execute(_CLEAR, (no,))
            self._connection.execute("DELETE FROM block_cube WHERE block_no = ?", (no,))
            self._connection.execute("DELETE FROM block WHERE no = ?", (no,))
        return {"activation_blocks": len(nos), "activation_prefixes": doomed}
