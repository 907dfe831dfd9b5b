"""`Draft`: what one piece of feedback is going to change, gathered correction by correction.

Each stored item is changed at most once, retiring it outranks everything else; `changes()` gives all of
it for one transaction, in an order in which every item exists before something refers to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import (
    handed_over,
    indexed,
    present,
    read_from,
    retired,
    rewritten,
    same_slots,
    taken_over_by,
    turns_of,
)
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.extract import as_item
from memos.memory.feedback import Correction
from memos.memory.hygiene import Action, check
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, ReadState, Source
from memos.memory.slots import fact_of
from memos.memory.store import AddItems, Change, ItemFilter, TouchItems
from memos.memory.summary import stale_summaries
from memos.memory.supersede import plan
from memos.retrieval.corrected import CORRECTED_BY, CORRECTS, corrections_of
from memos.retrieval.keywords import analyse

CONFIDENCE_STEP = 0.1
QUOTE_CHARS_MAX = 2_000


class Draft:
    """See the module docstring. `items` are the memories that the corrections may name."""

    def __init__(
        self,
        ctx: HandlerContext,
        message: ScheduleMessageItem,
        said: str,
        *,
        at: datetime,
        now: datetime,
        items: Sequence[MemoryItem],
    ) -> None:
        self._ctx = ctx
        self._message = message
        self._said = said
        self._at = at
        self._now = now
        self._items = {item.id: item for item in items}
        self._new: dict[str, tuple[MemoryItem, str]] = {}  # with the reason
        self._retired: dict[str, tuple[MemoryItem, str, str]] = {}  # item, reason, by id
        self._rewritten: dict[str, tuple[MemoryItem, MemoryItem, str]] = {}  # before, after, reason
        self._heirs: dict[str, str] = {}
        self.added: list[MemoryItem] = []
        self.updated: list[tuple[MemoryItem, str]] = []
        self.archived: list[tuple[MemoryItem, str]] = []
        self.touched: list[str] = []
        self.remarks: list[str] = []

    # -- the four corrections --------------------------------------------------------------------------

    def add(self, one: Correction) -> None:
        """`new_text` beside what is known; known already, it is one use more."""
        new = self._item(one, ())
        if new is None:
            return
        contradicted = self._contradicted(new)
        if contradicted:
            self._take_over(new, contradicted, one.reason)
            self._mark([], contradicted, new, one.reason)
        elif new.id in self._new:
            self.added.append(new)

    def correct(self, one: Correction) -> None:
        """`new_text` in the place of the targets and of what else says as they do."""
        targets = self._targets(one)
        new = self._item(one, targets) if targets else None
        if new is None:
            return
        raw = [item for item in targets if item.raw]
        wrong = {item.id: item for item in targets if not item.raw and item.id != new.id}
        wrong |= {item.id: item for item in self._says_otherwise(raw, new) if item.id != new.id}
        wrong |= {item.id: item for item in self._contradicted(new)}
        self._take_over(new, list(wrong.values()), one.reason)
        self._mark(raw, list(wrong.values()), new, one.reason)

    def retract(self, one: Correction) -> None:
        """The targets, what was read from them and the turns they were read from leave recall."""
        store = self._ctx.services.store
        targets = self._targets(one)
        derived = [item for item in targets if not item.raw]
        turns = {item.id: item for item in (*targets, *turns_of(store, derived)) if item.raw}
        readings = read_from(store, self._message.mem_cube_id, [item for item in targets if item.raw])
        for item in (*targets, *turns.values(), *readings):
            self._retire(item, f"retracted: {one.reason}", "")

    def reinforce(self, one: Correction) -> None:
        """The targets were right."""
        for item in self._targets(one):
            self._confirm(item, one.reason)

    # -- what follows from them ------------------------------------------------------------------------

    def _targets(self, one: Correction) -> list[MemoryItem]:
        return [self._items[target] for target in one.target_ids if target in self._items]

    def _item(self, one: Correction, targets: Sequence[MemoryItem]) -> MemoryItem | None:
        """The item that says `new_text`: a new one, or the one that says so already. None: it may not be kept."""
        item = self._written(one, targets)
        cube_id = self._message.mem_cube_id
        same = ItemFilter(
            cube_ids=(cube_id,), user_ids=(item.user_id,), raw=False, content_hashes=(item.content_hash,)
        )
        known = [found for found in self._ctx.services.store.find(same, limit=1).items if found.live]
        if known:
            self._confirm(known[0], one.reason)
            return known[0]
        twin = next((new for new, _ in self._new.values() if new.content_hash == item.content_hash), None)
        if twin is not None:
            return twin
        verdict = check(item)
        if verdict.action is Action.TOO_LONG:
            self.remarks.append(verdict.reason)
            return None
        if verdict.action is Action.QUARANTINE:
            self._new[item.id] = (replace(item, status=ItemStatus.QUARANTINED), verdict.reason)
            self.remarks.append(f"held for review: {verdict.reason}")
            return None
        self._new[item.id] = (item, one.reason)
        return item

    def _written(self, one: Correction, targets: Sequence[MemoryItem]) -> MemoryItem:
        message, first = self._message, targets[0] if targets else None
        source = Source(
            type="feedback",
            role="user",
            message_id=message.item_id,
            content=self._said[:QUOTE_CHARS_MAX],
            at=self._at,
        )
        item = MemoryItem(
            id=str(uuid4()),
            cube_id=message.mem_cube_id,
            user_id=first.user_id if first else message.user_id,
            memory=one.new_text,
            kind=first.kind if first else MemoryKind.LONG_TERM,
            raw=False,
            read=ReadState.NONE,
            participants=first.participants if first else (),
            role="user",
            # Beside what it corrects, so that whoever comes across that comes across this.
            session_id=first.session_id if first else message.session_id,
            scenario=first.scenario if first else "",
            position=first.position if first else 0,
            sources=(source,),
            created_at=self._now,
            updated_at=self._now,
            happened_at=self._at,
        )
        if one.derived is not None and one.derived.text == one.new_text:
            # As reading would make it, with the feedback for its turn.
            turn = replace(item, id=one.derived.sources[0], raw=True)
            made = as_item(one.derived, item_id=item.id, now=self._now, raw=[turn])
            happened = one.derived.happened_at or self._at
            item = replace(made, sources=(source,), confidence=1.0, happened_at=happened)
        elif item.kind is MemoryKind.WORKING:
            item = replace(item, kind=MemoryKind.LONG_TERM)
        corrected = [target.id for target in targets]
        return replace(item, extra={**item.extra, CORRECTS: corrected}) if corrected else item

    def _contradicted(self, new: MemoryItem) -> list[MemoryItem]:
        """Stored facts that `new` displaces, being the later one."""
        if fact_of(new) is None:
            return []
        stored = same_slots(self._ctx.services.store, self._message.mem_cube_id, [new])
        others = [item for item in stored if item.id != new.id and item.id not in self._retired]
        decided = plan([new, *others], now=self._now)
        return [one.item for one in decided.supersessions if one.by_id == new.id]

    def _says_otherwise(self, raw: Sequence[MemoryItem], new: MemoryItem) -> list[MemoryItem]:
        """What was read from the turns and holds a word of theirs that the correction leaves out."""
        if not raw:
            return []
        corrected = frozenset(analyse(new.memory))
        said = frozenset(term for item in raw for term in analyse(item.memory))
        left_out = said - corrected
        found = read_from(self._ctx.services.store, self._message.mem_cube_id, raw)
        slots = {fact.identity for item in (new,) if (fact := fact_of(item)) is not None}
        return [
            item
            for item in found
            if (
                fact.identity in slots
                if slots and (fact := fact_of(item)) is not None
                else not slots and left_out & frozenset(analyse(item.memory))
            )
        ]

    def _take_over(self, new: MemoryItem, wrong: Sequence[MemoryItem], reason: str) -> None:
        for item in wrong:
            self._retire(self._items.get(item.id, item), reason, new.id)
        before = "\n".join(item.memory for item in wrong) or "\n".join(
            self._items[one].memory for one in new.extra.get(CORRECTS, ()) if one in self._items
        )
        self.updated.append((new, before))

    def _mark(
        self, raw: Sequence[MemoryItem], wrong: Sequence[MemoryItem], new: MemoryItem, reason: str
    ) -> None:
        """The turns behind what is wrong stay as they were said; recall puts `new` before them."""
        store = self._ctx.services.store
        # What an earlier correction corrected, this one corrects too; what an earlier value displaced has
        # given way to this one as well.
        earlier = [one for item in wrong for one in item.extra.get(CORRECTS, ())]
        displaced = present(store, [one for item in wrong for one in taken_over_by(item)])
        turns = [*raw, *turns_of(store, [*wrong, *displaced])]
        turns += [item for item in present(store, earlier) if item.raw and item.live]
        marked = []
        for turn in {one.id: one for one in turns}.values():
            if turn.id in self._retired:
                continue
            before, current, _ = self._rewritten.get(turn.id, (turn, turn, ""))
            by = [*corrections_of(current), new.id]
            after = replace(current, extra={**current.extra, CORRECTED_BY: list(dict.fromkeys(by))})
            self._rewritten[turn.id] = (before, after, f"corrected: {reason}")
            self._heirs[turn.id] = new.id
            marked.append(turn.id)
        if marked and new.id in self._new:
            item, why = self._new[new.id]
            corrects = list(dict.fromkeys([*item.extra.get(CORRECTS, ()), *marked]))
            self._new[new.id] = (replace(item, extra={**item.extra, CORRECTS: corrects}), why)

    def _retire(self, item: MemoryItem, reason: str, by_id: str) -> None:
        if item.id in self._retired or item.id in self._new:
            return
        self._rewritten.pop(item.id, None)
        self._retired[item.id] = (item, reason, by_id)
        self.archived.append((item, reason))
        if by_id:
            self._heirs[item.id] = by_id

    def _confirm(self, item: MemoryItem, reason: str) -> None:
        if item.id in self._retired or item.id in self.touched:
            return
        self.touched.append(item.id)
        if not item.raw and item.confidence < 1.0:
            surer = replace(item, confidence=min(1.0, round(item.confidence + CONFIDENCE_STEP, 6)))
            self._rewritten[item.id] = (item, surer, f"confirmed: {reason}")

    def changes(self) -> list[Change]:
        """All of it. An item whose text stays keeps its vector."""
        ctx, cube_id = self._ctx, self._message.mem_cube_id
        changes: list[Change] = []
        made = indexed(ctx, cube_id, [item for item, _ in self._new.values()]) if self._new else []
        for one in made:
            changes.append(AddItems((one,), reason=f"feedback: {self._new[one.item.id][1]}"))
        working = ctx.services.store.working(cube_id)
        changes += handed_over(working, self._heirs, "corrects what stood here")
        for item, reason, by_id in self._retired.values():
            until = self._until(item) if by_id else None
            changes.append(retired(item, f"feedback: {reason}", by_id=by_id, valid_until=until))
        for before, after, reason in self._rewritten.values():
            changes.append(rewritten(before, after, f"feedback: {reason}"))
        stale = stale_summaries(ctx.services.store, cube_id, self._retired)
        changes += [one for one in stale if one.indexed.item.id not in self._rewritten]
        touched = tuple(one for one in self.touched if one not in self._retired)
        if touched:
            changes.append(TouchItems(touched, "feedback: confirmed"))
        return changes

    def _until(self, item: MemoryItem) -> datetime:
        """It held until the correction, never before it began to."""
        return max(self._at, item.happened_at or self._at)
