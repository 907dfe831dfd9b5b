"""The `compact` and `expand` scopes of `mem_organize`: long, cold episodes in half the tokens, and back.

An episode is a session's raw turns. It is compacted when it is long (`tokens_min`), when its youngest turn
was said and last used long ago (`older_than_days`), when nothing of it stands in working memory and when
nothing of it waits to be read. A turn of it then holds what `memory.compaction` keeps of its text, under
the same id, with the vector and the links of the full text; a turn of which nothing is kept is archived.

Nothing is lost: the full text stays in an archive record, an archived item derived from the turn
(`extra["full_text"]` of the turn names it; who deletes the turn deletes it too), and in the journal.
`{"scope": "expand"}` puts the full texts back. A turn that somebody edited since is left as it is.

One episode is one message and one transaction; the first message only plans and chains, each episode
chains the next. Content: {"scope": "compact" | "expand", "session_id" or "sessions": [...] (default: all
that qualify), "ratio", "older_than_days", "tokens_min"}. Only when it is asked for.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from memos import log
from memos.clock import utc
from memos.errors import Discard
from memos.mem_scheduler.change_logs import after, archived_log
from memos.mem_scheduler.handlers.context import HandlerContext
from memos.mem_scheduler.handlers.edits import all_of, indexed, present, retired, rewritten
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_ORGANIZE_TASK_LABEL
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.web_log import updated_log
from memos.memory.compaction import RATIO, compact
from memos.memory.document_items import DOCUMENT_ROLE
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, ReadState, Source, content_hash
from memos.memory.store import AddItems, Change, IndexedItem, ItemFilter, UpdateItem
from memos.memory.token_count import count_tokens
from memos.retrieval.keywords import analyse

logger = log.get_logger(__name__)

SCOPE = "compact"
EXPAND_SCOPE = "expand"
OLDER_THAN_DAYS = 30.0
TOKENS_MIN = 200
SESSIONS_MAX = 200  # of one plan; the plan goes on after them
TURNS_MAX = 1_000  # that one message changes; a longer episode is compacted in several
TURNS_SCAN_MAX = 20_000
FULL_TEXT = "full_text"  # in a turn's `extra`: the id of the archive record that has its full text
COMPACTED = "compacted"  # in a turn's `extra`: the hash of the short text, which tells an edit since
DROPPED = "compaction: nothing to keep"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a message asks for. `planned`: the sessions were chosen, the first of them is this message's."""

    scope: str
    sessions: tuple[str, ...] = ()
    planned: bool = False
    after: str = ""  # where the plan goes on once these sessions are done
    ratio: float = RATIO
    older_than_days: float = OLDER_THAN_DAYS
    tokens_min: int = TOKENS_MIN

    def content(self) -> str:
        """The content of the message that asks for it."""
        return json.dumps(
            {
                "scope": self.scope,
                "sessions": list(self.sessions),
                "planned": self.planned,
                "after": self.after,
                "ratio": self.ratio,
                "older_than_days": self.older_than_days,
                "tokens_min": self.tokens_min,
            },
            ensure_ascii=False,
        )


def wanted_of(value: Mapping[str, Any]) -> Wanted:
    """The fields of a content, checked. Discard names the one that is wrong: no retry can mend it."""
    sessions = value.get("sessions", [value["session_id"]] if value.get("session_id") else [])
    if not isinstance(sessions, list) or not all(isinstance(one, str) and one for one in sessions):
        raise Discard(f"sessions={sessions!r} must be a list of session ids")
    ratio = _number(value, "ratio", RATIO)
    if not 0.0 < ratio < 1.0:
        raise Discard(f"ratio={ratio!r} must lie between 0 and 1")
    after = value.get("after", "")
    planned = value.get("planned") is True
    return Wanted(
        scope=str(value["scope"]),
        sessions=tuple(dict.fromkeys(sessions)),
        planned=planned and bool(sessions),
        after=after if isinstance(after, str) else "",
        ratio=ratio,
        older_than_days=_number(value, "older_than_days", OLDER_THAN_DAYS),
        tokens_min=int(_number(value, "tokens_min", TOKENS_MIN)),
    )


def _number(value: Mapping[str, Any], name: str, default: float) -> float:
    found = value.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1e6:
        raise Discard(f"{name}={found!r} must be a number of at least 0")
    return float(found)


@dataclass(slots=True)
class _Work:
    """What one message does: the changes and, for the logs, (item after, text before)."""

    changes: list[Change] = field(default_factory=list)
    reworded: list[tuple[MemoryItem, str]] = field(default_factory=list)
    gone: list[MemoryItem] = field(default_factory=list)
    back: list[MemoryItem] = field(default_factory=list)
    more: bool = False  # the episode has turns left


def attempt(ctx: HandlerContext, message: ScheduleMessageItem, wanted: Wanted) -> None:
    """One episode, or the plan. Raises VersionConflict when a turn of it changed meanwhile."""
    if not wanted.planned:
        _plan(ctx, message, wanted)
        return
    session, *left = wanted.sessions
    turns = _turns(ctx, message.mem_cube_id, session)
    if wanted.scope == EXPAND_SCOPE:
        work = _expanded(ctx, message.mem_cube_id, turns)
    else:
        work = _compacted(ctx, message.mem_cube_id, turns, wanted)
    if work.more:
        left.insert(0, session)
    followups = []
    if left or wanted.after:
        following = replace(wanted, sessions=tuple(left), planned=bool(left))
        followups.append(ctx.chained(message, MEM_ORGANIZE_TASK_LABEL, content=following.content()))
    ctx.apply(message, work.changes, followups=followups, logs=_logs(ctx, message, work))
    logger.info(
        "compact.done",
        scope=wanted.scope,
        turns=len(turns),
        changed=len(work.reworded),
        archived=len(work.gone),
        back=len(work.back),
    )


# -- which episodes ------------------------------------------------------------------------------------


def _plan(ctx: HandlerContext, message: ScheduleMessageItem, wanted: Wanted) -> None:
    """Choose the sessions, in the order of their names, and chain the message about the first of them."""
    chosen = list(wanted.sessions)
    after = ""
    if not chosen:
        names = sorted(one for one in _sessions(ctx, message.mem_cube_id) if one > wanted.after)
        chosen = names[:SESSIONS_MAX]
        after = chosen[-1] if len(names) > SESSIONS_MAX else ""
    followups = []
    if chosen:
        planned = replace(wanted, sessions=tuple(chosen), planned=True, after=after)
        followups.append(ctx.chained(message, MEM_ORGANIZE_TASK_LABEL, content=planned.content()))
    ctx.apply(message, followups=followups)


def _sessions(ctx: HandlerContext, cube_id: str) -> set[str]:
    """The sessions in which raw turns are live. Turns without a session are no episode."""
    with ctx.services.store.read(cube_id) as view:
        facets = view.facets(view.select(ItemFilter(raw=True)))
    return {facet.session_id for facet in facets.values() if facet.session_id}


def _turns(ctx: HandlerContext, cube_id: str, session: str) -> list[MemoryItem]:
    """The raw turns of the session, archived ones included, in the order of the conversation.

    Chunks of a document are none: a document says what it says, and can be added again.
    """
    wanted = ItemFilter(
        cube_ids=(cube_id,),
        session_ids=(session,),
        raw=True,
        statuses=(ItemStatus.ACTIVATED, ItemStatus.RESOLVING, ItemStatus.ARCHIVED),
    )
    found = all_of(ctx.services.store, wanted, limit=TURNS_SCAN_MAX)
    turns = [item for item in found if item.role != DOCUMENT_ROLE]
    return sorted(turns, key=lambda item: (item.position, item.created_at, item.id))


def is_compacted(item: MemoryItem) -> bool:
    """Whether the turn holds what compaction left of it, and nobody edited it since."""
    return bool(item.extra.get(COMPACTED) == item.content_hash)


def _is_cold(ctx: HandlerContext, cube_id: str, live: Sequence[MemoryItem], days: float) -> bool:
    if not live or any(item.read is ReadState.DUE for item in live):
        return False
    working = {entry.item_id for entry in ctx.services.store.working(cube_id).entries}
    if any(item.id in working for item in live):
        return False
    limit = utc(ctx.services.clock.now()) - timedelta(days=days)
    for item in live:
        said = item.happened_at or item.created_at
        if max(said, item.used_at or said) > limit:
            return False
    return True


# -- what is done --------------------------------------------------------------------------------------


def _compacted(ctx: HandlerContext, cube_id: str, turns: Sequence[MemoryItem], wanted: Wanted) -> _Work:
    work = _Work()
    live = [item for item in turns if item.live]
    whole = [item for item in live if not is_compacted(item)]
    if not _is_cold(ctx, cube_id, live, wanted.older_than_days):
        return work
    if sum(count_tokens(item.memory) for item in live) < max(1, wanted.tokens_min):
        return work
    whole, work.more = whole[:TURNS_MAX], len(whole) > TURNS_MAX
    shorter = compact(whole, ratio=wanted.ratio).by_item()
    for item in whole:
        if item.id not in shorter:
            # The row keeps its text: it is its own archive record.
            gone = replace(item, extra={**item.extra, COMPACTED: item.content_hash})
            work.changes.append(retired(gone, DROPPED))
            work.gone.append(item)
        elif shorter[item.id] == item.memory:  # one of the worthiest: only noted, not to be weighed again
            noted = replace(item, extra={**item.extra, COMPACTED: item.content_hash})
            work.changes.append(rewritten(item, noted, "compaction: kept as it is"))
    changed = [item for item in whole if shorter.get(item.id, item.memory) != item.memory]
    names = [name for item in changed if (name := _record_name(item))]
    known = {one.id: one for one in present(ctx.services.store, names)}
    for entry, item in zip(indexed(ctx, cube_id, changed), changed, strict=True):
        record = known.get(_record_name(item))
        if record is None or record.memory != item.memory:
            record = _record_of(item)
            reason = f"full text of {item.id}, which was compacted"
            work.changes.append(AddItems((IndexedItem(record, analyse(record.memory)),), reason))
        text = shorter[item.id]
        short = replace(
            item,
            memory=text,
            links=entry.item.links,
            extra={**item.extra, FULL_TEXT: record.id, COMPACTED: content_hash(text)},
        )
        reason = f"compacted; full text in {record.id}"
        work.changes.append(UpdateItem(IndexedItem(short, analyse(text), entry.vector), item.version, reason))
        work.reworded.append((short, item.memory))
    return work


def _record_name(item: MemoryItem) -> str:
    """The archive record of an earlier compaction, to be used again when the text is the same; or ""."""
    return str(item.extra.get(FULL_TEXT, ""))


def _record_of(item: MemoryItem) -> MemoryItem:
    """The archived copy of a turn. Its id follows from the row, so that a repeat makes the same one."""
    return replace(
        item,
        id=f"{item.id}:full:{item.version}",
        status=ItemStatus.ARCHIVED,
        raw=False,
        read=ReadState.NONE,
        sources=(Source("item", item_id=item.id),),
        extra={},
    )


def _expanded(ctx: HandlerContext, cube_id: str, turns: Sequence[MemoryItem]) -> _Work:
    work = _Work()
    touched = [item for item in turns if is_compacted(item)]
    touched, work.more = touched[:TURNS_MAX], len(touched) > TURNS_MAX
    names = [name for item in touched if item.live and (name := _record_name(item))]
    records = {one.id: one for one in present(ctx.services.store, names)}
    full: list[MemoryItem] = []
    for item in touched:
        plain = replace(item, extra={key: value for key, value in item.extra.items() if key != COMPACTED})
        if not item.live:
            full.append(replace(plain, status=ItemStatus.ACTIVATED))
        elif (record := records.get(_record_name(item))) is not None:
            full.append(replace(plain, memory=record.memory))
        else:  # it was kept as it is, or somebody deleted the record: the text that stands is all there is
            full.append(plain)
    before = {item.id: item for item in touched}
    for entry in indexed(ctx, cube_id, full):
        old = before[entry.item.id]
        work.changes.append(UpdateItem(entry, old.version, "full text put back"))
        if old.live and entry.item.memory == old.memory:
            continue
        if old.live:
            work.reworded.append((entry.item, old.memory))
        else:
            work.back.append(entry.item)
    return work


def _logs(ctx: HandlerContext, message: ScheduleMessageItem, work: _Work) -> list[ScheduleLogForWebItem]:
    facts = after(ctx.facts(message.mem_cube_id), come=work.back)
    logs = []
    by_kind: defaultdict[MemoryKind, list[MemoryItem]] = defaultdict(list)
    for item in work.gone:
        by_kind[item.kind].append(item)
    for group in by_kind.values():
        facts = after(facts, gone=group)
        told = [(replace(item, status=ItemStatus.ARCHIVED), DROPPED) for item in group]
        logs.append(archived_log(message, told, facts=facts))
    changed = [*work.reworded, *((item, "") for item in work.back)]
    if changed:
        logs.append(updated_log(message, changed, facts=facts))
    return logs
