"""What a write does with documents: which are new, which are there already, which take another's place.

`prepare` encodes what looks new before any lock is taken, in batches; `settle` decides again under the lock of
the cube, so that what it says holds in the transaction that follows:

* The same bytes, stored for the same user in the cube, are not stored again, whatever they are called.
* Other bytes of the same document (its name, or the caller's `file_id`) take its place: its items are
  archived, and with them the facts that were read from them alone.
* A chunk that the gate of `hygiene` holds is stored in quarantine; the others are recalled.

Ids come from content (`memory.document_items`), so two processes that store the same file at once collide
on an id instead of storing it twice: the later one finds it stored. Writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memos.clock import Clock, utc
from memos.errors import VersionConflict
from memos.memory.document_items import (
    DOCUMENT_ROLE,
    ReadDocument,
    checksum_tag,
    chunk_id,
    document_id,
    document_of,
    items_of,
)
from memos.memory.hygiene import Action, check
from memos.memory.item import ItemStatus, MemoryItem, ReadState
from memos.memory.lookup import was_stored
from memos.memory.store import IndexedItem, ItemFilter, MemoryStore, SetStatus

if TYPE_CHECKING:
    from memos.memory.indexer import Indexer

BATCH = 64
PAGE_SIZE = 500
GENERATIONS_MAX = 10_000

Progress = Callable[[int, int], None]  # (chunks that are encoded, all chunks)


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """What became of one document in one cube."""

    file_id: str
    name: str
    cube_id: str
    parts: int
    pages: int
    format: str
    state: str  # "stored", "stored already", "replaced"
    replaced: int = 0  # items of the version before that were archived
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """One document for one cube: its items, encoded."""

    read: ReadDocument
    cube_id: str
    user_id: str
    indexed: tuple[IndexedItem, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """What to store of one document, and what to say of it."""

    document: StoredDocument
    index: int  # of its message
    indexed: tuple[IndexedItem, ...] = ()
    held: tuple[tuple[MemoryItem, str], ...] = ()  # in quarantine, and why
    there: tuple[MemoryItem, ...] = ()  # stored already
    archive: SetStatus | None = None


class DocumentDrafter:
    """Thread-safe; keeps nothing between calls."""

    def __init__(self, store: MemoryStore, indexer: Indexer, clock: Clock, *, tokens_max: int) -> None:
        self._store = store
        self._indexer = indexer
        self._clock = clock
        self._tokens_max = tokens_max

    def prepare(
        self,
        reads: Sequence[ReadDocument],
        *,
        cube_ids: Sequence[str],
        user_id: str,
        session_id: str = "",
        turn_id: str = "",
        info: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        due: ReadState = ReadState.NONE,
        progress: Progress | None = None,
    ) -> list[Prepared]:
        """Each document for each cube, encoded unless it is there already."""
        now = utc(self._clock.now())
        done, whole = 0, sum(len(read.chunks) for read in reads) * len(cube_ids)
        prepared = []
        for cube_id in cube_ids:
            with self._store.read(cube_id) as view:
                names = view.participants()
            for read in reads:
                indexed: list[IndexedItem] = []
                if not self._same(read, cube_id, user_id):
                    items = items_of(
                        read,
                        cube_id=cube_id,
                        user_id=user_id,
                        generation=self._generation(read, cube_id, user_id),
                        now=now,
                        session_id=session_id,
                        turn_id=turn_id,
                        info=info,
                        tags=tags,
                        due=due,
                    )
                    for start in range(0, len(items), BATCH):
                        indexed += self._indexer.index(items[start : start + BATCH], participants=names)
                        if progress is not None:
                            progress(done + len(indexed), whole)
                done += len(read.chunks)
                prepared.append(Prepared(read, cube_id, user_id, tuple(indexed)))
        return prepared

    def settle(self, prepared: Prepared) -> Settled:
        """What holds for a document now. VersionConflict when it was deleted since it was prepared."""
        read, cube_id = prepared.read, prepared.cube_id
        there = self._same(read, cube_id, prepared.user_id)
        if there:
            told = document_of(there[0])
            name = str(told.get("name", read.attachment.name))
            whole = list(self._live(cube_id, prepared.user_id, there[0].session_id))
            document = replace(
                self._told(prepared, there[0].session_id, "stored already"), name=name, parts=len(whole)
            )
            return Settled(document, read.attachment.index, there=tuple(whole))
        if not prepared.indexed or was_stored(self._store, prepared.indexed[0].item.id):
            raise VersionConflict(
                f"{read.attachment.name} changed in the store while it was read; add it again"
            )
        held: list[tuple[MemoryItem, str]] = []
        indexed: list[IndexedItem] = []
        for one in prepared.indexed:
            verdict = check(one.item, tokens_max=self._tokens_max)
            if verdict.action is Action.QUARANTINE:
                item = replace(one.item, status=ItemStatus.QUARANTINED)
                held.append((item, verdict.reason))
                one = replace(one, item=item)
            indexed.append(one)
        whole_id = prepared.indexed[0].item.session_id
        before = [item.id for item in self._live(cube_id, prepared.user_id, whole_id)]
        archive = None
        if before:
            gone = (*before, *self._read_from(cube_id, prepared.user_id, frozenset(before)))
            reason = f"superseded: {read.attachment.name} has a new version ({read.checksum[:12]})"
            archive = SetStatus(gone, ItemStatus.ARCHIVED, reason)
        document = self._told(prepared, whole_id, "replaced" if before else "stored")
        return Settled(
            replace(document, replaced=len(before)),
            read.attachment.index,
            indexed=tuple(indexed),
            held=tuple(held),
            archive=archive,
        )

    # -- looking ----------------------------------------------------------------------------------------

    def _same(self, read: ReadDocument, cube_id: str, user_id: str) -> Sequence[MemoryItem]:
        """A live item of the same bytes: the document itself, else one under another name; () for none."""
        own = ItemFilter(
            cube_ids=(cube_id,),
            user_ids=(user_id,),
            session_ids=(document_id(cube_id, user_id, read.identity),),
            raw=True,
        )
        newest = self._store.find(own, limit=1).items
        if newest and document_of(newest[0]).get("checksum") == read.checksum:
            return newest
        tagged = ItemFilter(
            cube_ids=(cube_id,), user_ids=(user_id,), tags=(checksum_tag(read.checksum),), raw=True
        )
        return [item for item in self._store.find(tagged, limit=1).items if item.role == DOCUMENT_ROLE]

    def _generation(self, read: ReadDocument, cube_id: str, user_id: str) -> int:
        """The first that no item of these bytes was ever stored under (they may have been deleted since)."""
        whole = document_id(cube_id, user_id, read.identity)
        return next(
            number
            for number in range(GENERATIONS_MAX)
            if not was_stored(self._store, chunk_id(whole, read.checksum, number, 0))
        )

    def _live(self, cube_id: str, user_id: str, whole_id: str) -> Iterator[MemoryItem]:
        """The live chunks of a document, in its order."""
        wanted = ItemFilter(cube_ids=(cube_id,), user_ids=(user_id,), session_ids=(whole_id,), raw=True)
        found = [item for item in pages(self._store, wanted) if item.role == DOCUMENT_ROLE]
        yield from sorted(found, key=lambda item: item.position)

    def _read_from(self, cube_id: str, user_id: str, gone: frozenset[str]) -> list[str]:
        """Derived items all of whose sources are among `gone`."""
        wanted = ItemFilter(cube_ids=(cube_id,), user_ids=(user_id,), raw=False)
        found = []
        for item in pages(self._store, wanted):
            origins = {source.item_id for source in item.sources if source.item_id}
            if origins and origins <= gone:
                found.append(item.id)
        return found

    def _told(self, prepared: Prepared, file_id: str, state: str) -> StoredDocument:
        read = prepared.read
        return StoredDocument(
            file_id=file_id,
            name=read.attachment.name,
            cube_id=prepared.cube_id,
            parts=len(read.chunks),
            pages=read.document.pages,
            format=read.document.format.value,
            state=state,
            notes=read.document.notes,
        )


def pages(store: MemoryStore, wanted: ItemFilter) -> Iterable[MemoryItem]:
    """Everything that passes, newest first. Ends: a cube holds no more than its capacities."""
    cursor: str | None = None
    while True:
        page = store.find(wanted, limit=PAGE_SIZE, cursor=cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return
