"""The contract of a memory store. `sqlite` (default) and `postgres` fulfil it; one conformance suite checks.

What every backend guarantees
* One change, one transaction: rows, lexical postings, vectors, links, working set, journal rows and
  the cube's `seq` move together or not at all. Items of all cubes of one call commit together.
* `apply_once` commits a task's changes, its followups (an outbox) and its web logs together with the
  mark that the task ran. A second call with the same message key changes nothing, emits no log, and
  returns the followups whose own task has not run yet, under the same derived keys.
* Every change leaves a journal row: which task, which item, before, after, why. The journal is
  append-only and hash-chained per cube.
* A cube's `seq` rises by one with each committed change to that cube; a `ReadView` sees one `seq`.
* Nothing over capacity is deleted: the least valuable live items are archived, with a journal row
  (`op="archive"`, reason "capacity"), in the same transaction; items in working memory go last.
* An item that is archived, deleted or quarantined leaves working memory and every index in the same
  transaction. A working set therefore never names an item that is not live.
* All methods are thread-safe. Vendor exceptions come out as `memos.errors.StoreError` and children.

What a store does not do: it analyses no text and calls no model. Terms, vectors and links come with
the item (`IndexedItem`, built by `memos.memory.indexer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from memos.memory.activation.index import DoomPrefixes, PutPrefix
from memos.memory.item import (
    Capacities,
    CubeSizes,
    ItemStatus,
    MemoryItem,
    MemoryKind,
    ReadState,
    WorkingEntry,
    WorkingSet,
)
from memos.models.base import Vectors

if TYPE_CHECKING:
    from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
    from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem


# -- what is written --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IndexedItem:
    """An item with what the indexes need to know of it."""

    item: MemoryItem
    terms: Mapping[str, int]  # term -> count in the item's text, as `memos.retrieval.keywords` makes them
    vector: Vectors | None = None  # (dim,) float32 unit vector; None: not encoded (no embedder)


@dataclass(frozen=True, slots=True)
class AddItems:
    """Store new items. An id that exists already raises InvalidInput. `version` is set to 1."""

    items: tuple[IndexedItem, ...]
    reason: str = "added"


@dataclass(frozen=True, slots=True)
class UpdateItem:
    """Replace an item and its index entries. `expected_version=None` writes over whatever is there."""

    indexed: IndexedItem
    expected_version: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Move items to a status. To DELETED wipes text, terms, vector, links; the tombstone stays.

    To DELETED also takes what says the same: the item that an alias stands for, every item that was
    merged into the named ones, derived items of which no source (an item) is left, and summaries of which
    a part (a source of type "part") goes. Every other status is of the row that has the id.

    ARCHIVED or QUARANTINED back to ACTIVATED puts them into the indexes again. Unknown ids raise
    ItemNotFound, deleted ones ItemGone (unless the target is DELETED: then it is a no-op).
    """

    item_ids: tuple[str, ...]
    status: ItemStatus
    reason: str


@dataclass(frozen=True, slots=True)
class SetRead:
    """Move raw items between `none`, `due` and `done`."""

    item_ids: tuple[str, ...]
    read: ReadState
    reason: str


@dataclass(frozen=True, slots=True)
class ReplaceWorking:
    """Replace the whole working set of a cube, atomically.

    `entries` are best first; entries of items that are no longer live, or of another cube, are left
    out; over-long sets are cut at the working capacity. An item of kind WORKING that leaves the set
    becomes LONG_TERM. `expected_version` is the version the caller read (0 for a cube that never had
    a set); VersionConflict when somebody replaced it meanwhile, None to write over it.
    """

    cube_id: str
    entries: tuple[WorkingEntry, ...]
    expected_version: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class TouchItems:
    """The items were used (quoted in an answer, confirmed): use_count += weight, used_at = now.

    An alias counts for the item that it stands for.
    """

    item_ids: tuple[str, ...]
    reason: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class AddAlias:
    """From now on `alias`, an id that was given out, stands for the item `item_id` (it was merged into it).

    `get` of the alias gives the item, as long as no live item has the id itself. Aliases do not chain:
    whatever stood for `alias` stands for `item_id` too. The item of the alias is not changed by this:
    archive it in the same call. ItemNotFound, ItemGone for `item_id`; InvalidInput for an alias of
    itself or across cubes.
    """

    alias: str
    item_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class PutState:
    """Set one named piece of a cube's monitor state (query window, keyword counts, last refresh …)."""

    cube_id: str
    name: str
    value: Mapping[str, Any]  # JSON


Change = (
    AddItems
    | UpdateItem
    | SetStatus
    | SetRead
    | ReplaceWorking
    | TouchItems
    | AddAlias
    | PutState
    | PutPrefix
    | DoomPrefixes
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a change happens; kept in its journal rows."""

    message_key: str = ""
    task_id: str = ""
    label: str = ""
    trace_id: str = ""
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class Followup:
    """A message to be submitted once the change that chains it is committed.

    `key` is derived from the parent (`memos.mem_scheduler.schemas.keys.child_key`), so that a repeat of
    the parent gives the same one.
    """

    key: str
    parent_key: str
    message: ScheduleMessageItem
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ServingQueue:
    """A queue whose tasks run on the store."""

    id: str
    place: str  # for people
    token: str  # of the process that noted it last
    since: float  # wall time


@dataclass(frozen=True, slots=True)
class Applied:
    """What a call of `apply` or `apply_once` did.

    `fresh` is False when the mark was already there. `followups` are the rows that are not ticked yet:
    submit them. `seqs` gives each touched cube's new `seq`. `archived` lists what capacity pushed out.
    """

    fresh: bool = True
    followups: tuple[Followup, ...] = ()
    seqs: Mapping[str, int] = field(default_factory=dict)
    archived: tuple[str, ...] = ()


# -- what is read -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """All given conditions must hold; an empty filter matches every live item of the cubes."""

    cube_ids: tuple[str, ...] = ()  # empty: every cube
    user_ids: tuple[str, ...] = ()
    kinds: tuple[MemoryKind, ...] = ()
    statuses: tuple[ItemStatus, ...] = (ItemStatus.ACTIVATED, ItemStatus.RESOLVING)
    ids: tuple[str, ...] = ()
    session_ids: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    participants: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()  # any of them
    read: tuple[ReadState, ...] = ()
    raw: bool | None = None
    content_hashes: tuple[str, ...] = ()
    created_from: datetime | None = None
    created_to: datetime | None = None
    happened_from: datetime | None = None
    happened_to: datetime | None = None

    def of_user(self, user_id: str) -> ItemFilter:
        """The same, of this user alone; of nobody where the filter already asks for others."""
        theirs = not self.user_ids or user_id in self.user_ids
        return replace(self, user_ids=(user_id if theirs else "",))

    @property
    def is_default(self) -> bool:
        """True when only cubes and the live statuses are asked for, so that no selection is needed."""
        return self == ItemFilter(cube_ids=self.cube_ids)


@dataclass(frozen=True, slots=True)
class Page:
    """Items newest first, and where the next page begins (None: that was all)."""

    items: tuple[MemoryItem, ...]
    total: int
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Facet:
    """The few fields of an item that recall ranks by, cheap to read in hundreds."""

    no: int  # the row number, by which channels name items
    id: str
    kind: MemoryKind
    session_id: str
    scenario: str
    position: int
    participants: tuple[str, ...]
    links: tuple[str, ...]
    happened_at: datetime | None
    created_at: datetime
    content_hash: str
    turn_id: str
    raw: bool
    source_keys: tuple[str, ...]  # `Source.key` of each source
    use_count: int = 0


class ReadView(Protocol):
    """One cube at one `seq`: everything read through a view belongs to the same snapshot.

    Items are named by their row number `no`. `allowed` restricts a channel to those numbers. Only live
    items are ever seen.
    """

    cube_id: str
    seq: int
    size: int  # live items in the cube

    def search_text(
        self, terms: Mapping[str, float], *, limit: int, allowed: frozenset[int] | None = None
    ) -> dict[int, float]:
        """BM25 (Robertson & Zaragoza 2009; k1 0.6, b 0.2, IDF over this cube) of query terms with weights.

        The best `limit` items with a score above 0.
        """
        ...

    def rarity(self, terms: Iterable[str]) -> dict[str, float]:
        """The IDF that `search_text` gives each term in this cube, terms that no item holds included.

        With it a BM25 score becomes a share of what the query could reach, which compares across queries.
        """
        ...

    def search_vector(
        self, vector: Vectors, *, limit: int, allowed: frozenset[int] | None = None
    ) -> dict[int, float]:
        """Cosine of the unit vector `(dim,)` with each item's; the best `limit`. Exact."""
        ...

    def vectors(self, nos: Sequence[int]) -> dict[int, Vectors]:
        """The unit vectors `(dim,)` of the named items; those that have none are left out."""
        ...

    def search_links(
        self, links: Sequence[str], *, limit: int, allowed: frozenset[int] | None = None
    ) -> dict[int, float]:
        """Items linked to the named entities; each link counts by its rarity in the cube (IDF)."""
        ...

    def neighbours(self, nos: Iterable[int], *, distance: int = 1) -> dict[int, tuple[int, ...]]:
        """For each item those at most `distance` places away in its session, nearest first."""
        ...

    def select(self, wanted: ItemFilter) -> frozenset[int]:
        """The numbers of all live items that pass the filter."""
        ...

    def facets(self, nos: Iterable[int]) -> dict[int, Facet]:
        """The facets of the named items; unknown numbers are left out."""
        ...

    def items(self, nos: Sequence[int]) -> list[MemoryItem]:
        """The whole items, in the order asked for; unknown numbers are left out."""
        ...

    def texts(self, nos: Sequence[int]) -> dict[int, str]:
        """The bare texts alone, which cost a tenth of whole items; unknown numbers are left out."""
        ...

    def participants(self) -> frozenset[str]:
        """Everyone who takes part in the cube's items, as written."""
        ...

    def working(self) -> WorkingSet:
        """The working set of the cube."""
        ...


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One line of the journal: what one change did to one item (or to the working set: item_id "")."""

    n: int
    cube_id: str
    seq: int
    at: datetime
    op: str  # add, update, archive, delete, quarantine, restore, convert, replace_working, touch, read, alias
    item_id: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    reason: str
    cause: Cause


@runtime_checkable
class ErasingStore(Protocol):
    """A store that can erase a subject: rows, indexes, journal text, web logs, followups and state."""

    def texts_of(self, user_id: str, *, chars_min: int = 12, limit: int = 200) -> list[str]:
        """The longest texts that this user alone said, to look for traces of after `erase`."""
        ...

    def erase(self, user_id: str, *, state_names: Sequence[str] = ()) -> dict[str, int]:
        """Everything of a user out of the store, in one transaction; how many of each went.

        Tombstones without a name stay, and the time at which it was done: `apply_once` of a task that was
        submitted before then raises SubjectErased, so that a late task brings nothing back.
        """
        ...

    def erased_at(self, user_id: str) -> float | None:
        """The wall time at which the user was erased last; None: never."""
        ...

    def checkpoint(self) -> bool:
        """Overwrite what older states of the store may still stand anywhere; False: not all could be."""
        ...


class MemoryStore(Protocol):
    """See the module docstring for what every backend guarantees."""

    @property
    def store_id(self) -> str:
        """A UUID made when the store was created."""
        ...

    @property
    def capacities(self) -> Capacities: ...

    # writing
    def apply(
        self,
        changes: Sequence[Change],
        *,
        cause: Cause | None = None,
        logs: Sequence[ScheduleLogForWebItem] = (),
    ) -> Applied:
        """Commit `changes` (in order) and `logs` in one transaction, without a message."""
        ...

    def apply_once(
        self,
        message_key: str,
        changes: Sequence[Change],
        *,
        parent_key: str = "",
        followups: Sequence[Followup] = (),
        logs: Sequence[ScheduleLogForWebItem] = (),
        cause: Cause | None = None,
        guard: Callable[[], None] = lambda: None,
    ) -> Applied:
        """Commit all of it together with the mark of `message_key`, unless the mark is there already.

        Also ticks the outbox row of `message_key`, if it is itself a followup. `guard` is called inside the
        transaction, once no other writer can come in between; what it raises undoes everything. By it a
        worker that stood still notices that its lease is over: the mark of what somebody else has done
        and settled meanwhile may be swept already.
        """
        ...

    def was_applied(self, message_key: str) -> bool:
        """Whether the mark of `message_key` is there: the way to skip the work of a repeat early."""
        ...

    def pending_followups(self, message_key: str | None = None) -> list[Followup]:
        """Outbox rows that are not ticked: of one parent, or all (at start)."""
        ...

    def tick(self, message_keys: Sequence[str]) -> None:
        """The followups of these keys have run (or are dead-lettered) outside `apply_once`."""
        ...

    def sweep(self, settled: Sequence[str], *, queue_id: str = "") -> int:
        """Remove marks and ticked outbox rows of these message keys. Returns how many marks went.

        None go while a queue other than `queue_id` serves the store: it may still deliver one of them.
        """
        ...

    def serve(self, queue: ServingQueue) -> None:
        """Note that tasks of this queue run on the store. What was noted of it before gives way."""
        ...

    def queues(self) -> list[ServingQueue]:
        """The queues that are noted, which are one when all is well."""
        ...

    def retire(self, queue_id: str, *, token: str | None = None) -> bool:
        """Note that this queue serves the store no more; whether it was noted, with that `token` if one is given."""
        ...

    def marks(self, *, limit: int) -> list[tuple[str, str]]:
        """(message_key, parent_key) of the oldest marks, for the housekeeper to hold against the queue."""
        ...

    # reading
    def get(self, item_ids: Sequence[str]) -> list[MemoryItem]:
        """Items in the order asked for, whatever their status but DELETED; ItemNotFound, ItemGone.

        An alias gives the item that it stands for, whose `id` is then not the one asked for.
        """
        ...

    def find(self, wanted: ItemFilter, *, limit: int = 100, cursor: str | None = None) -> Page: ...

    def read(self, cube_id: str) -> AbstractContextManager[ReadView]:
        """A snapshot of one cube. A cube that does not exist reads as empty at seq 0."""
        ...

    def working(self, cube_id: str) -> WorkingSet: ...

    def state(self, cube_id: str, name: str) -> Mapping[str, Any] | None:
        """What `PutState` last stored."""
        ...

    def cubes(self, user_id: str | None = None) -> list[str]:
        """Ids of all cubes, or of those in which the user has live items."""
        ...

    def sizes(self, cube_id: str) -> CubeSizes: ...

    def seq(self, cube_id: str) -> int: ...

    def journal(
        self,
        *,
        cube_id: str | None = None,
        item_id: str | None = None,
        task_id: str | None = None,
        message_key: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[JournalRow]:
        """Newest first; `before` = the `n` to go on from."""
        ...

    def web_logs(
        self,
        *,
        cube_id: str | None = None,
        user_id: str | None = None,
        label: str | None = None,
        trace_id: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[tuple[int, ScheduleLogForWebItem]]:
        """(number, log), newest first."""
        ...

    # vectors
    def vector_fingerprint(self) -> tuple[str, int] | None:
        """(fingerprint, dim) of the stored vectors; None while there are none."""
        ...

    def bind_embedder(self, fingerprint: str, dim: int) -> None:
        """Record the embedder at first use; EmbedderMismatch when the stored vectors are of another."""
        ...

    def without_vector(self, *, limit: int) -> list[MemoryItem]:
        """Live items that have no vector yet (written while there was no embedder, or after `drop_vectors`)."""
        ...

    def put_vectors(self, vectors: Mapping[str, Vectors]) -> None:
        """Set the vectors of items (id -> (dim,)); raises the cubes' seq, writes no journal row."""
        ...

    def drop_vectors(self, fingerprint: str, dim: int) -> None:
        """Forget all vectors and bind to another embedder: the first step of `memos reembed`."""
        ...

    # keeping house
    def describe(self) -> Mapping[str, str]:
        """What an operator is told of the store: backend, place (no password), vectors, durability.

        A text that begins with "!" says what is worse than it could be.
        """
        ...

    def verify(self) -> list[str]:
        """Check integrity, indexes against rows and the journal's chain; one line per fault."""
        ...

    def backup(self, path: Path) -> int:
        """Copy the whole store, as it is at one moment, to a new file; returns its bytes. Writers go on.

        InvalidInput when there is a file of that name already, StoreUnavailable when it cannot be written.
        """
        ...

    def close(self) -> None: ...
