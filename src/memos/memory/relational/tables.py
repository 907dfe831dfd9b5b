"""The port below the rules: what a transaction can ask of its tables. `sqlite` and `postgres` fulfil it.

An object of these classes lives as long as the transaction it was made for. Rows come and go as values
(`Stored`, `CubeRow`, `Place` …), numbers are row numbers (`no`). Nothing here decides anything.

`shared_writes` says whether other writers may be at work on other cubes at the same time (PostgreSQL) or
whether a writing transaction is alone (SQLite). Where it is true, `cubes.hold` waits for the cube's row, and
what is read of a held cube stays as it is until the transaction ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from memos.memory.activation.index import Block, ChatReuse, DoomPrefixes, KeptPrefix, PutPrefix
from memos.memory.item import MemoryItem, WorkingSet
from memos.memory.relational.cubes import CubeRow
from memos.memory.relational.places import Place
from memos.memory.relational.rows import Stored
from memos.memory.store import Facet, Followup, ItemFilter, JournalRow, Page

if TYPE_CHECKING:
    from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem

ItemRow = tuple[Any, ...]  # as `rows.item_row` makes it


class MetaTable(Protocol):
    """Named values of the whole store."""

    def get(self, name: str) -> str | None: ...

    def put(self, name: str, value: str) -> None: ...

    def starting_with(self, prefix: str) -> dict[str, str]: ...

    def drop(self, name: str) -> bool:
        """Whether there was such a value."""
        ...


class CubeTable(Protocol):
    """One row per cube."""

    def find(self, cube_id: str) -> CubeRow | None: ...

    def hold(self, cube_id: str) -> CubeRow | None:
        """The row, for a transaction that will change it: nobody else does before it ends."""
        ...

    def share(self) -> None:
        """Wait for a transaction that holds all cubes; another one waits for this one."""
        ...

    def hold_all(self) -> None:
        """Let no other transaction change any cube, or make one, before this one ends."""
        ...

    def insert(self, cube_id: str, chain: bytes) -> CubeRow:
        """A new, empty cube at seq 0; where another transaction was first, its row."""
        ...

    def save(self, cube: CubeRow) -> None: ...

    def all(self) -> list[CubeRow]:
        """In the order in which they were made."""
        ...

    def ids(self, user_id: str | None) -> list[str]:
        """Of all, or of those in which the user has live items."""
        ...

    def places_taken(self, cube_no: int) -> int: ...


class ItemTable(Protocol):
    """The items and the ids that stand for them."""

    def numbers(self, count: int) -> Sequence[int]:
        """Numbers for new items, higher than all in the cubes that this transaction holds."""
        ...

    def insert(self, rows: Sequence[ItemRow]) -> None: ...

    def update(self, row: ItemRow) -> None: ...

    def by_id(self, item_ids: Sequence[str]) -> dict[str, Stored]:
        """id -> item, of those that are there, whatever their status."""
        ...

    def by_no(self, nos: Sequence[int]) -> list[Stored]:
        """The items of the numbers that are there, in the order asked for."""
        ...

    def known(self, item_ids: Sequence[str]) -> list[str]:
        """Those of the ids that were ever stored, tombstones included."""
        ...

    def strays(self, cube_no: int) -> list[int]:
        """Live items of kind WORKING that stand in no working set."""
        ...

    def least_valuable(
        self, cube_no: int, kind: str, *, below: int | None, placed: bool, limit: int
    ) -> list[int]:
        """Live items, the least valuable first; with numbers under `below`; `placed`: those in working
        memory too."""
        ...

    def origins(self, cube_no: int) -> Iterator[tuple[int, str | None, str]]:
        """(number, item id, type) of each source of the derived items that are not deleted."""
        ...

    def without_vector(self, limit: int) -> list[MemoryItem]:
        """Live ones, oldest first."""
        ...

    def forget_vectors(self) -> None:
        """Take every vector away and raise the `seq` of the cubes that had some."""
        ...

    def any_vector(self) -> bool: ...

    def find(self, wanted: ItemFilter, *, limit: int, cursor: str | None) -> Page: ...

    def select_live(self, wanted: ItemFilter, *, cube_no: int, cube_id: str) -> frozenset[int]: ...

    def alias_targets(self, ids: Sequence[str]) -> dict[str, int]:
        """alias -> number of the item that it stands for."""
        ...

    def aliases_of(self, nos: Sequence[int]) -> list[str]:
        """The aliases that stand for these items, in the order of their names."""
        ...

    def put_alias(self, alias: str, no: int) -> None: ...

    def move_aliases(self, old_no: int, new_no: int) -> None: ...

    def drop_alias(self, alias: str) -> None: ...


class IndexTables(Protocol):
    """Terms, names and vectors of items."""

    def put_entries(self, cube_no: int, items: Sequence[Stored]) -> None:
        """Put items of one cube into the indexes of terms and names, as their status asks."""
        ...

    def take_entries(self, cube_no: int, stored: Stored) -> None:
        """Take an item, as it stands in the store, out of the indexes of terms and names."""
        ...

    def put_vectors(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        """Set vectors: (cube number, item number, little-endian float32)."""
        ...

    def drop_vector(self, cube_no: int, no: int) -> None: ...


class WorkingTable(Protocol):
    """The places of working memory and the monitors' state."""

    def places(self, cube_no: int) -> list[Place]:
        """Best first."""
        ...

    def holds(self, cube_no: int, item_no: int) -> bool: ...

    def write(self, cube_no: int, places: Sequence[Place]) -> None:
        """Replace all places of the cube."""
        ...

    def read(self, cube_id: str, cube: CubeRow | None) -> WorkingSet: ...

    def put_state(self, cube_no: int, name: str, value: str) -> None: ...

    def state(self, cube_id: str, name: str) -> str | None: ...


class JournalTable(Protocol):
    """The journal; rows as `journal.JournalWriter` makes them."""

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None: ...

    def read(
        self,
        *,
        cube_id: str | None,
        item_id: str | None,
        task_id: str | None,
        message_key: str | None,
        limit: int,
        before: int | None,
    ) -> list[JournalRow]: ...

    def chain(self, cube_no: int) -> Iterator[Sequence[Any]]:
        """Every row of a cube as `journal.broken_links` reads it, oldest first."""
        ...


class OutboxTables(Protocol):
    """Marks and followups."""

    def put_mark(self, message_key: str, parent_key: str, now: int) -> bool:
        """Set the mark; False when it was there already. Nobody else can set it before this ends."""
        ...

    def has_mark(self, message_key: str) -> bool: ...

    def oldest_marks(self, limit: int) -> list[tuple[str, str]]: ...

    def put_followups(self, followups: Sequence[Followup], now: int) -> None: ...

    def pending(self, message_key: str | None = None) -> list[Followup]: ...

    def tick(self, message_keys: Sequence[str]) -> None: ...

    def sweep(self, settled: Sequence[str]) -> int: ...


class WebLogTable(Protocol):
    """Web logs: bounded, newest first."""

    def put(self, logs: Sequence[ScheduleLogForWebItem], *, kept_max: int) -> int:
        """Add logs and let the oldest go that are over the bound; returns how many went."""
        ...

    def read(
        self,
        *,
        cube_id: str | None,
        user_id: str | None,
        label: str | None,
        trace_id: str | None,
        limit: int,
        before: int | None,
    ) -> list[tuple[int, ScheduleLogForWebItem]]: ...


class ErasingTables(Protocol):
    """What erasing a user needs beyond the rest."""

    def texts_of(self, user_id: str, *, chars_min: int, limit: int) -> list[str]: ...

    def own_cubes(self, user_id: str) -> list[int]:
        """Cubes that hold items of this user alone, and the empty one that bears the user's name."""
        ...

    def living(self, user_id: str) -> list[str]: ...

    def every(self, user_id: str) -> set[str]: ...

    def redact(self, user_id: str, own: Sequence[int], now: int) -> int: ...

    def drop_logs(self, user_id: str, own: Sequence[int], every: set[str]) -> int: ...

    def drop_followups(self, user_id: str) -> int: ...

    def drop_states(self, own: Sequence[int], names: Sequence[str]) -> int: ...

    def rename(self, user_id: str, name: str) -> None: ...


Posting = tuple[int, int, int]  # item number, count of the term, terms of the item in all


class Spot(NamedTuple):
    """Where an item stands in its session."""

    no: int
    session_id: str
    position: int


class RecallTables(Protocol):
    """What recall reads: one cube, live items only."""

    def changed(self, cube_no: int, seq: int) -> list[tuple[int, int]]:
        """(number, seq) of items that changed after `seq`, in order."""
        ...

    def facets(self, cube_no: int, nos: Sequence[int]) -> list[tuple[int, Facet]]:
        """(seq of the row, facet)."""
        ...

    def postings(
        self, cube_no: int, terms: Sequence[str], nos: Sequence[int] | None = None
    ) -> dict[str, list[Posting]]:
        """Of each term the items that bear it, or those of `nos` that do."""
        ...

    def bearing(self, cube_no: int, terms: Sequence[str]) -> dict[str, int]:
        """How many items bear each term."""
        ...

    def vectors(self, cube_no: int, *, after: int | None = None) -> Iterable[tuple[int, bytes]]:
        """(number, little-endian float32) of all, or of those that changed after that `seq`, by number."""
        ...

    def vectors_of(self, cube_no: int, nos: Sequence[int]) -> list[tuple[int, bytes]]:
        """The same of these live items alone; those without a vector are left out."""
        ...

    def vectors_of_live(self, cube_no: int, nos: Sequence[int]) -> list[tuple[int, bytes]]:
        """The same of items of the cube that are known to be live in this snapshot: nobody looks again."""
        ...

    def nearest(
        self, cube_no: int, vector: bytes, *, live: int, limit: int, allowed: frozenset[int] | None
    ) -> list[tuple[int, bytes]] | None:
        """Candidates for the nearest by an index of the database; None: compare with every vector."""
        ...

    def linked(self, cube_no: int, names: Sequence[str]) -> dict[str, list[int]]:
        """Of each (folded) name the items that are linked to it; names that nobody bears are left out."""
        ...

    def beside(
        self, cube_no: int, spots: Sequence[Spot], distance: int
    ) -> dict[int, tuple[list[int], list[int]]]:
        """Of each spot those before and those after it in its session, nearest first."""
        ...

    def items(self, cube_no: int, cube_id: str, nos: Sequence[int]) -> dict[int, MemoryItem]: ...

    def texts(self, cube_no: int, nos: Sequence[int]) -> dict[int, str]: ...

    def participants(self, cube_no: int) -> frozenset[str]: ...


class VerifyTables(Protocol):
    """What `verify` counts and looks up."""

    def integrity(self) -> Iterator[str]: ...

    def counts(self, cube_no: int) -> list[int]:
        """Live items by kind (long-term, user, preference, working), archived ones, terms, highest seq."""
        ...

    def badly_placed(self, cube_no: int) -> list[str]:
        """Ids in working memory that are not live items of the cube."""
        ...

    def batch(self, cube_no: int, after: int, limit: int) -> list[int]:
        """Item numbers of the cube above `after`."""
        ...

    def has_mention(self, cube_no: int, sort: int, name: str, stored: Stored) -> bool: ...

    def terms_agree(self, cube_no: int, stored: Stored) -> bool: ...

    def vector_bytes(self, cube_no: int, no: int) -> int | None: ...

    def index_sizes(self, cube_no: int) -> tuple[int, int, int]:
        """(postings, sum of their counts, mentions) of the cube."""
        ...


class CopyTables(Protocol):
    """Whole tables, for `transfer`: rows with their numbers, flags as booleans."""

    def dump(self, table: str) -> Iterator[tuple[Any, ...]]: ...

    def load(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None: ...

    def is_empty(self) -> bool:
        """Whether nothing was ever stored."""
        ...

    def restart_numbers(self) -> None:
        """New rows get numbers above those that were loaded."""
        ...


class BlockTables(Protocol):
    """Blocks and kept prefixes (`memos.memory.activation.index`). Items that change leave them by a trigger."""

    def find(self, namespace: str) -> Block | None: ...

    def all(self, cube_id: str | None, user_id: str | None) -> list[Block]:
        """Used last first."""
        ...

    def put(self, block: Block, now: int) -> Block:
        """Raises VersionConflict."""
        ...

    def note_chat(self, namespace: str, outcome: ChatReuse, now: int) -> None: ...

    def prefixes(self, namespaces: Sequence[str] | None, *, doomed: bool) -> list[KeptPrefix]:
        """Newest first."""
        ...

    def put_prefix(self, change: PutPrefix, now: int) -> None: ...

    def doom(self, change: DoomPrefixes) -> None: ...

    def forget(self, backend: str, ids: Iterable[str]) -> int: ...

    def erase_user(self, user_id: str) -> dict[str, int]:
        """The user's own blocks go; prefixes of the user, or with memories of the user in them, are doomed."""
        ...


class Tables(Protocol):
    """All tables in one transaction."""

    shared_writes: bool
    meta: MetaTable
    cubes: CubeTable
    items: ItemTable
    indexes: IndexTables
    working: WorkingTable
    journal: JournalTable
    outbox: OutboxTables
    logs: WebLogTable
    erasing: ErasingTables
    recall: RecallTables
    checks: VerifyTables
    copying: CopyTables
    blocks: BlockTables


class Database(Protocol):
    """Transactions. `cube_ids`: the cubes that the block is about, where it is about some alone (None: any);
    a database that can fence others off does so."""

    name: str  # for messages: a path, an address without password

    def write(self, *, alone: bool = False) -> AbstractContextManager[Tables]:
        """One write transaction: committed when the block has ended, rolled back when it raises.

        `alone`: for long blocks, with which no other thread's short one should have to wait for its COMMIT.
        """
        ...

    def read(self, cube_ids: Sequence[str] | None = None) -> AbstractContextManager[Tables]:
        """One snapshot for a block that is the store's own."""
        ...

    def snapshot(self, cube_id: str) -> AbstractContextManager[Tables]:
        """One snapshot for a caller's block, whose own errors pass as they are."""
        ...

    def translating(self) -> AbstractContextManager[None]:
        """Vendor errors leave the block as `StoreError`."""
        ...

    def checkpoint(self) -> bool: ...

    def close(self) -> None: ...


def by_term(terms: Iterable[str], rows: Iterable[tuple[str, int, int, int]]) -> dict[str, list[Posting]]:
    """Rows (term, number, count, length) as `RecallTables.postings` gives them."""
    found: dict[str, list[Posting]] = {term: [] for term in terms}
    for term, no, count, length in rows:
        found[term].append((no, count, length))
    return found
