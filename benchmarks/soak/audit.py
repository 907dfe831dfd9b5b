"""What the store says, held against the clients' ledger: nothing acknowledged lost, nothing there or counted twice,
nobody's data with somebody else, nothing left over. Effects are judged by origin: each turn teaches one fact, so
there is one fact for each turn, of that turn; each use that is counted was one task's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from benchmarks.soak.clients import WORD, Ledger, fact_of, text_of
from memos.memory.item import ItemStatus, MemoryItem, ReadState
from memos.memory.store import ItemFilter, JournalRow
from memos.runtime import Runtime

PAGE = 1_000


@dataclass
class Findings:
    """Counts of what must not be, and examples."""

    acknowledged: int = 0
    stored: int = 0
    facts: int = 0
    uses: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def say(self, what: str, examples: Iterable[object]) -> None:
        found = list(examples)
        if found:
            self.broken[what] += len(found)
            self.examples += [f"{what}: {one}" for one in found[:3]]


def settled(runtime: Runtime) -> bool:
    """Whether no task is left, nothing is due to be read, and nothing chained waits in the store."""
    depth = runtime.queue.depth(lanes=False)
    if depth.remaining or depth.running or runtime.store.pending_followups():
        return False
    return not runtime.store.find(ItemFilter(read=(ReadState.DUE,)), limit=1).total


def left(runtime: Runtime) -> str:
    """What `settled` still waits for."""
    depth = runtime.queue.depth(lanes=False)
    due = runtime.store.find(ItemFilter(read=(ReadState.DUE,)), limit=1).total
    return (
        f"{depth.remaining} waiting, {depth.running} running, {due} turns unread, "
        f"{len(runtime.store.pending_followups())} followups"
    )


def audit(runtime: Runtime, ledger: Ledger) -> Findings:
    """The store against the ledger, for its users. Everything has to be settled."""
    found = Findings()
    for user in sorted(ledger.tried):
        _audit_user(runtime, ledger, user, found)
    letters = runtime.queue.dead.list(limit=100)
    found.say("dead letters", (f"{one.message.label} {one.error}" for one in letters))
    found.say("foreign texts in answers", ledger.foreign)
    found.say("requests refused", ledger.refused)
    found.say("damage in the store", runtime.store.verify())
    return found


def _audit_user(runtime: Runtime, ledger: Ledger, user: str, found: Findings) -> None:
    items = list(_items(runtime, user))
    turns = Counter(one.memory for one in items if one.raw and one.session_id == "s")
    facts = Counter(one.memory for one in items if not one.raw)
    tried, acknowledged = ledger.tried[user], ledger.acknowledged(user)
    found.acknowledged += len(acknowledged)
    found.stored += sum(turns.values())
    found.facts += sum(facts.values())
    found.say(
        "acknowledged and lost", (text_of(user, n) for n in acknowledged if not turns[text_of(user, n)])
    )
    found.say("stored twice", (f"{text} x{n}" for text, n in turns.items() if n > 1))
    found.say("stored and never sent", turns.keys() - {text_of(user, n) for n in tried})
    for number in tried:
        there, learned = turns[text_of(user, number)], facts[fact_of(user, number)]
        if there and not learned:
            found.say("not read", [text_of(user, number)])
        if learned > 1:
            found.say("read twice", [fact_of(user, number)])
    origins = Counter(
        source.item_id for one in items if not one.raw for source in one.sources if source.item_id
    )
    found.say("facts of one turn twice", (turn for turn, n in origins.items() if n > 1))
    foreign = [one.memory for one in items for owner, _ in WORD.findall(one.memory) if owner != user]
    found.say("foreign texts stored", foreign)
    _audit_journal(runtime, user, items, found)


def _audit_journal(runtime: Runtime, user: str, items: list[MemoryItem], found: Findings) -> None:
    touched: Counter[str] = Counter()
    by_task: Counter[tuple[str, str]] = Counter()
    read: Counter[str] = Counter()
    for row in _journal(runtime, user):
        if row.op == "touch":
            touched[row.item_id] += 1
            by_task[row.cause.message_key, row.item_id] += 1
        if row.op == "read" and (row.after or {}).get("read") == "done":
            read[row.item_id] += 1
    counted = {one.id: one.use_count for one in items if one.use_count}
    found.uses += sum(touched.values())
    found.say("uses counted twice", (key for key, n in by_task.items() if n > 1))
    found.say("use counts that are not the tasks'", (one for one in counted if counted[one] != touched[one]))
    found.say("turns read twice", (one for one, n in read.items() if n > 1))


def _items(runtime: Runtime, user: str) -> Iterator[MemoryItem]:
    kept = tuple(status for status in ItemStatus if status is not ItemStatus.DELETED)
    cursor: str | None = None
    while True:
        page = runtime.store.find(ItemFilter(cube_ids=(user,), statuses=kept), limit=PAGE, cursor=cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _journal(runtime: Runtime, cube_id: str) -> Iterator[JournalRow]:
    before: int | None = None
    while True:
        rows = runtime.store.journal(cube_id=cube_id, limit=PAGE, before=before)
        yield from rows
        if len(rows) < PAGE:
            return
        before = rows[-1].n
