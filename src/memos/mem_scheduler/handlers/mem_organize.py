"""`mem_organize`: bring the derived items of a cube in order. Raw turns stay as they were said.

Content: a JSON list of item ids (look at these and at what is near them), or `{"scope": "cube"}`, also
the bare word `cube` (page by page through all derived items). `{"scope": "forget"}` is `forget`'s,
`{"scope": "compact"}` and `{"scope": "expand"}` are `compact`'s, which alone changes raw turns, and
`{"scope": "summarise"}` is `summarise`'s: with a model, the last page of a cube chains it.

Near-duplicates become one item, the others are archived and their ids stand for it; single-valued facts
that a newer one contradicts get the time until which they held (when they were learned stays) and leave
recall, and the turns behind them are marked as outdated; what is over capacity is archived, the least retained first. Places in working memory pass to the
item that takes over. One transaction for each message; what is left over is chained as the next message.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from memos import log
from memos.clock import utc
from memos.errors import Discard, VersionConflict
from memos.mem_scheduler.change_logs import after, archived_log, merged_log
from memos.mem_scheduler.handlers import compact, forget, summarise
from memos.mem_scheduler.handlers.add import MERGED_FROM
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import (
    all_of,
    handed_over,
    indexed,
    present,
    retired,
    rewritten,
    same_slots,
)
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_ORGANIZE_TASK_LABEL
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.forgetting import retention
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, ReadState
from memos.memory.merge import Cluster, duplicates
from memos.memory.outdated import last_heir, outdated_turns
from memos.memory.signature import signature
from memos.memory.store import AddAlias, Change, ItemFilter
from memos.memory.summary import stale_summaries
from memos.memory.supersede import Supersession, plan
from memos.retrieval.keywords import analyse

if TYPE_CHECKING:
    from memos.models.base import Vectors

logger = log.get_logger(__name__)

CONFLICT_TRIES = 3
IDS_MAX = 500  # of one message; the rest is chained
PAGE_ITEMS = 100  # derived items that a message about the whole cube looks at
NEAR_MAX = 30  # items like one of them
CHANGES_MAX = 100  # clusters, and supersessions, of one message
CAPACITY_SCAN_MAX = 50_000
CUBE_SCOPE = "cube"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a message asks to be put in order: a whole cube from `cursor` on, or the items of `ids`."""

    ids: tuple[str, ...] = ()
    name: str = ""
    cursor: str | None = None
    compact: compact.Wanted | None = None

    def content(self) -> str:
        """The content of the message that asks for it."""
        if not self.name:
            return json.dumps(list(self.ids))
        return json.dumps({"scope": self.name} | ({"cursor": self.cursor} if self.cursor else {}))


@dataclass(slots=True)
class _Work:
    """What one message does."""

    clusters: list[Cluster] = field(default_factory=list)
    superseded: list[Supersession] = field(default_factory=list)
    conflicts: int = 0
    over: list[MemoryItem] = field(default_factory=list)
    left: list[Scope] = field(default_factory=list)


def handle(ctx: HandlerContext, messages: Sequence[ScheduleMessageItem]) -> None:
    for message in messages:
        with ctx.bound_to(message):
            if ctx.is_repeat(message):
                continue
            scope = scope_of(message)
            asked = summarise.Asked()
            for left in reversed(range(CONFLICT_TRIES)):
                try:
                    if scope.compact is not None:
                        compact.attempt(ctx, message, scope.compact)
                    elif scope.name == forget.SCOPE:
                        forget.attempt(ctx, message, scope.cursor)
                    elif scope.name == summarise.SCOPE:
                        summarise.attempt(ctx, message, asked)
                    else:
                        _attempt(ctx, message, scope)
                    break
                except VersionConflict:
                    if not left:
                        raise  # the queue tries again later
                    logger.info("organize.conflict", tries_left=left)


def scope_of(message: ScheduleMessageItem) -> Scope:
    """What the content asks for. Discard when it is neither ids nor a scope: no retry can mend it."""
    text = message.content.strip()
    if text in (CUBE_SCOPE, forget.SCOPE, summarise.SCOPE):
        return Scope(name=text)
    if text in (compact.SCOPE, compact.EXPAND_SCOPE):
        return Scope(name=text, compact=compact.Wanted(text))
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Discard(
            f"content of a {message.label!r} message is neither JSON nor {CUBE_SCOPE!r}: {error}"
        ) from error
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return Scope(tuple(dict.fromkeys(value)))
    if isinstance(value, dict) and value.get("scope") in (CUBE_SCOPE, forget.SCOPE, summarise.SCOPE):
        cursor = value.get("cursor")
        return Scope(name=value["scope"], cursor=cursor if isinstance(cursor, str) else None)
    if isinstance(value, dict) and value.get("scope") in (compact.SCOPE, compact.EXPAND_SCOPE):
        return Scope(name=value["scope"], compact=compact.wanted_of(value))
    raise Discard(
        f"content of a {message.label!r} message must be a JSON list of item ids or "
        f'{{"scope": "{CUBE_SCOPE}"}} (or {forget.SCOPE}, {summarise.SCOPE}, {compact.SCOPE}, {compact.EXPAND_SCOPE})'
    )


def _attempt(ctx: HandlerContext, message: ScheduleMessageItem, scope: Scope) -> None:
    now = utc(ctx.services.clock.now())
    cube_id = message.mem_cube_id
    work = _Work()
    focus = _focus(ctx, cube_id, scope, work)
    items = _with_near(ctx, cube_id, focus)
    _merge(ctx, cube_id, items, now, work)
    _supersede(items, now, work)
    if any((len(work.clusters) >= CHANGES_MAX, len(work.superseded) >= CHANGES_MAX)):
        work.left.insert(0, Scope(tuple(item.id for item in focus)))  # there may be more among them
    gone = {one.id for cluster in work.clusters for one in cluster.absorb}
    gone |= {one.item.id for one in work.superseded}
    kept = {cluster.keep.id for cluster in work.clusters}
    work.over = _over_capacity(ctx, cube_id, gone, kept, now)
    ctx.apply(
        message,
        _changes(ctx, cube_id, work, items, now),
        followups=[
            ctx.chained(message, MEM_ORGANIZE_TASK_LABEL, content=scope.content()) for scope in work.left
        ],
        logs=_logs(ctx, message, work, now),
    )
    logger.info(
        "organize.done",
        items=len(items),
        merged=len(work.clusters),
        superseded=len(work.superseded),
        conflicts=work.conflicts,
        archived=len(work.over),
    )


# -- what is looked at ---------------------------------------------------------------------------------


def _focus(ctx: HandlerContext, cube_id: str, scope: Scope, work: _Work) -> list[MemoryItem]:
    """The live derived items that the message is about."""
    store = ctx.services.store
    if scope.name == CUBE_SCOPE:
        page = store.find(ItemFilter(cube_ids=(cube_id,), raw=False), limit=PAGE_ITEMS, cursor=scope.cursor)
        if page.next_cursor:
            work.left.append(Scope(name=CUBE_SCOPE, cursor=page.next_cursor))
        elif ctx.services.llm_for("summaries") is not None:
            work.left.append(Scope(name=summarise.SCOPE))
        return list(page.items)
    if len(scope.ids) > IDS_MAX:
        work.left.append(Scope(scope.ids[IDS_MAX:]))
    named = present(store, scope.ids[:IDS_MAX])
    return [item for item in named if item.cube_id == cube_id and item.live and not item.raw]


def _with_near(ctx: HandlerContext, cube_id: str, focus: Sequence[MemoryItem]) -> list[MemoryItem]:
    """The items and the derived ones that may repeat or contradict them."""
    if not focus:
        return []
    store = ctx.services.store
    with store.read(cube_id) as view:
        derived = view.select(ItemFilter(raw=False))
        near: set[int] = set()
        for item in focus:
            terms = {term: float(count) for term, count in analyse(item.memory).items()}
            near.update(view.search_text(terms, limit=NEAR_MAX, allowed=derived) if terms else ())
        found = {item.id: item for item in (*focus, *view.items(sorted(near)))}
    for item in same_slots(store, cube_id, focus):
        found.setdefault(item.id, item)
    return list(found.values())


def _vectors(ctx: HandlerContext, cube_id: str, items: Sequence[MemoryItem]) -> Mapping[str, Vectors]:
    """Vectors of those items that say the same by their signature: no others are compared."""
    alike: defaultdict[tuple[str, ...], list[MemoryItem]] = defaultdict(list)
    for item in items:
        alike[signature(item.memory).sequence].append(item)
    wanted = [item for group in alike.values() if len(group) > 1 for item in group]
    found = indexed(ctx, cube_id, wanted) if wanted else []
    return {one.item.id: one.vector for one in found if one.vector is not None}


# -- what is decided -----------------------------------------------------------------------------------


def _merge(
    ctx: HandlerContext, cube_id: str, items: Sequence[MemoryItem], now: datetime, work: _Work
) -> None:
    found = duplicates(items, _vectors(ctx, cube_id, items), now=now)
    for cluster in found[:CHANGES_MAX]:
        origin = [*_names(cluster.keep), *(name for one in cluster.absorb for name in (one.id, *_names(one)))]
        keep = replace(cluster.keep, extra={**cluster.keep.extra, MERGED_FROM: list(dict.fromkeys(origin))})
        work.clusters.append(replace(cluster, keep=keep))


def _names(item: MemoryItem) -> list[str]:
    before = item.extra.get(MERGED_FROM, ())
    return [before] if isinstance(before, str) else [str(one) for one in before]


def _supersede(items: Sequence[MemoryItem], now: datetime, work: _Work) -> None:
    """Among what stands after merging."""
    standing = {item.id: item for item in items}
    for cluster in work.clusters:
        standing[cluster.keep.id] = cluster.keep
        for one in cluster.absorb:
            standing.pop(one.id, None)
    decided = plan(standing.values(), now=now)
    work.superseded += decided.supersessions[:CHANGES_MAX]
    work.conflicts = len(decided.conflicts)


def _over_capacity(
    ctx: HandlerContext, cube_id: str, gone: set[str], kept: set[str], now: datetime
) -> list[MemoryItem]:
    """Of each kind what it holds too much, the least retained first; what stands in working memory stays."""
    store = ctx.services.store
    sizes, capacities = store.sizes(cube_id), store.capacities
    chosen: list[MemoryItem] = []
    for kind, size, capacity in (
        (MemoryKind.LONG_TERM, sizes.long_term, capacities.long_term),
        (MemoryKind.USER, sizes.user, capacities.user),
        (MemoryKind.PREFERENCE, sizes.preference, capacities.preference),
    ):
        if size <= capacity:
            continue
        staying = gone | kept | {entry.item_id for entry in store.working(cube_id).entries}
        wanted = ItemFilter(cube_ids=(cube_id,), kinds=(kind,))
        held = all_of(store, wanted, limit=CAPACITY_SCAN_MAX)
        over = size - sum(item.id in gone for item in held) - capacity
        free = [item for item in held if item.id not in staying and item.read is not ReadState.DUE]
        free.sort(key=lambda item: (retention(item, now), item.created_at, item.id))
        chosen += free[: max(0, over)]
    return chosen


# -- what is done --------------------------------------------------------------------------------------


def _changes(
    ctx: HandlerContext, cube_id: str, work: _Work, items: Sequence[MemoryItem], now: datetime
) -> list[Change]:
    before = {item.id: item for item in items}
    heirs = {one.id: cluster.keep.id for cluster in work.clusters for one in cluster.absorb}
    heirs |= {one.item.id: one.by_id for one in work.superseded if not _holds(one, now)}
    changes: list[Change] = list(handed_over(ctx.services.store.working(cube_id), heirs, "took its place"))
    versions = dict(before)
    for cluster in work.clusters:
        keep = cluster.keep
        changes.append(rewritten(before[keep.id], keep, cluster.reason))
        versions[keep.id] = replace(keep, version=before[keep.id].version + 1)
        for one in cluster.absorb:
            changes.append(retired(one, f"merged into {keep.id}", by_id=keep.id))
            changes.append(AddAlias(one.id, keep.id, cluster.reason))
    for late in work.superseded:
        item = replace(late.item, version=versions[late.item.id].version)
        if _holds(late, now):  # its end is known, and still to come
            changes.append(rewritten(item, item, late.reason))
        else:
            changes.append(retired(item, late.reason, by_id=late.by_id, valid_until=late.valid_until))
    going = {item.id for item in work.over}
    held_no_longer = [one.item.id for one in work.superseded if not _holds(one, now)]
    out_of_date = stale_summaries(ctx.services.store, cube_id, held_no_longer)
    changes += [one for one in out_of_date if one.indexed.item.id not in going]
    marks = outdated_turns(ctx.services.store, cube_id, _displaced(work, before, now))
    changes += [one for one in marks if one.indexed.item.id not in going]
    changes += [retired(item, "capacity") for item in work.over]
    return changes


def _displaced(
    work: _Work, before: Mapping[str, MemoryItem], now: datetime
) -> list[tuple[MemoryItem, MemoryItem]]:
    """Each fact that holds no longer, with the one that holds in the end."""
    standing = {**before, **{cluster.keep.id: cluster.keep for cluster in work.clusters}}
    heirs = {one.item.id: one.by_id for one in work.superseded if not _holds(one, now)}
    return [
        (one.item, standing[last_heir(one.item.id, heirs)]) for one in work.superseded if one.item.id in heirs
    ]


def _holds(one: Supersession, now: datetime) -> bool:
    return one.valid_until > now


def _logs(
    ctx: HandlerContext, message: ScheduleMessageItem, work: _Work, now: datetime
) -> list[ScheduleLogForWebItem]:
    facts = ctx.facts(message.mem_cube_id)
    logs: list[ScheduleLogForWebItem] = []
    for cluster in work.clusters:
        facts = after(facts, gone=cluster.absorb)
        logs.append(merged_log(message, cluster, facts=facts))
    retired_here = [
        (replace(one.item, status=ItemStatus.ARCHIVED), one.reason)
        for one in work.superseded
        if not _holds(one, now)
    ]
    retired_here += [(replace(item, status=ItemStatus.ARCHIVED), "capacity") for item in work.over]
    for group in _by_kind(retired_here):
        facts = after(facts, gone=[item for item, _ in group])
        logs.append(archived_log(message, group, facts=facts))
    return logs


def _by_kind(archived: Sequence[tuple[MemoryItem, str]]) -> Iterator[list[tuple[MemoryItem, str]]]:
    for kind in MemoryKind:
        group = [one for one in archived if one[0].kind is kind]
        if group:
            yield group
