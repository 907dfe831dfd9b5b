"""ExplainHandler: why a memory was found by a search, or at which gate it was lost.

    written ─▶ kept (not deleted) ─▶ cube ─▶ quarantine ─▶ current (not archived, merged, superseded)
            ─▶ filter ─▶ channels ─▶ depth ─▶ relativity ─▶ repetition ─▶ budget ─▶ found

Beside the gates stand the tasks that concern the memory: what still waits, and what was given up. Reads
only. What is outside of the scope of who asks is explained as if it had never been written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from memos.api import access
from memos.api.explain_models import Explained, ExplainRequest, ExplainResponse, Gate, QueuedTask
from memos.api.handlers.search import SearchHandler, request_of
from memos.api.product_models import APISearchRequest
from memos.api.shapes import memory_shape, way_shape
from memos.api.without_effect import warnings_of
from memos.errors import ItemGone, ItemNotFound
from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.schemas.task_schemas import TaskState, class_of
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, ReadState, content_hash
from memos.memory.store import ItemFilter, MemoryStore
from memos.retrieval.explain import Standing, standing_of
from memos.retrieval.keywords import analyse
from memos.retrieval.request import QUERY_CHARS_MAX, RecallRequest, Way

if TYPE_CHECKING:
    from memos.retrieval.hybrid import HybridRetriever

EVERY_STATUS = tuple(status for status in ItemStatus if status is not ItemStatus.DELETED)
ALIKE = 0.6  # share of content words that makes a memory the one that was meant
LOOKED_THROUGH = 2_000  # memories that are not recalled, held against a text
TASKS_LOOKED_AT = 1_000
TASKS_SHOWN = 20
_OVER = frozenset({TaskState.COMPLETED, TaskState.CANCELLED})


@dataclass(slots=True)
class _Walk:
    """What was found out so far."""

    verdict: str = "found"
    gates: list[Gate] = field(default_factory=list)
    item: MemoryItem | None = None
    standing: Standing | None = None

    def passed(self, gate: str, detail: str) -> None:
        self.gates.append(Gate(gate=gate, passed=True, detail=detail))

    def lost(self, gate: str, verdict: str, detail: str) -> None:
        self.gates.append(Gate(gate=gate, passed=False, detail=detail))
        self.verdict = verdict


class ExplainHandler:
    """The documented answers to "why" and "why not"."""

    def __init__(
        self, store: MemoryStore, queue: TaskQueue, retriever: HybridRetriever, search: SearchHandler
    ) -> None:
        self._store = store
        self._search = search
        self._queue = queue
        self._retriever = retriever

    def handle_explain(self, asked: ExplainRequest) -> ExplainResponse:
        """Walk the gates. Raises AccessDenied, InvalidInput, StoreError, QueueUnavailable."""
        cubes, request = request_of(asked, self._store)
        access.may_read(users=[asked.user_id], cubes=cubes)
        walk = _Walk()
        self._find(asked, cubes, walk)
        if walk.item is not None and self._is_live(walk.item, asked, cubes, walk):
            self._recall(walk.item, asked, request, walk)
            if walk.verdict == "found" and not self._is_answered(asked, walk.item):
                walk.lost("answer", "repeated", "a preference of the answer says the same")
        tasks = self._tasks(asked, walk.item)
        if walk.item is None and walk.verdict == "never_written":
            self._perhaps_on_its_way(tasks, walk)
        return ExplainResponse(
            message=walk.gates[-1]["detail"], data=_explained(walk, tasks), warnings=warnings_of(asked)
        )

    # -- was it written, and is it there? -----------------------------------------------------------------

    def _find(self, asked: ExplainRequest, cubes: Sequence[str], walk: _Walk) -> None:
        if asked.memory_id is None:
            walk.item = self._meant(asked.expected or "", asked.user_id, cubes)
            if walk.item is None:
                walk.lost("written", "never_written", "no memory here says that, live or archived")
                return
            walk.passed("written", f"the memory {walk.item.id} says that")
            return
        try:
            [item] = self._store.get([asked.memory_id])
        except ItemGone:
            walk.passed("written", f"{asked.memory_id} was written")
            walk.lost("kept", "deleted", f"{asked.memory_id} was deleted; its text is gone")
            return
        except ItemNotFound:
            walk.lost("written", "never_written", f"no memory {asked.memory_id} was ever stored here")
            return
        if not access.current().has_cube(item.cube_id):
            walk.lost("written", "never_written", f"no memory {asked.memory_id} was ever stored here")
            return
        walk.item = item
        walk.passed("written", f"{asked.memory_id} was written at {item.created_at.isoformat()}")
        if item.id != asked.memory_id:
            walk.passed("merged", f"{asked.memory_id} was merged into {item.id}, which stands for it")

    def _meant(self, text: str, user_id: str, cubes: Sequence[str]) -> MemoryItem | None:
        """The memory that says it: the same text here or in another cube of the scope, else the most alike."""
        alike = ItemFilter(content_hashes=(content_hash(text),), statuses=EVERY_STATUS)
        for within in (tuple(cubes), access.current().scope()):
            if same := self._store.find(replace(alike, cube_ids=within), limit=100).items:
                return next((item for item in same if item.live), same[0])
        query = RecallRequest(
            query=text[:QUERY_CHARS_MAX], cube_ids=tuple(cubes), user_id=user_id, top_k=5, dedup="no"
        )
        candidates = [hit.item for hit in self._retriever.search(query).hits]
        hidden = ItemFilter(cube_ids=tuple(cubes), statuses=(ItemStatus.ARCHIVED, ItemStatus.QUARANTINED))
        cursor: str | None = None
        while len(candidates) < LOOKED_THROUGH:
            page = self._store.find(hidden, limit=500, cursor=cursor)
            candidates += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        wanted = frozenset(analyse(text))
        scored = [(_alike(wanted, item), item.live, -place, item) for place, item in enumerate(candidates)]
        best = max(scored, key=lambda one: one[:3], default=None)
        return best[3] if best is not None and best[0] >= ALIKE else None

    def _is_live(self, item: MemoryItem, asked: ExplainRequest, cubes: Sequence[str], walk: _Walk) -> bool:
        if item.cube_id not in cubes:
            walk.lost(
                "cube",
                "other_cube",
                f"it is in the cube {item.cube_id!r}, and the search reads {', '.join(map(repr, cubes))}",
            )
            return False
        walk.passed("cube", f"it is in {item.cube_id!r}, which the search reads")
        if item.status is ItemStatus.QUARANTINED:
            why = self._why(item)
            walk.lost("quarantine", "quarantined", f"it is held for review and never recalled: {why}")
            return False
        walk.passed("quarantine", "it is not held for review")
        if item.status is ItemStatus.ARCHIVED:
            if item.valid_until is not None:
                until = item.valid_until.isoformat()
                walk.lost("current", "superseded", f"it held until {until}: {self._why(item)}")
            else:
                walk.lost("current", "archived", f"it is archived and not recalled: {self._why(item)}")
            return False
        walk.passed("current", "it is live")
        return True

    def _why(self, item: MemoryItem) -> str:
        """The reason of the last change of status, from the journal."""
        rows = self._store.journal(item_id=item.id, limit=20)
        told = next((row for row in rows if row.op in ("archive", "quarantine", "add", "convert")), None)
        return f"{told.reason} ({told.at.isoformat()})" if told and told.reason else "no reason was kept"

    # -- where does recall put it? ------------------------------------------------------------------------

    def _recall(self, item: MemoryItem, asked: ExplainRequest, request: RecallRequest, walk: _Walk) -> None:
        if item.kind is MemoryKind.PREFERENCE:
            if not asked.include_preference or not asked.pref_top_k:
                walk.lost("filter", "filtered", "it is a preference, and the search asked for none")
                return
            request = replace(
                request,
                kinds=(MemoryKind.PREFERENCE,),
                top_k=asked.pref_top_k,
                filter=(request.filter or ItemFilter()).of_user(asked.user_id),
            )
        standing = standing_of(self._retriever, self._store, request, item)
        walk.standing = standing
        if standing.cut == "filter":
            walk.lost("filter", "filtered", "the filter, memory type or user of the search leaves it out")
            return
        walk.passed("filter", "nothing in the request leaves it out")
        told = ", ".join(f"{name} place {one.rank} of {one.of}" for name, one in standing.channels.items())
        if standing.cut == "channels":
            missing = f" ({'; '.join(standing.degraded)})" if standing.degraded else ""
            walk.lost(
                "channels",
                "not_matched",
                f"it shares no word and no name with the query and is not near it in meaning{missing}",
            )
            return
        walk.passed("channels", told or _led_to(standing))
        if standing.cut == "depth":
            walk.lost(
                "depth", "too_deep", f"more than {request.candidates_max} memories match better ({told})"
            )
            return
        walk.passed("depth", f"it is one of {standing.candidates} candidates, at place {standing.score_rank}")
        fits = standing.relativity or 0.0
        if standing.cut == "relativity":
            walk.lost(
                "relativity",
                "below_relativity",
                f"it fits the query by {fits:.2f}, and the search asks for {request.relativity:.2f}",
            )
            return
        walk.passed("relativity", f"it fits by {fits:.2f}, asked for is {request.relativity:.2f}")
        if standing.cut == "dedup":
            by = f"what {standing.repeats.id} says" if standing.repeats else "what a better hit says"
            walk.lost("repetition", "repeated", f"it repeats {by} (dedup={request.dedup})")
            return
        walk.passed("repetition", "no better hit says the same")
        if standing.cut == "budget":
            walk.lost(
                "budget",
                "over_budget",
                f"it stands at place {standing.place}, and the search takes {request.top_k}",
            )
            return
        walk.passed("budget", f"it is found, at place {standing.place} of at most {request.top_k}")

    def _is_answered(self, asked: ExplainRequest, item: MemoryItem) -> bool:
        """Whether the search itself, asked now, gives the memory."""
        fields = asked.model_dump(exclude={"memory_id", "expected", "min_seq", "wait_ms", "mode"})
        data = self._search.handle_search_memories(APISearchRequest(**fields), 0).data or {}
        shown = [*data["text_mem"], *data["pref_mem"]]
        return any(one["id"] == item.id for bucket in shown for one in bucket["memories"])

    # -- what is still to come? ---------------------------------------------------------------------------

    def _tasks(self, asked: ExplainRequest, item: MemoryItem | None) -> list[QueuedTask]:
        """Tasks that wait, run or were given up and name the memory, or hold the text that was expected."""
        users = {asked.user_id, item.user_id} if item is not None else {asked.user_id}
        marks = [one for one in (asked.memory_id, item.id if item else None) if one]
        marks += [source.item_id for source in item.sources if source.item_id] if item else []
        text = (asked.expected or (item.memory if item else "")).casefold()
        found: list[QueuedTask] = []
        for user_id in sorted(users):
            if not access.current().has_user(user_id):
                continue
            open_ones = [
                one
                for one in self._queue.statuses(user_id=user_id, limit=TASKS_LOOKED_AT)
                if one.state not in _OVER and one.state is not TaskState.FAILED
            ]
            messages = {one.key: one.message for one in self._queue.get([one.key for one in open_ones])}
            for one in open_ones:
                message = messages.get(one.key)
                if message is None or not _concerns(message.content, marks, text):
                    continue
                ahead = sum(
                    other.mem_cube_id == one.mem_cube_id
                    and class_of(other.label) == class_of(one.label)
                    and other.submitted_at < one.submitted_at
                    for other in open_ones
                )
                waits = one.state is not TaskState.IN_PROGRESS
                found.append(
                    QueuedTask(
                        key=one.key,
                        label=one.label,
                        state=str(one.state),
                        ahead=ahead if waits else None,
                        attempts=one.attempts,
                        error=one.error,
                    )
                )
            for letter in self._queue.dead.list(user_id=user_id, limit=TASKS_LOOKED_AT):
                if _concerns(letter.message.content, marks, text):
                    found.append(
                        QueuedTask(
                            key=letter.key,
                            label=letter.message.label,
                            state=str(TaskState.FAILED),
                            ahead=None,
                            attempts=letter.attempts,
                            error=letter.error,
                        )
                    )
        return found[:TASKS_SHOWN]

    @staticmethod
    def _perhaps_on_its_way(tasks: Sequence[QueuedTask], walk: _Walk) -> None:
        """What was never written may still be queued, or was given up."""
        waiting = [one for one in tasks if one["state"] != str(TaskState.FAILED)]
        if tasks:
            walk.gates.clear()  # said more exactly below
        if waiting:
            one = waiting[0]
            place = "runs now" if one["ahead"] is None else f"has {one['ahead']} before it in its lane"
            walk.lost("queue", "queued", f"the {one['label']} task {one['key']} {place}")
        elif tasks:
            one = tasks[0]
            walk.lost("queue", "failed", f"the {one['label']} task {one['key']} was given up: {one['error']}")


def _led_to(standing: Standing) -> str:
    """How a memory was found that no channel has."""
    way = standing.ways[0] if standing.ways else Way("neighbours")
    if way.stage == "walk":
        return f"found by the name {way.by!r}, which leads to it from {way.from_id}"
    if way.stage == "again":
        return f"found by its nearness to the best hit {way.from_id}"
    return "found beside a neighbour that matches"


def _concerns(content: str, marks: Sequence[str], text: str) -> bool:
    return any(mark in content for mark in marks) or bool(text and text in content.casefold())


def _alike(wanted: frozenset[str], item: MemoryItem) -> float:
    """Share of the expected content words that the memory has."""
    return len(wanted & frozenset(analyse(item.memory))) / len(wanted) if wanted else 0.0


def _explained(walk: _Walk, tasks: list[QueuedTask]) -> Explained:
    standing = walk.standing or Standing("")
    last = walk.gates[-1]["detail"]
    unread = walk.item is not None and walk.item.raw and walk.item.read is ReadState.DUE
    return Explained(
        verdict=walk.verdict,
        explanation=last + ("; no facts were read from it yet" if unread else ""),
        memory=memory_shape(walk.item, relativity=standing.relativity) if walk.item else None,  # type: ignore[typeddict-item]
        gates=walk.gates,
        tasks=tasks,
        channels={
            name: {"rank": one.rank, "of": one.of, "score": round(one.score, 6)}
            for name, one in standing.channels.items()
        },
        score_rank=standing.score_rank,
        candidates=standing.candidates,
        relativity=None if standing.relativity is None else round(standing.relativity, 6),
        place=standing.place,
        stages={name: round(score, 6) for name, score in standing.parts.items()},
        found_by=[way_shape(way) for way in standing.ways],
    )
