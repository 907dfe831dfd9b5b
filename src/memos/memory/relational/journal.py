"""The journal: what changed, why, and a hash chain per cube that shows any later edit.

    chain(row) = blake2b(chain of the cube's row before + digest(row))
    digest(row) covers cube, seq, time, op, item, cause and `payload`
    payload(row) = blake2b(salt + before + after + reason + user_id)

So a row whose payload was redacted (salt, before, after, reason and user wiped, `redacted_at` set) is
seen to be redacted while the chain still holds, and any other edit breaks it. Triggers in the database
refuse UPDATE and DELETE but for that redaction. The cube's row keeps the newest chain and the count of rows, so that
cutting off the end shows too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memos.memory.relational.cubes import CubeRow
from memos.memory.relational.rows import moment, to_json
from memos.memory.store import Cause, JournalRow

if TYPE_CHECKING:
    from memos.memory.relational.tables import JournalTable

_SALT_BYTES = 16
_DIGEST_BYTES = 32


def chain_start(cube_id: str) -> bytes:
    """The link before a cube's first row."""
    return hashlib.blake2b(cube_id.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def _payload(salt: bytes, before: str | None, after: str | None, reason: str, user_id: str) -> bytes:
    text = json.dumps([before, after, reason, user_id]).encode()
    return hashlib.blake2b(salt + text, digest_size=_DIGEST_BYTES).digest()


def _link(previous: bytes, header: list[str | int], payload: bytes) -> bytes:
    digest = hashlib.blake2b(json.dumps(header).encode() + payload, digest_size=_DIGEST_BYTES).digest()
    return hashlib.blake2b(previous + digest, digest_size=_DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class _Entry:
    cube: CubeRow
    op: str
    item_id: str
    before: str | None
    after: str | None
    reason: str


class JournalWriter:
    """Gathers the rows of one transaction and links them when it is about to commit."""

    def __init__(self, cause: Cause, *, now: int, random_bytes: Callable[[int], bytes]) -> None:
        self._cause = cause
        self._now = now
        self._random_bytes = random_bytes
        self._entries: list[_Entry] = []

    def note(
        self,
        cube: CubeRow,
        op: str,
        item_id: str,
        *,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
        reason: str,
    ) -> None:
        """One row, in the order of the calls."""
        self._entries.append(
            _Entry(
                cube,
                op,
                item_id,
                None if before is None else to_json(before, f"item {item_id!r}"),
                None if after is None else to_json(after, f"item {item_id!r}"),
                reason,
            )
        )

    def write(self, table: JournalTable) -> None:
        """Insert the rows and move on the chain of each cube; the cube rows are written by the caller."""
        if not self._entries:
            return
        cause, rows = self._cause, []
        salts = self._random_bytes(_SALT_BYTES * len(self._entries))
        for index, entry in enumerate(self._entries):
            cube = entry.cube
            salt = salts[index * _SALT_BYTES : (index + 1) * _SALT_BYTES]
            payload = _payload(salt, entry.before, entry.after, entry.reason, cause.user_id)
            header: list[str | int] = [cube.id, cube.seq, self._now, entry.op, entry.item_id]
            names = [cause.message_key, cause.task_id, cause.label, cause.trace_id]
            cube.chain = _link(cube.chain, [*header, *names], payload)
            cube.journal_rows += 1
            rows.append(
                (
                    cube.no,
                    *header[1:],
                    *names,
                    cause.user_id,
                    entry.reason,
                    entry.before,
                    entry.after,
                    salt,
                    payload,
                    cube.chain,
                )
            )
        table.insert(rows)


def journal_row(row: Sequence[Any]) -> JournalRow:
    """A row of (n, cube id, seq, at, op, item id, before, after, reason, message key, task id, label, trace
    id, user id)."""
    return JournalRow(
        n=row[0],
        cube_id=row[1],
        seq=row[2],
        at=moment(row[3]),
        op=row[4],
        item_id=row[5],
        before=None if row[6] is None else json.loads(row[6]),
        after=None if row[7] is None else json.loads(row[7]),
        reason=row[8],
        cause=Cause(message_key=row[9], task_id=row[10], label=row[11], trace_id=row[12], user_id=row[13]),
    )


def broken_links(rows: Iterable[Sequence[Any]], cube: CubeRow) -> Iterator[str]:
    """One line per fault in the chain of a cube. A row: (n, seq, at, op, item id, message key, task id, label,
    trace id, user id, reason, before, after, salt, payload, chain, redacted at)."""
    link, count = chain_start(cube.id), 0
    for row in rows:
        n, seq, at, op, item_id, *names = row[:9]
        user_id, reason, before, after, salt, payload, chain, redacted_at = row[9:]
        count += 1
        link = _link(link, [cube.id, seq, at, op, item_id, *names], payload)
        if link != chain:
            yield f"journal row {n} of cube {cube.id!r}: the chain is broken"
            link = chain  # go on from what is stored, so that one edit is one fault
        if redacted_at is None and _payload(salt or b"", before, after, reason, user_id) != payload:
            yield f"journal row {n} of cube {cube.id!r}: its content was edited"
    if link != cube.chain or count != cube.journal_rows:
        yield f"journal of cube {cube.id!r}: {count} rows, {cube.journal_rows} were written"
