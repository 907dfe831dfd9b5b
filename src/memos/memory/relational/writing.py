"""One write transaction: changes in order, then capacity, journal and the row of every touched cube.

`Writing` lives between BEGIN and COMMIT. `apply` may be called often; `finish` archives what is over
capacity, links the journal and writes the cube rows. When anything raises, the caller rolls back and
nothing of it remains.

Where others may write at the same time, a cube is held from before its items are read to the end, so what a
change is decided on is what it changes. Cubes that changes name are held in the order of their ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from memos.errors import InvalidInput, ItemGone, ItemNotFound, VersionConflict
from memos.mem_scheduler.schemas.message_schemas import check_id, check_text
from memos.memory import working_record
from memos.memory.activation.index import DoomPrefixes, PutPrefix
from memos.memory.item import Capacities, ItemStatus, MemoryItem, MemoryKind
from memos.memory.relational import aliases, origins
from memos.memory.relational.cubes import CubeRow
from memos.memory.relational.entries import Binding, get_binding, same_entries, vector_bytes
from memos.memory.relational.journal import JournalWriter, chain_start
from memos.memory.relational.places import Place, check_scores, place_fields
from memos.memory.relational.rows import Stored, difference, item_fields, item_row, moment, to_json
from memos.memory.relational.tables import Tables
from memos.memory.store import (
    AddAlias,
    AddItems,
    Cause,
    Change,
    IndexedItem,
    PutState,
    ReplaceWorking,
    SetRead,
    SetStatus,
    TouchItems,
    UpdateItem,
)
from memos.models.base import Vectors

_OP_OF_STATUS = {
    ItemStatus.ARCHIVED: "archive",
    ItemStatus.DELETED: "delete",
    ItemStatus.QUARANTINED: "quarantine",
}


class Writing:
    """The changes of one transaction."""

    def __init__(
        self,
        tables: Tables,
        cause: Cause,
        *,
        now: int,
        capacities: Capacities,
        bound_as: Binding | None,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.tables = tables
        self._now = now
        self._capacities = capacities
        self._bound_as = bound_as
        self._journal = JournalWriter(cause, now=now, random_bytes=random_bytes)
        self._cubes: dict[str, CubeRow] = {}
        self._binding: Binding | None = None
        self._first_new: dict[str, int] = {}  # cube -> the first number of this transaction's own items
        self._archived: list[str] = []

    def hold(self, changes: Sequence[Change]) -> None:
        """Hold the cubes that the changes name, one after the other as everybody does: no deadlock."""
        if not self.tables.shared_writes:
            return
        named: set[str] = set()
        for change in changes:
            match change:
                case AddItems():
                    named.update(indexed.item.cube_id for indexed in change.items)
                case UpdateItem():
                    named.add(change.indexed.item.cube_id)
                case ReplaceWorking() | PutState():
                    named.add(change.cube_id)
                case SetStatus() | SetRead() | TouchItems():
                    named.update(self._cubes_of(change.item_ids))
                case AddAlias():
                    named.update(self._cubes_of((change.alias, change.item_id)))
                case PutPrefix():
                    named.update(self._cubes_of(change.prefix.item_ids))
        for cube_id in sorted(named):
            self._cube(cube_id)

    def _cubes_of(self, item_ids: Sequence[str]) -> set[str]:
        """The cubes of items, and of what aliases stand for."""
        found = self.tables.items.by_id(list(dict.fromkeys(item_ids)))
        targets = self.tables.items.alias_targets(item_ids)
        meant = self.tables.items.by_no(list(dict.fromkeys(targets.values()))) if targets else []
        return {stored.item.cube_id for stored in (*found.values(), *meant)}

    def apply(self, change: Change) -> None:
        """Carry out one change. Raises InvalidInput, ItemNotFound, ItemGone, VersionConflict."""
        match change:
            case AddItems():
                self._add(change)
            case UpdateItem():
                self._update(change)
            case SetStatus():
                self._set_status(change)
            case SetRead():
                self._set_read(change)
            case TouchItems():
                self._touch(change)
            case ReplaceWorking():
                self._replace_working(change)
            case AddAlias():
                self._add_alias(change)
            case PutState():
                self._put_state(change)
            case PutPrefix():
                self.tables.blocks.put_prefix(change, self._now)
            case DoomPrefixes():
                self.tables.blocks.doom(change)
            case _:
                raise InvalidInput(f"not a change: {type(change).__name__}")

    def finish(self) -> tuple[dict[str, int], tuple[str, ...]]:
        """Settle everything; returns the new `seq` of each touched cube and what capacity archived."""
        touched = [cube for cube in self._cubes.values() if cube.changed]
        for cube in touched:
            self._archive_over_capacity(cube)
        self._journal.write(self.tables.journal)
        for cube in touched:
            self.tables.cubes.save(cube)
        return {cube.id: cube.seq for cube in touched}, tuple(self._archived)

    # -- items ----------------------------------------------------------------------------------------

    def _add(self, change: AddItems) -> None:
        ids = [indexed.item.id for indexed in change.items]
        for indexed in change.items:
            _check_item(indexed.item)
        for cube_id in sorted({indexed.item.cube_id for indexed in change.items}):
            self._cube(cube_id)  # held before numbers are given, so that numbers rise with each commit
        self._refuse_known(ids)
        by_cube: dict[str, list[Stored]] = {}
        vectors, rows = [], []
        for no, indexed in zip(self.tables.items.numbers(len(ids)), change.items, strict=True):
            cube = self._cube(indexed.item.cube_id)
            cube.change()
            self._first_new.setdefault(cube.id, no)
            item = replace(indexed.item, version=1)
            stored = Stored(no, item, _terms(indexed), indexed.vector is not None)
            if indexed.vector is not None:
                vectors.append((cube.no, stored.no, self._bytes(indexed.vector, item.id)))
            rows.append(item_row(stored.no, cube.no, cube.seq, stored))
            by_cube.setdefault(cube.id, []).append(stored)
            _count(cube, stored, by=1)
            fields = item_fields(item)
            self._journal.note(cube, "add", item.id, before=None, after=fields, reason=change.reason)
        self.tables.items.insert(rows)
        for cube_id, items in by_cube.items():
            self.tables.indexes.put_entries(self._cubes[cube_id].no, items)
        self.tables.indexes.put_vectors(vectors)

    def _refuse_known(self, ids: Sequence[str]) -> None:
        known = self.tables.items.known(ids) or list(self.tables.items.alias_targets(ids))
        if not known and len(set(ids)) == len(ids):
            return
        repeated = known or [item_id for item_id in ids if ids.count(item_id) > 1]
        raise InvalidInput(f"item {repeated[0]!r} exists already; give a fresh id, or update the item")

    def _update(self, change: UpdateItem) -> None:
        item, vector = change.indexed.item, change.indexed.vector
        _check_item(item)
        old = self._stored((item.id,))[0]
        if old.item.status is ItemStatus.DELETED:
            raise _gone(item.id)
        if item.cube_id != old.item.cube_id:
            raise InvalidInput(
                f"item {item.id!r} is in cube {old.item.cube_id!r}; it cannot move to {item.cube_id!r}"
            )
        if change.expected_version not in (None, old.item.version):
            raise VersionConflict(
                f"item {item.id!r} has version {old.item.version}, not {change.expected_version}; "
                "read it again and retry"
            )
        if item.status is not old.item.status:
            op = _op(old.item, item.status)
        else:
            op = "update" if item.kind is old.item.kind else "convert"
        blob = None if vector is None else self._bytes(vector, item.id)
        # Without a new vector the old one still holds while the text is the same.
        has_vector = blob is not None or (old.has_vector and item.memory == old.item.memory)
        new = Stored(old.no, item, _terms(change.indexed), has_vector)
        self._write(old, new, op=op, reason=change.reason, blob=blob)

    def _set_status(self, change: SetStatus) -> None:
        if change.status is ItemStatus.DELETED:
            self._delete(change)
            return
        for old in self._stored(change.item_ids):
            if old.item.status is change.status:
                continue
            if old.item.status is ItemStatus.DELETED:
                raise _gone(old.item.id)
            new = replace(old, item=replace(old.item, status=change.status))
            self._write(old, new, op=_op(old.item, change.status), reason=change.reason)

    def _delete(self, change: SetStatus) -> None:
        self._hold_meant(change.item_ids)
        going = self._stored(aliases.family(self.tables.items, change.item_ids))
        reason = change.reason
        while going:  # ends: an item is deleted once
            deleted: dict[str, set[str]] = {}
            for old in going:
                if old.item.status is ItemStatus.DELETED:
                    continue
                deleted.setdefault(old.item.cube_id, set()).add(old.item.id)
                tombstone = Stored(old.no, _tombstone(old.item), {}, False)
                self._write(old, tombstone, op="delete", reason=reason)
            for cube_id, ids in deleted.items():
                self._forget_in_record(cube_id, ids)
            reason = f"{change.reason}; what it was read from is gone"
            going = [
                orphan
                for cube_id, ids in deleted.items()
                for orphan in origins.orphans(self.tables.items, self._cube(cube_id).no, ids)
            ]

    def _set_read(self, change: SetRead) -> None:
        for old in self._stored(change.item_ids):
            if old.item.read is not change.read and old.item.status is not ItemStatus.DELETED:
                new = replace(old, item=replace(old.item, read=change.read))
                self._write(old, new, op="read", reason=change.reason)

    def _touch(self, change: TouchItems) -> None:
        self._hold_meant(change.item_ids)
        meant = aliases.resolved(self.tables.items, change.item_ids)
        ids = [meant[one].item.id if one in meant else one for one in change.item_ids]
        for old in self._stored(ids):
            if old.item.status is not ItemStatus.DELETED:
                count = max(0, old.item.use_count + change.weight)
                new = replace(old, item=replace(old.item, use_count=count, used_at=moment(self._now)))
                self._write(old, new, op="touch", reason=change.reason)

    def _add_alias(self, change: AddAlias) -> None:
        check_id("alias", change.alias)
        self._hold_meant((change.alias, change.item_id))
        target = aliases.put(self.tables.items, change.alias, change.item_id)
        cube = self._cube(target.item.cube_id)
        cube.change()
        named = {"item_id": target.item.id}
        self._journal.note(cube, "alias", change.alias, before=None, after=named, reason=change.reason)

    def _write(self, old: Stored, new: Stored, *, op: str, reason: str, blob: bytes | None = None) -> None:
        """Put `new` in the place of `old`: row, indexes, working set, counters and journal."""
        cube = self._cube(old.item.cube_id)
        cube.change()
        item = replace(new.item, version=old.item.version + 1, updated_at=moment(self._now))
        leaves = old.item.live and not item.live
        if leaves and item.kind is MemoryKind.WORKING:
            item = replace(item, kind=MemoryKind.LONG_TERM)
        new = replace(new, item=item)
        if blob is not None:
            self.tables.indexes.put_vectors([(cube.no, old.no, blob)])
        elif old.has_vector and not new.has_vector:
            self.tables.indexes.drop_vector(cube.no, old.no)
        if not same_entries(old, new):
            self.tables.indexes.take_entries(cube.no, old)
            self.tables.indexes.put_entries(cube.no, [new])
        self._save(cube, new)
        _count(cube, old, by=-1)
        _count(cube, new, by=1)
        before, after = difference(old.item, item)
        self._journal.note(cube, op, item.id, before=before, after=after, reason=reason)
        if leaves:
            self._leave_working(cube, new, reason=f"item left: {op}")

    def _save(self, cube: CubeRow, stored: Stored) -> None:
        self.tables.items.update(item_row(stored.no, cube.no, cube.seq, stored))

    # -- working memory -------------------------------------------------------------------------------

    def _replace_working(self, change: ReplaceWorking) -> None:
        cube = self._cube(change.cube_id)
        if change.expected_version not in (None, cube.working_version):
            raise VersionConflict(
                f"the working memory of cube {cube.id!r} has version {cube.working_version}, not "
                f"{change.expected_version}; read it again and retry"
            )
        found = self.tables.items.by_id([entry.item_id for entry in change.entries])
        places: dict[int, Place] = {}
        for entry in change.entries:
            stored = found.get(entry.item_id)
            if stored is not None and stored.item.live and stored.item.cube_id == cube.id:
                places.setdefault(stored.no, Place(stored.no, entry))
        chosen = list(places.values())[: self._capacities.working]
        cube.change()
        before = place_fields(cube, self.tables.working.places(cube.no))
        cube.working_version += 1
        check_scores(chosen)
        self.tables.working.write(cube.no, chosen)
        after = place_fields(cube, chosen)
        self._journal.note(cube, "replace_working", "", before=before, after=after, reason=change.reason)
        for old in self.tables.items.by_no(self.tables.items.strays(cube.no)):
            new = replace(old, item=replace(old.item, kind=MemoryKind.LONG_TERM))
            self._write(old, new, op="convert", reason="left working memory")

    def _put_state(self, change: PutState) -> None:
        cube = self._cube(change.cube_id)
        cube.change()
        value = change.value
        if change.name == working_record.STATE:
            # It was planned before this transaction: what was deleted meanwhile does not come back with it.
            record = working_record.WorkingRecord.from_json(value)
            found = self.tables.items.by_id(sorted(record.named))
            gone = {one for one, stored in found.items() if stored.item.status is ItemStatus.DELETED}
            value = record.without(gone).to_json() if gone else value
        self.tables.working.put_state(cube.no, change.name, to_json(dict(value), f"state {change.name!r}"))

    def _forget_in_record(self, cube_id: str, ids: AbstractSet[str]) -> None:
        """Deleted items are no ghosts: the order and the heat of the working memory name them no more."""
        name = working_record.STATE
        text = self.tables.working.state(cube_id, name)
        if text is None:
            return
        record = working_record.WorkingRecord.from_json(json.loads(text))
        if ids & record.named:
            left = to_json(record.without(ids).to_json(), f"state {name!r}")
            self.tables.working.put_state(self._cube(cube_id).no, name, left)

    def _leave_working(self, cube: CubeRow, stored: Stored, *, reason: str) -> None:
        if not self.tables.working.holds(cube.no, stored.no):
            return
        places = self.tables.working.places(cube.no)
        staying = [place for place in places if place.item_no != stored.no]
        self.tables.working.write(cube.no, staying)
        self._journal.note(
            cube,
            "replace_working",
            "",
            before=place_fields(cube, places),
            after=place_fields(cube, staying),
            reason=reason,
        )

    # -- capacity -------------------------------------------------------------------------------------

    def _archive_over_capacity(self, cube: CubeRow) -> None:
        limits = (
            (MemoryKind.LONG_TERM, self._capacities.long_term),
            (MemoryKind.USER, self._capacities.user),
            (MemoryKind.PREFERENCE, self._capacities.preference),
            # Twice the places, so that the items of the next set can be there before it replaces the last.
            (MemoryKind.WORKING, 2 * self._capacities.working),
        )
        # Items that this very transaction adds are spared while older ones can go, or a full cube of used
        # items would take nothing new; those in working memory go last.
        passes = ((self._first_new.get(cube.id), False), (None, False), (None, True))
        for kind, capacity in limits:
            for below, placed in passes:
                over = cube.live_of(kind) - capacity
                if over <= 0:
                    break
                nos = self.tables.items.least_valuable(
                    cube.no, kind.value, below=below, placed=placed, limit=over
                )
                for old in self.tables.items.by_no(nos):
                    new = replace(old, item=replace(old.item, status=ItemStatus.ARCHIVED))
                    self._write(old, new, op="archive", reason="capacity")
                    self._archived.append(old.item.id)

    # -- vectors --------------------------------------------------------------------------------------

    def put_vectors(self, vectors: Mapping[str, Vectors]) -> None:
        """Set the vectors of items; those that were deleted meanwhile are passed over."""
        rows = []
        for old in self._stored(tuple(vectors)):
            if old.item.status is ItemStatus.DELETED:
                continue
            cube = self._cube(old.item.cube_id)
            rows.append((cube.no, old.no, self._bytes(vectors[old.item.id], old.item.id)))
            cube.change()
            self._save(cube, replace(old, has_vector=True))
        self.tables.indexes.put_vectors(rows)

    def _bytes(self, vector: Vectors, item_id: str) -> bytes:
        if self._binding is None:
            self._binding = get_binding(self.tables.meta)
            if self._binding is not None:
                self._binding.check(self._bound_as)
        return vector_bytes(vector, item_id, self._binding)

    # -- lookups --------------------------------------------------------------------------------------

    def _cube(self, cube_id: str) -> CubeRow:
        cube = self._cubes.get(cube_id)
        if cube is None:
            check_id("cube_id", cube_id)
            cube = self.tables.cubes.hold(cube_id)
            if cube is None:
                cube = self.tables.cubes.insert(cube_id, chain_start(cube_id))
            self._cubes[cube_id] = cube
        return cube

    def _hold(self, cube_ids: Iterable[str]) -> bool:
        """Hold these cubes; whether what was read of them may have changed before it was held."""
        fresh = sorted(set(cube_ids) - self._cubes.keys()) if self.tables.shared_writes else []
        for cube_id in fresh:
            self._cube(cube_id)
        return bool(fresh)

    def _hold_meant(self, item_ids: Sequence[str]) -> None:
        """Hold the cubes of items and of what aliases stand for."""
        if self.tables.shared_writes:
            while self._hold(self._cubes_of(item_ids)):
                pass  # an alias may have moved before its cube was held

    def _stored(self, item_ids: Sequence[str]) -> list[Stored]:
        """The items in the order given, each once. Raises ItemNotFound."""
        wanted = list(dict.fromkeys(item_ids))
        found = self.tables.items.by_id(wanted)
        if self._hold(stored.item.cube_id for stored in found.values()):
            found = self.tables.items.by_id(wanted)
        for item_id in wanted:
            if item_id not in found:
                raise ItemNotFound(f"no item {item_id!r} was ever stored here")
        return [found[item_id] for item_id in wanted]


def _op(old: MemoryItem, status: ItemStatus) -> str:
    if op := _OP_OF_STATUS.get(status):
        return op
    return "update" if old.live else "restore"


def _gone(item_id: str) -> ItemGone:
    return ItemGone(f"item {item_id!r} was deleted")


def _tombstone(item: MemoryItem) -> MemoryItem:
    """What stays of a deleted item: whose it was and when, nothing of what it said."""
    return MemoryItem(
        id=item.id,
        cube_id=item.cube_id,
        user_id=item.user_id,
        memory="",
        kind=item.kind,
        status=ItemStatus.DELETED,
        version=item.version,
        raw=item.raw,
        created_at=item.created_at,
        updated_at=item.updated_at,
    )


def _count(cube: CubeRow, stored: Stored, *, by: int) -> None:
    item = stored.item
    cube.count(item.status, item.kind, live=item.live, length=sum(stored.terms.values()), by=by)


def _terms(indexed: IndexedItem) -> dict[str, int]:
    terms = {}
    for term, count in indexed.terms.items():
        if not term or not isinstance(count, int) or count < 1:
            raise InvalidInput(
                f"item {indexed.item.id!r}: term {term!r} with count {count!r}; counts start at 1"
            )
        terms[term] = count
    return terms


def _check_item(item: MemoryItem) -> None:
    check_id("item id", item.id)
    check_id("user_id", item.user_id)
    check_text(f"the text of item {item.id!r}", item.memory)
    if item.status is ItemStatus.DELETED:
        raise InvalidInput(f"item {item.id!r} comes as deleted; delete it with SetStatus instead")
