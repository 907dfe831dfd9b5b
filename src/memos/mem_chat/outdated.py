"""How a memory of which a clause is outdated is told beside what holds: marked in a prompt, left out of a quotation.

A clause whose successor has gone (the user moved back) stands as it was said.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from memos.memory.item import MemoryItem
from memos.memory.lookup import items_by_id
from memos.memory.sentences import Mood, clauses, is_chinese, sentences
from memos.memory.store import MemoryStore
from memos.retrieval.corrected import outdated_clauses
from memos.retrieval.request import Hit

MARKS = {False: " [outdated]", True: "【已过时】"}  # by whether the clause is Chinese


def live_successors(store: MemoryStore, hits: Sequence[Hit]) -> frozenset[str]:
    """The ids, among those that outdated clauses of the hits name, of what holds. Raises StoreError."""
    ids = {one.by for hit in hits for one in outdated_clauses(hit.item)}
    if not ids:
        return frozenset()
    cubes = tuple({hit.item.cube_id for hit in hits})
    return frozenset(item.id for item in items_by_id(store, sorted(ids), cube_ids=cubes) if item.live)


def with_marks(hits: Sequence[Hit], successors: Collection[str]) -> tuple[Hit, ...]:
    """The hits with a mark behind each clause that one of `successors` takes the place of."""
    return tuple(_marked(hit, successors) for hit in hits)


def still_holding(item: MemoryItem, successors: Collection[str]) -> str:
    """What the memory says without the clauses that one of `successors` takes the place of; "" for nothing."""
    gone = {one.text for one in outdated_clauses(item) if one.by in successors}
    if not gone:
        return item.memory
    kept = []
    for sentence in sentences(item.memory):
        said = [clause for clause in clauses(sentence) if clause not in gone]
        if said:
            comma, stop, asks = ("，", "。", "？") if sentence.chinese else (", ", ".", "?")
            kept.append(comma.join(said) + (asks if sentence.mood is Mood.QUESTION else stop))
    return " ".join(kept)


def _marked(hit: Hit, successors: Collection[str]) -> Hit:
    text = hit.item.memory
    for one in outdated_clauses(hit.item):
        if one.by in successors:
            text = text.replace(one.text, one.text + MARKS[is_chinese(one.text)], 1)
    return hit if text == hit.item.memory else replace(hit, item=replace(hit.item, memory=text))
