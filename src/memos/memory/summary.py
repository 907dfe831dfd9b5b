"""Summaries of what a cube holds about one subject: which groups are worth one, and when one is out of date.

A summary is a derived item beside its parts, which stay. Its sources name them with the type `part`: it is
deleted with any of them (see `memos.memory.store`), because it may say what they say. A part that is
corrected, superseded or reworded takes it out of recall (`stale_summaries`, to be committed with that
change), until the subject is summarised again. Grouping is by names: the entities that items are
linked to, and who speaks; what names nobody is about the user.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from memos.memory.item import PART, ItemStatus, MemoryItem, MemoryKind, ReadState, Source
from memos.memory.store import IndexedItem, ItemFilter, MemoryStore, UpdateItem
from memos.retrieval.keywords import analyse

SUMMARY_TAG = "summary"
SUBJECT = "subject"  # in a summary's `extra`
PARTS_MIN = 6  # fewer are read as quickly as a summary of them
PARTS_MAX = 40  # the newest
NEWS_MIN = 3  # parts that are new or gone before a subject is summarised again
SUMMARIES_MAX = 2_000
CONFIDENCE = 0.7

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Group:
    """What a cube holds about one subject of one user, oldest first, and the summary that it had."""

    subject: str  # "" is the user
    parts: tuple[MemoryItem, ...]
    before: MemoryItem | None = None


def is_summary(item: MemoryItem) -> bool:
    return SUMMARY_TAG in item.tags and not item.raw


def groups(items: Iterable[MemoryItem]) -> list[Group]:
    """The subjects worth a summary, the largest first; each item is in one group at most.

    items: the live items of one cube; raw ones are passed over. A subject whose summary is still good is
    left out.
    """
    given = [item for item in items if item.live and not item.raw]
    summaries = {(one.user_id, one.extra.get(SUBJECT)): one for one in given if is_summary(one)}
    names = {link for item in given for link in item.links}
    by_subject: defaultdict[tuple[str, str], list[MemoryItem]] = defaultdict(list)
    for item in given:
        if not is_summary(item):
            for subject in _subjects(item, names) or ("",):
                by_subject[(item.user_id, subject)].append(item)
    found: list[Group] = []
    taken: set[str] = set()
    for (user_id, subject), all_parts in sorted(by_subject.items(), key=lambda one: (-len(one[1]), one[0])):
        parts = [item for item in all_parts if item.id not in taken]
        if len(parts) < PARTS_MIN:
            continue
        parts.sort(key=lambda item: (item.happened_at or item.created_at, item.id))
        parts = parts[-PARTS_MAX:]
        taken.update(item.id for item in parts)
        before = summaries.get((user_id, subject))
        if before is None or _news(before, parts) >= NEWS_MIN:
            found.append(Group(subject, tuple(parts), before))
    return found


def _subjects(item: MemoryItem, names: set[str]) -> set[str]:
    """What an item is about. A name that begins a sentence is known by other items that link to it."""
    speakers = {name.casefold() for name in item.participants}
    return {*item.links, *speakers, *(names & set(_WORD.findall(item.memory.casefold())))}


def _news(before: MemoryItem, parts: Sequence[MemoryItem]) -> int:
    had = {source.item_id for source in before.sources}
    return len(had ^ {item.id for item in parts})


def as_summary(group: Group, text: str, *, item_id: str, now: datetime) -> MemoryItem:
    """The item that holds the summary of a group."""
    first, *_ = group.parts
    return MemoryItem(
        id=item_id,
        cube_id=first.cube_id,
        user_id=first.user_id,
        memory=text,
        kind=MemoryKind.LONG_TERM,
        raw=False,
        read=ReadState.NONE,
        key=group.subject,
        sources=tuple(
            Source(type=PART, item_id=item.id, at=item.happened_at or item.created_at) for item in group.parts
        ),
        tags=(SUMMARY_TAG,),
        confidence=CONFIDENCE,
        created_at=now,
        updated_at=now,
        happened_at=max(item.happened_at or item.created_at for item in group.parts),
        extra={SUBJECT: group.subject},
    )


def stale_summaries(
    store: MemoryStore, cube_id: str, item_ids: Iterable[str], *, reason: str = "what it summarises changed"
) -> list[UpdateItem]:
    """The changes that take the summaries of these items out of recall."""
    changed = set(item_ids)
    if not changed:
        return []
    wanted = ItemFilter(cube_ids=(cube_id,), raw=False, tags=(SUMMARY_TAG,))
    found = store.find(wanted, limit=SUMMARIES_MAX).items
    return [
        UpdateItem(
            IndexedItem(replace(item, status=ItemStatus.ARCHIVED), analyse(item.memory)), item.version, reason
        )
        for item in found
        if item.id not in changed and any(source.item_id in changed for source in item.sources)
    ]
