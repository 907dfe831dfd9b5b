"""Which turns say what no longer holds: those behind a fact that a newer one displaced. Reads, never writes.

Such a turn stays as it was said, live and recallable; `extra["corrected_by"]` of it names the fact that
holds, by which recall puts that one first (`memos.retrieval.corrected`). With a displaced fact go the
facts that it had displaced itself, as far as their value is another than the one that holds now. A turn
that the newer fact was read from as well says what holds, and is left alone. Of one that says more than one
thing the clause that states the displaced fact is marked (`extra["outdated_clauses"]`), since what else it says holds
still; where rules find no such clause it is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from memos.memory.extract import slot_tag, speaker_of
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.sentences import clauses, opened, sentences
from memos.memory.slots import fact_of, facts
from memos.memory.store import IndexedItem, ItemFilter, MemoryStore, UpdateItem
from memos.retrieval.corrected import (
    CORRECTED_BY,
    CORRECTS,
    OUTDATED_CLAUSES,
    corrections_of,
    outdated_clauses,
)
from memos.retrieval.keywords import analyse

SUPERSEDED_BY = "superseded_by"  # in an item's `extra`: the item that holds in its place
PAST_MAX = 500  # archived facts of a slot that are looked at, the newest
TURNS_MAX = 500  # turns behind one displaced fact and those before it


def outdated_turns(
    store: MemoryStore,
    cube_id: str,
    displaced: Iterable[tuple[MemoryItem, MemoryItem]],
    *,
    coming: Sequence[MemoryItem] = (),
) -> list[UpdateItem]:
    """The marks on the turns behind each (displaced fact, fact that holds), one for each turn.

    coming: raw items that the same transaction adds, before these changes.
    """
    before: dict[str, MemoryItem] = {}
    after: dict[str, MemoryItem] = {}
    for fact, heir in displaced:
        gone = (fact, *_displaced_before(store, cube_id, fact, heir))
        ids = _origins(gone) - _origins((heir,))
        for turn in (*_stored(store, cube_id, ids), *(one for one in coming if one.id in ids)):
            current = after.get(turn.id, turn)
            marked = _marked(current, gone, heir) if _says_more(turn) else _corrected(current, heir)
            if marked != current:
                before.setdefault(turn.id, turn)
                after[turn.id] = marked
    return [
        UpdateItem(
            IndexedItem(item, analyse(item.memory)),
            before[item_id].version,
            f"outdated: {', '.join(holding(item))} holds",
        )
        for item_id, item in after.items()
    ]


def holding(turn: MemoryItem) -> tuple[str, ...]:
    """The ids of what holds in place of what the turn says, or of a clause of it."""
    return tuple(dict.fromkeys([*corrections_of(turn), *(one.by for one in outdated_clauses(turn))]))


def _corrected(turn: MemoryItem, heir: MemoryItem) -> MemoryItem:
    by = list(dict.fromkeys([*corrections_of(turn), heir.id]))
    same = by == list(corrections_of(turn))
    return turn if same else replace(turn, extra={**turn.extra, CORRECTED_BY: by})


def _marked(turn: MemoryItem, gone: Iterable[MemoryItem], heir: MemoryItem) -> MemoryItem:
    """The turn with the clauses marked that state a displaced fact; the newest of what displaced one counts."""
    told = {(fact.identity, fact.folded_value) for item in gone if (fact := fact_of(item)) is not None}
    marks = {one.text: one.by for one in outdated_clauses(turn)}
    for sentence in sentences(turn.memory):
        for clause in clauses(sentence):
            stated = facts(opened(clause), speaker_of(turn), chinese=sentence.chinese)
            if clause in turn.memory and any(
                (one.fact.identity, one.fact.folded_value) in told for one in stated
            ):
                marks[clause] = heir.id
    kept = [{"text": text, "by": by} for text, by in marks.items()]
    return replace(turn, extra={**turn.extra, OUTDATED_CLAUSES: kept}) if kept else turn


def last_heir(item_id: str, heirs: Mapping[str, str]) -> str:
    """The item at the end of the line of those that took over from `item_id`."""
    seen = {item_id}
    while (heir := heirs.get(item_id)) is not None and heir not in seen:
        seen.add(heir)
        item_id = heir
    return item_id


def _says_more(turn: MemoryItem) -> bool:
    """Whether the turn makes several statements: behind what displaced one of them none may be put."""
    said = [clause for sentence in sentences(turn.memory) for clause in clauses(sentence)]
    return sum(bool(analyse(clause)) for clause in said) > 1


def _origins(items: Iterable[MemoryItem]) -> set[str]:
    """The ids of the turns behind the facts, and of what feedback had them correct."""
    found: set[str] = set()
    for item in items:
        found.update(source.item_id for source in item.sources if source.item_id)
        found.update(str(one) for one in item.extra.get(CORRECTS, ()))
    return found


def _displaced_before(
    store: MemoryStore, cube_id: str, gone: MemoryItem, heir: MemoryItem
) -> list[MemoryItem]:
    """The archived facts of the same slot that gave way to `gone`, or to one that did."""
    fact, holds = fact_of(gone), fact_of(heir)
    if fact is None or holds is None:
        return []
    wanted = ItemFilter(
        cube_ids=(cube_id,),
        user_ids=(gone.user_id,),
        raw=False,
        statuses=(ItemStatus.ARCHIVED,),
        tags=(slot_tag(fact.slot),),
    )
    past = store.find(wanted, limit=PAST_MAX).items
    line = {gone.id}
    # Ends: every round finds one that it had not, up to all of them.
    while more := {one.id for one in past if one.extra.get(SUPERSEDED_BY) in line} - line:
        line |= more
    return [
        item
        for item in past
        if item.id in line
        and item.id != gone.id
        and (told := fact_of(item)) is not None
        and told.identity == fact.identity
        and (told.folded_value, told.ended) != (holds.folded_value, holds.ended)
    ]


def _stored(store: MemoryStore, cube_id: str, ids: set[str]) -> Sequence[MemoryItem]:
    """The live turns of these ids."""
    if not ids:
        return ()
    wanted = ItemFilter(cube_ids=(cube_id,), raw=True, ids=tuple(sorted(ids)[:TURNS_MAX]))
    return store.find(wanted, limit=TURNS_MAX).items
