"""What is learned from raw items: which facts are new, which are confirmed, which hold no longer.

`Learner` reads a cube and decides; it writes nothing. The caller commits `Learned.changes` together with
whatever marks its own work, in one transaction; VersionConflict then means that a fact changed
meanwhile: plan again.

* A statement that is stored already, word for word or by the rule of `merge`, confirms the stored item
  (its sources join, its uses rise) and is not stored again, of whatever kind the two are.
* A single-valued fact that a newer one contradicts gets the time until which it held and is archived
  ("superseded by …"), the older of the two, whichever was read first. The raw items behind it stay as
  they were said and are marked as outdated; besides that only their reading state ever changes.
* What an assistant says that only repeats what the cube holds teaches nothing: recall must not feed on
  itself. What the gate of `hygiene` holds or finds too long is left out, with the reason.

The extractor is the place of the model; it may raise, and then nothing is decided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from memos.clock import Clock, utc
from memos.memory.extract import Derivation, Derived, as_item, derive, slot_tag
from memos.memory.hygiene import TOKENS_MAX, Action, check, echo_of
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, ReadState, Source
from memos.memory.merge import SOURCES_MAX
from memos.memory.outdated import SUPERSEDED_BY, last_heir, outdated_turns
from memos.memory.quarantine import inspect
from memos.memory.signature import signature
from memos.memory.slots import fact_of
from memos.memory.store import (
    AddItems,
    Change,
    IndexedItem,
    ItemFilter,
    MemoryStore,
    ReadView,
    SetRead,
    TouchItems,
    UpdateItem,
)
from memos.memory.supersede import Conflict, plan
from memos.retrieval.corrected import corrections_of
from memos.retrieval.keywords import analyse

if TYPE_CHECKING:
    from memos.memory.indexer import Indexer
    from memos.models.base import Vectors

NEAR_MAX = 30  # stored items that a statement is compared with
FACTS_OF_A_SLOT_MAX = 500
REASON_CHARS_MAX = 400
MERGED_FROM = "merged_from"  # in an item's `extra`: the ids of the items that it took the place of

Extractor = Callable[[Sequence[MemoryItem]], Derivation]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A statement that is not stored, and why."""

    text: str
    sources: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Learned:
    """What to commit, and what to tell of it."""

    changes: tuple[Change, ...] = ()
    added: tuple[MemoryItem, ...] = ()
    confirmed: tuple[MemoryItem, ...] = ()  # stored items as they will be
    replaced: tuple[tuple[MemoryItem, str], ...] = ()  # (archived item, id of the one that holds now)
    outdated: Mapping[str, str] = field(default_factory=dict)  # turn -> id of what holds in place of its fact
    left_out: tuple[LeftOut, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)  # raw item id -> what came of it


class Learner:
    """Decides what raw items teach a cube. Thread-safe; keeps nothing between calls."""

    def __init__(
        self,
        store: MemoryStore,
        indexer: Indexer,
        clock: Clock,
        *,
        extract: Extractor = derive,
        new_id: Callable[[], str] = lambda: str(uuid4()),
        tokens_max: int = TOKENS_MAX,
    ) -> None:
        self._store = store
        self._indexer = indexer
        self._clock = clock
        self._extract = extract
        self._new_id = new_id
        self._tokens_max = tokens_max

    def read(self, cube_id: str, raw: Sequence[MemoryItem], *, stored: bool = True) -> Learned:
        """What the raw items of one cube teach, with the change that marks them as read.

        stored: False for items that will be added in the same transaction (they come as read already).
        """
        return self._learn(cube_id, raw, lambda derived: derived, marks=stored, coming=() if stored else raw)

    def preferences(self, cube_id: str, raw: Sequence[MemoryItem], *, stored: bool = True) -> Learned:
        """The preferences alone, each as preference memory. Leaves the reading state as it is.

        stored: False for texts that are no items: the sources are then the turns themselves.
        """
        return self._learn(cube_id, raw, _as_preferences, marks=False, name_items=stored)

    def _learn(
        self,
        cube_id: str,
        raw: Sequence[MemoryItem],
        take: Callable[[Iterable[Derived]], Iterable[Derived]],
        *,
        marks: bool,
        name_items: bool = True,
        coming: Sequence[MemoryItem] = (),
    ) -> Learned:
        work = _Work(now=utc(self._clock.now()))
        by_user: defaultdict[str, list[MemoryItem]] = defaultdict(list)
        with self._store.read(cube_id) as view:
            for place, item in enumerate(raw):
                if item.role == "assistant" and (of_ids := _echoed(view, item, raw[:place])):
                    work.reasons[item.id] = f"it repeats what is known: {', '.join(of_ids[:3])}"
                else:
                    by_user[item.user_id].append(item)
            known = view.participants()
        for user_id, items in by_user.items():
            derivation = self._extract(items)
            for skipped in derivation.skipped:
                work.reasons[skipped.item_id] = skipped.reason
            candidates = [
                self._item(derived, items, work.now, name_items=name_items)
                for derived in take(derivation.derived)
            ]
            # Prepared outside of the view: encoding takes its time.
            indexed = self._indexer.index(candidates, participants=known | _speakers(candidates))
            with self._store.read(cube_id) as view:
                self._settle(view, user_id, indexed, work)
        work.outdated = outdated_turns(self._store, cube_id, work.displaced(), coming=coming)
        return work.learned(raw, marks=marks)

    def _item(
        self, derived: Derived, raw: Sequence[MemoryItem], now: datetime, *, name_items: bool
    ) -> MemoryItem:
        item = as_item(derived, item_id=self._new_id(), now=now, raw=raw)
        origins = [one for one in raw if one.id in set(derived.sources)]
        # It was learned when it was said to us, not when somebody found the time to read it. A fact holds
        # beyond its session: among the turns it would be a neighbour that says everything twice.
        item = replace(item, created_at=min(one.created_at for one in origins), session_id="")
        if name_items:
            return item
        return replace(item, sources=tuple(_turn(source, origins) for source in item.sources))

    def _settle(self, view: ReadView, user_id: str, indexed: Sequence[IndexedItem], work: _Work) -> None:
        """Each statement against what the user's cube holds, then facts against facts."""
        if not indexed:
            return
        mine = view.select(ItemFilter(user_ids=(user_id,), raw=False))
        for one in indexed:
            similar = self._alike(view, one, mine, work)
            vectors = self._vectors(one, similar, view)
            verdict = check(one.item, similar=similar, vectors=vectors, tokens_max=self._tokens_max)
            if verdict.action is Action.ACCEPT:
                work.new[one.item.id] = one
            elif verdict.of_ids:
                work.confirm(next(item for item in similar if item.id == verdict.of_ids[0]), one.item)
            else:
                sources = tuple(source.key for source in one.item.sources)
                if verdict.action is Action.QUARANTINE:
                    held = replace(one.item, status=ItemStatus.QUARANTINED)
                    work.held.append((replace(one, item=held), verdict.reason))
                work.left_out.append(LeftOut(one.item.memory, sources, verdict.reason))
        work.supersede(_facts(view, user_id, work))

    def _alike(self, view: ReadView, one: IndexedItem, mine: frozenset[int], work: _Work) -> list[MemoryItem]:
        """Stored and new items whose words that count are the same: all that can be a duplicate."""
        item = one.item
        same = view.select(ItemFilter(raw=False, content_hashes=(item.content_hash,))) & mine
        terms = {term: float(count) for term, count in one.terms.items()}
        near = view.search_text(terms, limit=NEAR_MAX, allowed=mine) if terms and mine else {}
        stored = [work.current(found) for found in view.items(sorted({*same, *near}))]
        wanted = signature(item.memory).sequence
        fresh = [new.item for new in work.new.values()]
        return [other for other in (*stored, *fresh) if signature(other.memory).sequence == wanted]

    def _vectors(self, one: IndexedItem, similar: Sequence[MemoryItem], view: ReadView) -> dict[str, Vectors]:
        """Vectors of the items to compare; those of stored ones are made again (the model keeps them)."""
        if one.vector is None or not similar:
            return {}
        found = self._indexer.index(similar, participants=view.participants())
        vectors = {other.item.id: other.vector for other in found if other.vector is not None}
        return {**vectors, one.item.id: one.vector}


def _as_preferences(derived: Iterable[Derived]) -> Iterable[Derived]:
    return [replace(one, kind=MemoryKind.PREFERENCE) for one in derived if one.preference is not None]


def _speakers(items: Sequence[MemoryItem]) -> frozenset[str]:
    return frozenset(name for item in items for name in item.participants)


def _turn(source: Source, origins: Sequence[MemoryItem]) -> Source:
    """The turn behind a source that is no stored item; its text, unless that has to stay out of sight."""
    origin = next(one for one in origins if one.id == source.item_id)
    kind = origin.sources[0].type if origin.sources else "chat"
    text = "" if inspect(origin.memory, role=origin.role) else origin.memory
    return replace(source, type=kind, item_id="", content=text)


def _echoed(view: ReadView, item: MemoryItem, before: Sequence[MemoryItem]) -> tuple[str, ...]:
    """The items that an assistant's turn only repeats: stored ones, or turns right before it."""
    terms = {term: float(count) for term, count in analyse(item.memory).items()}
    near = view.search_text(terms, limit=NEAR_MAX) if terms else {}
    own = [one for one in view.items(sorted(near)) if item.id in {source.item_id for source in one.sources}]
    known = {item.id, *(one.id for one in own)}
    held = [one for one in view.items(sorted(near)) if one.id not in known]
    return echo_of(item.memory, [*held, *before[-NEAR_MAX:]])


def _facts(view: ReadView, user_id: str, work: _Work) -> list[MemoryItem]:
    """Stored facts of the slots that the new ones fill."""
    slots = {fact.slot for one in work.new.values() if (fact := fact_of(one.item)) is not None}
    found: dict[str, MemoryItem] = {}
    for slot in sorted(slots):
        nos = view.select(ItemFilter(user_ids=(user_id,), raw=False, tags=(slot_tag(slot),)))
        newest = sorted(nos)[-FACTS_OF_A_SLOT_MAX:]
        found |= {item.id: item for item in view.items(newest)}
    return list(found.values())


@dataclass(slots=True)
class _Work:
    """What one plan has decided so far."""

    now: datetime
    new: dict[str, IndexedItem] = field(default_factory=dict)
    before: dict[str, MemoryItem] = field(default_factory=dict)  # stored items that change, as they are
    after: dict[str, MemoryItem] = field(default_factory=dict)  # and as they will be
    confirmations: dict[str, None] = field(default_factory=dict)
    superseded: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> (by id, reason)
    holding: dict[str, MemoryItem] = field(default_factory=dict)  # those that took over, by id
    held: list[tuple[IndexedItem, str]] = field(default_factory=list)  # for review, and why
    left_out: list[LeftOut] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    outdated: list[UpdateItem] = field(default_factory=list)  # the turns behind what holds no longer
    reasons: dict[str, str] = field(default_factory=dict)

    def current(self, item: MemoryItem) -> MemoryItem:
        """A stored item with what was decided about it."""
        return self.after.get(item.id, item)

    def confirm(self, item: MemoryItem, again: MemoryItem) -> None:
        """`item` was said again: its sources join, and it is known from the earlier of the two on."""
        sources = {source.key: source for source in (*item.sources, *again.sources)}
        times = [at for at in (item.happened_at, again.happened_at) if at is not None]
        joined = replace(
            item,
            sources=tuple(sources.values())[:SOURCES_MAX],
            confidence=max(item.confidence, again.confidence),
            happened_at=min(times) if times else None,
            created_at=min(item.created_at, again.created_at),
        )
        if item.id in self.new:
            self.new[item.id] = replace(self.new[item.id], item=joined)
            return
        self.before.setdefault(item.id, item)
        self.after[item.id] = joined
        self.confirmations[item.id] = None

    def supersede(self, stored: Sequence[MemoryItem]) -> None:
        """Facts that hold no longer, among stored and new ones."""
        if not self.new:
            return
        standing = {item.id: self.current(item) for item in stored}
        standing |= {one.item.id: one.item for one in self.new.values()}
        decided = plan(standing.values(), now=self.now)
        self.conflicts += decided.conflicts
        for one in decided.supersessions:
            item = one.item
            # A clock that steps back must not turn what was said into something to come.
            if one.valid_until <= max(self.now, standing[one.by_id].created_at):
                extra = {**item.extra, SUPERSEDED_BY: one.by_id}
                item = replace(item, status=ItemStatus.ARCHIVED, extra=extra)
            if item.id in self.new:  # it may have taken the place of others itself
                extra = {**self.new[item.id].item.extra, **item.extra}
                item = replace(item, extra=extra)
            self.superseded[item.id] = (one.by_id, one.reason)
            self.holding[one.by_id] = standing[one.by_id]
            if (heir := self.new.get(one.by_id)) is not None:
                earlier = [*heir.item.extra.get(MERGED_FROM, ()), item.id]
                taken = {**heir.item.extra, MERGED_FROM: earlier}
                self.new[one.by_id] = replace(heir, item=replace(heir.item, extra=taken))
            if item.id in self.new:
                self.new[item.id] = replace(self.new[item.id], item=item)
            else:
                self.before.setdefault(item.id, standing[item.id])
                self.after[item.id] = item

    def displaced(self) -> list[tuple[MemoryItem, MemoryItem]]:
        """Each fact that holds no longer, with the one that holds in the end."""
        heirs = {item_id: by_id for item_id, (by_id, _) in self.superseded.items()}
        changed = {**self.after, **{one.item.id: one.item for one in self.new.values()}}
        return [
            (changed[item_id], self.holding[last_heir(item_id, heirs)])
            for item_id in heirs
            if not changed[item_id].live
        ]

    def learned(self, raw: Sequence[MemoryItem], *, marks: bool) -> Learned:
        """Everything as changes."""
        changes: list[Change] = []
        live = tuple(one for one in self.new.values() if one.item.live)
        if live:
            changes.append(AddItems(live, reason="read from raw items"))
        for one in self.new.values():
            if not one.item.live:
                changes.append(AddItems((one,), reason=self._reason(one.item.id)))
        changes += [AddItems((one,), reason=f"quarantined: {reason}") for one, reason in self.held]
        for item_id, item in self.after.items():
            before = self.before[item_id]
            reason = self._reason(item_id) or "said again"
            changes.append(UpdateItem(IndexedItem(item, analyse(item.memory)), before.version, reason))
        # Before the reading state, which takes a turn as the mark leaves it.
        changes += self.outdated
        if self.confirmations:
            changes.append(TouchItems(tuple(self.confirmations), "said again"))
        reasons = self._reasons(raw)
        if marks:
            ids_of: defaultdict[str, list[str]] = defaultdict(list)
            for item_id, reason in reasons.items():
                ids_of[reason].append(item_id)
            changes += [SetRead(tuple(ids), ReadState.DONE, reason) for reason, ids in ids_of.items()]
        return Learned(
            changes=tuple(changes),
            added=tuple(one.item for one in self.new.values()),
            confirmed=tuple(self.after[item_id] for item_id in self.confirmations),
            replaced=tuple(
                (item, self.superseded[item.id][0])
                for item in (*self.after.values(), *(one.item for one in self.new.values()))
                if item.id in self.superseded and not item.live
            ),
            outdated={
                one.indexed.item.id: by[-1]
                for one in self.outdated
                if (by := corrections_of(one.indexed.item))
            },
            left_out=tuple(self.left_out),
            conflicts=tuple(self.conflicts),
            reasons=reasons,
        )

    def _reason(self, item_id: str) -> str:
        if item_id not in self.superseded:
            return ""
        by_id, reason = self.superseded[item_id]
        return f"superseded by {by_id}: {reason}"

    def _reasons(self, raw: Sequence[MemoryItem]) -> dict[str, str]:
        """What came of each raw item."""
        counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        confirmed = [self.after[item_id] for item_id in self.confirmations]
        for place, items in ((0, [one.item for one in self.new.values()]), (1, confirmed)):
            for item in items:
                for source in item.sources:
                    counts[source.item_id][place] += 1
        left = {item_id: one.reason for one in self.left_out for item_id in one.sources}
        reasons = {}
        for item in raw:
            new, again = counts[item.id]
            if new or again:
                reasons[item.id] = f"read: {new} derived, {again} confirmed"
            else:
                why = self.reasons.get(item.id) or left.get(item.id) or "it states no lasting fact"
                reasons[item.id] = f"nothing derived: {why}"[:REASON_CHARS_MAX]
        return reasons
