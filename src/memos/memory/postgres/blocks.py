"""Blocks and kept prefixes in the database (`memos.memory.activation.index`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
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
from memos.memory.postgres.session import Session
from memos.memory.relational.blocks import block_of, block_written, prefix_of, still_says
from memos.memory.relational.rows import ITEM_COLUMNS, item_of, moment

_BLOCK = """
SELECT no, namespace, user_id, language, header, version, next_mark, chats, chats_since_change, changes,
       changed_at, used_at, counts
FROM block WHERE namespace = %(namespace)s
"""
_BLOCKS = """
SELECT no, namespace, user_id, language, header, version, next_mark, chats, chats_since_change, changes,
       changed_at, used_at, counts
FROM block
WHERE (%(cube_id)s::text IS NULL OR no IN (SELECT block_no FROM block_cube WHERE cube_id = %(cube_id)s))
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
ORDER BY used_at DESC, no
"""
_CUBES = "SELECT cube_id FROM block_cube WHERE block_no = %(no)s ORDER BY place"
_RESIDENTS = """
SELECT block_item.place, item.id, block_item.version, block_item.tokens, block_item.digest, block_item.mark
FROM block_item JOIN item ON item.cube_no = block_item.cube_no AND item.no = block_item.item_no
WHERE block_item.block_no = %(no)s ORDER BY block_item.place
"""
_INSERT_BLOCK = """
INSERT INTO block (namespace, user_id, language, header, version, next_mark, chats, chats_since_change, changes,
                   changed_at, used_at, counts)
VALUES (%(namespace)s, %(user_id)s, %(language)s, %(header)s, 1, %(next_mark)s, 0, 0, 0, %(now)s, %(now)s,
        %(counts)s)
ON CONFLICT (namespace) DO NOTHING
"""
_UPDATE_BLOCK = """
UPDATE block SET header = %(header)s, version = version + 1, next_mark = %(next_mark)s, chats_since_change = 0,
                 changes = changes + 1, changed_at = %(now)s, counts = %(counts)s
WHERE namespace = %(namespace)s AND version = %(version)s
"""
_NO = "SELECT no FROM block WHERE namespace = %(namespace)s"
_INSERT_CUBE = "INSERT INTO block_cube (cube_id, block_no, place) VALUES (%(cube_id)s, %(no)s, %(place)s)"
_CLEAR = "DELETE FROM block_item WHERE block_no = %(no)s"
# Taken before anything else, as by whoever changes an item: cubes, then items, then blocks and prefixes. The other
# way round a chat and a change of two of its memories would wait for each other.
_SHARE_CUBES = "SELECT no FROM cube WHERE id = ANY (%(cubes)s) ORDER BY id FOR SHARE"
# Whoever changes one of the items meanwhile waits for this, and then takes it out of the block.
_LIVE = f"""
SELECT {ITEM_COLUMNS}, item.cube_no, item.no, cube.id
FROM item_key
JOIN item ON item.cube_no = item_key.cube_no AND item.no = item_key.no
JOIN cube ON cube.no = item.cube_no
WHERE item_key.id = ANY (%(ids)s) AND item.live
FOR SHARE OF item
"""
_KNOWN = "SELECT id, cube_no, no FROM item_key WHERE id = ANY (%(ids)s)"
_INSERT_ITEM = """
INSERT INTO block_item (block_no, place, cube_no, item_no, version, tokens, digest, mark)
VALUES (%(block)s, %(place)s, %(cube)s, %(no)s, %(version)s, %(tokens)s, %(digest)s, %(mark)s)
"""
_COUNTS = "SELECT counts FROM block WHERE namespace = %(namespace)s FOR UPDATE"
_NOTE = """
UPDATE block SET chats = chats + 1, chats_since_change = chats_since_change + 1, used_at = %(now)s,
                 counts = %(counts)s
WHERE namespace = %(namespace)s
"""
_PREFIXES = """
SELECT no, id, namespace, user_id, backend, fingerprint, header, tokens, bytes, ends, extra, sound, doomed, built_at
FROM prefix
WHERE (doomed <> '') = %(doomed)s AND (%(namespaces)s::text[] IS NULL OR namespace = ANY (%(namespaces)s))
ORDER BY built_at DESC, no DESC
"""
_PREFIX_ITEMS = """
SELECT item.id, prefix_item.version
FROM prefix_item JOIN item ON item.cube_no = prefix_item.cube_no AND item.no = prefix_item.item_no
WHERE prefix_item.prefix_no = %(no)s ORDER BY prefix_item.place
"""
_STANDING = """
SELECT item.id, block_item.version
FROM block JOIN block_item ON block_item.block_no = block.no
JOIN item ON item.cube_no = block_item.cube_no AND item.no = block_item.item_no
WHERE block.namespace = %(namespace)s
"""
_HOLD_ITEMS = """
SELECT item.no FROM item_key JOIN item ON item.cube_no = item_key.cube_no AND item.no = item_key.no
WHERE item_key.id = ANY (%(ids)s) FOR SHARE OF item
"""
_DOOM_OTHERS = """
UPDATE prefix SET doomed = %(reason)s
WHERE namespace = %(namespace)s AND backend = %(backend)s AND id <> %(id)s AND doomed = ''
"""
_INSERT_PREFIX = """
INSERT INTO prefix (id, namespace, user_id, backend, fingerprint, header, tokens, bytes, ends, extra, entries,
                    sound, doomed, built_at)
VALUES (%(id)s, %(namespace)s, %(user_id)s, %(backend)s, %(fingerprint)s, %(header)s, %(tokens)s, %(bytes)s,
        %(ends)s, %(extra)s, %(entries)s, %(sound)s, '', %(now)s)
RETURNING no
"""
_INSERT_PREFIX_ITEM = """
INSERT INTO prefix_item (prefix_no, place, cube_no, item_no, version)
VALUES (%(prefix)s, %(place)s, %(cube)s, %(no)s, %(version)s)
"""
_DOOM = (
    "UPDATE prefix SET doomed = %(reason)s WHERE backend = %(backend)s AND doomed = '' AND id = ANY (%(ids)s)"
)
_FORGET_ITEMS = """
DELETE FROM prefix_item
WHERE prefix_no IN (SELECT no FROM prefix WHERE backend = %(backend)s AND id = ANY (%(ids)s))
"""
_FORGET = "DELETE FROM prefix WHERE backend = %(backend)s AND id = ANY (%(ids)s)"
_DOOM_OF_USER = """
UPDATE prefix SET doomed = 'erased', header = '', user_id = '' WHERE user_id = %(user)s OR no IN (
    SELECT prefix_no FROM prefix_item
    JOIN item ON item.cube_no = prefix_item.cube_no AND item.no = prefix_item.item_no
    WHERE item.user_id = %(user)s)
"""
_CLEAR_OF_USER = "DELETE FROM block_item WHERE block_no IN (SELECT no FROM block WHERE user_id = %(user)s)"
_CUBES_OF_USER = "DELETE FROM block_cube WHERE block_no IN (SELECT no FROM block WHERE user_id = %(user)s)"
_BLOCKS_OF_USER = "DELETE FROM block WHERE user_id = %(user)s"


@dataclass(frozen=True, slots=True)
class PostgresBlocks:
    """Fulfils `BlockTables`."""

    session: Session

    def find(self, namespace: str) -> Block | None:
        row = self.session.row(_BLOCK, namespace=namespace)
        return None if row is None else self._block(row)

    def all(self, cube_id: str | None, user_id: str | None) -> list[Block]:
        return [self._block(row) for row in self.session.rows(_BLOCKS, cube_id=cube_id, user_id=user_id)]

    def _block(self, row: Sequence[Any]) -> Block:
        residents = self.session.rows(_RESIDENTS, no=row[0])
        return block_of(row, residents, [one[0] for one in self.session.rows(_CUBES, no=row[0])])

    def put(self, block: Block, now: int) -> Block:
        self.session.rows(_SHARE_CUBES, cubes=list(block.cube_ids))
        values = {
            "namespace": block.namespace,
            "header": block.header,
            "next_mark": block.state.next_mark,
            "now": now,
            "counts": json.dumps(asdict(block.counts)),
        }
        made = (
            self.session.run(_INSERT_BLOCK, **values, user_id=block.user_id, language=block.language)
            if block.version == 0
            else self.session.run(_UPDATE_BLOCK, **values, version=block.version)
        )
        if made != 1:
            raise VersionConflict(
                f"the block has changed since version {block.version}; read it again and retry"
            )
        found = self.session.row(_NO, namespace=block.namespace)
        assert found is not None
        no = found[0]
        if block.version == 0:
            cubes = enumerate(dict.fromkeys(block.cube_ids))
            self.session.run_many(
                _INSERT_CUBE, [{"cube_id": cube_id, "no": no, "place": place} for place, cube_id in cubes]
            )
        self.session.run(_CLEAR, no=no)
        ids = [one.item_id for one in block.state.residents]
        live = {row[0]: row for row in self.session.rows(_LIVE, ids=ids)}
        residents = [
            one
            for one in block.state.residents
            if (row := live.get(one.item_id)) is not None and still_says(one, item_of(row, row[-1]))
        ]
        self.session.run_many(
            _INSERT_ITEM,
            [
                {
                    "block": no,
                    "place": place,
                    "cube": live[one.item_id][-3],
                    "no": live[one.item_id][-2],
                    "version": one.version,
                    "tokens": one.tokens,
                    "digest": one.digest,
                    "mark": one.mark,
                }
                for place, one in enumerate(residents)
            ],
        )
        return block_written(block, residents, now)

    def note_chat(self, namespace: str, outcome: ChatReuse, now: int) -> None:
        row = self.session.row(_COUNTS, namespace=namespace)
        if row is not None:
            counts = BlockCounts(**json.loads(row[0])).after(outcome, moment(now).timestamp())
            self.session.run(_NOTE, now=now, counts=json.dumps(asdict(counts)), namespace=namespace)

    def prefixes(self, namespaces: Sequence[str] | None, *, doomed: bool) -> list[KeptPrefix]:
        found = []
        asked = None if namespaces is None else list(namespaces)
        for row in self.session.rows(_PREFIXES, doomed=doomed, namespaces=asked):
            items = self.session.rows(_PREFIX_ITEMS, no=row[0])
            found.append(prefix_of(row, items))
        return found

    def put_prefix(self, change: PutPrefix, now: int) -> None:
        prefix = change.prefix
        reason = change.reason or "replaced"
        self.session.run(
            _DOOM_OTHERS, reason=reason, namespace=prefix.namespace, backend=prefix.backend, id=prefix.id
        )
        self.forget(prefix.backend, [prefix.id])
        # Held before what stands is read: a change of an item comes wholly before this, or finds the prefix.
        self.session.rows(_HOLD_ITEMS, ids=list(prefix.item_ids))
        standing = {(row[0], row[1]) for row in self.session.rows(_STANDING, namespace=prefix.namespace)}
        held = list(zip(prefix.item_ids, prefix.versions, strict=True))
        sound = next((place for place, one in enumerate(held) if one not in standing), len(held))
        made = self.session.row(
            _INSERT_PREFIX,
            id=prefix.id,
            namespace=prefix.namespace,
            user_id=prefix.user_id,
            backend=prefix.backend,
            fingerprint=prefix.fingerprint,
            header=prefix.header,
            tokens=prefix.tokens,
            bytes=prefix.bytes,
            ends=json.dumps(prefix.ends),
            extra=json.dumps(dict(prefix.extra)),
            entries=len(prefix.item_ids),
            sound=min(sound, prefix.sound),
            now=now,
        )
        assert made is not None
        known = {row[0]: row[1:] for row in self.session.rows(_KNOWN, ids=list(prefix.item_ids))}
        self.session.run_many(
            _INSERT_PREFIX_ITEM,
            [
                {
                    "prefix": made[0],
                    "place": place,
                    "cube": known[item_id][0],
                    "no": known[item_id][1],
                    "version": version,
                }
                for place, (item_id, version) in enumerate(held)
                if item_id in known
            ],
        )

    def doom(self, change: DoomPrefixes) -> None:
        self.session.run(_DOOM, reason=change.reason, backend=change.backend, ids=list(change.ids))

    def forget(self, backend: str, ids: Iterable[str]) -> int:
        chosen = list(ids)
        self.session.run(_FORGET_ITEMS, backend=backend, ids=chosen)
        return self.session.run(_FORGET, backend=backend, ids=chosen)

    def erase_user(self, user_id: str) -> dict[str, int]:
        """The user's own blocks go; prefixes of the user, or with memories of the user in them, are doomed."""
        doomed = self.session.run(_DOOM_OF_USER, user=user_id)
        self.session.run(_CLEAR_OF_USER, user=user_id)
        self.session.run(_CUBES_OF_USER, user=user_id)
        return {
            "activation_blocks": self.session.run(_BLOCKS_OF_USER, user=user_id),
            "activation_prefixes": doomed,
        }
