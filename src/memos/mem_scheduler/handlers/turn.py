"""One turn of working memory: what is there, what is missing, what should stand there afterwards.

Reads and decides, writes nothing: `mem_update` applies the decision, and the scheduler's documented
`process_session_turn` shows it. Old and new memories are pooled and scored by one recall for the whole
query, so that all scores compare; searches for single gaps add what that recall would have left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from memos import log
from memos.clock import utc
from memos.errors import ModelError
from memos.mem_scheduler.handlers.context import RecallLimits, Services
from memos.mem_scheduler.handlers.edits import present
from memos.mem_scheduler.monitors.activity import Activity
from memos.mem_scheduler.monitors.intent import Intent
from memos.memory.item import MemoryItem, WorkingSet
from memos.memory.store import ItemFilter
from memos.memory.working import PINNED_TAG, Candidate, WorkingPlan, plan_working
from memos.memory.working_record import Use, WorkingRecord
from memos.retrieval.request import Hit, RecallRequest

logger = log.get_logger(__name__)

GAP_SHARE = 0.3  # of a gap's own relativity in the score of what it brought
OLDER_SHARE = 0.9  # of its own score for what an older query that waited as well brought
OLDER_MAX = 16  # older queries that are recalled for, the newest of them


@dataclass(frozen=True, slots=True)
class TurnQuery:
    """What is asked, by whom, of which cube. What the turn `turn_id` wrote is not recalled."""

    text: str
    user_id: str
    cube_id: str
    session_id: str = ""
    turn_id: str = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """Scored candidates for the places, and their items by id."""

    candidates: tuple[Candidate, ...] = ()
    items: Mapping[str, MemoryItem] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()


class SessionTurn:
    """The steps of a turn over the services. Thread-safe."""

    def __init__(self, services: Services, limits: RecallLimits) -> None:
        self._services = services
        self._limits = limits

    def intent(
        self, query: TurnQuery, working: WorkingSet, activity: Activity, record: WorkingRecord
    ) -> Intent:
        """Whether working memory suffices for `query`; `activity` is that of before the query."""
        services = self._services
        at = services.clock.now()
        intent = services.intent.detect_intent(
            query.text,
            working.items,
            activity=activity,
            relativity=self._relativity(query, working),
            spread=record.spread,
            news=self._has_news(query, activity),
        )
        if intent.trigger_retrieval or not services.activity.recall_due(
            activity, at=at, interval_s=self._limits.query_trigger_interval_s
        ):
            return intent
        return Intent(True, services.intent.gaps(query.text), "the last recall is too long ago")

    def pool(
        self,
        query: TurnQuery,
        working: WorkingSet,
        gaps: Sequence[str],
        *,
        older: Sequence[TurnQuery] = (),
    ) -> Pool:
        """Old and new memories together, scored against the whole query.

        `older` queries wait to be answered as well: what fits one of them best is scored against that one,
        a little lower, so that it finds a place beside what the newest needs.
        """
        capacity = self._services.store.capacities.working
        wanted = self._limits.candidates_max or capacity * self._limits.pool_factor
        recall = self._services.retriever.search(self._request(query, query.text, top_k=wanted))
        hits = {hit.item.id: hit for hit in recall.hits}
        old = {item.id for item in working.items}
        degraded = list(recall.degraded)
        brought: dict[str, tuple[float, str]] = {}
        for gap in gaps:
            if gap == query.text:
                continue
            found = self._services.retriever.search(self._request(query, gap, top_k=self._limits.top_k))
            degraded += found.degraded
            for hit in found.hits:
                share = GAP_SHARE * hit.relativity
                if share > brought.get(hit.item.id, (0.0, ""))[0]:
                    brought[hit.item.id] = (share, gap)
                hits.setdefault(hit.item.id, Hit(hit.item, _least(recall.hits), hit.relativity))
        asked_before, why = self._best_for(older, hits, besides=query.text)
        degraded += why
        kept = [hit for hit in hits.values() if hit.relativity >= self._limits.relativity_min]
        scores, remark = self._scores(query, kept)
        candidates = [
            Candidate(
                hit.item.id,
                max(
                    score + brought.get(hit.item.id, (0.0, ""))[0],
                    asked_before.get(hit.item.id, float("-inf")),
                ),
                _reason(hit, query, brought.get(hit.item.id, (0.0, ""))[1], hit.item.id in old),
            )
            for hit, score in zip(kept, scores, strict=True)
        ]
        items = {hit.item.id: hit.item for hit in kept} | {item.id: item for item in working.items}
        return Pool(tuple(candidates), items, tuple(dict.fromkeys([*degraded, *remark])))

    def _best_for(
        self, older: Sequence[TurnQuery], hits: dict[str, Hit], *, besides: str
    ) -> tuple[dict[str, float], list[str]]:
        """The score of what the older queries recall, each against its own; new hits are added to `hits`."""
        best: dict[str, float] = {}
        degraded: list[str] = []
        distinct = {query.text: query for query in older if query.text != besides}
        for query in list(distinct.values())[-OLDER_MAX:]:
            found = self._services.retriever.search(
                self._request(query, query.text, top_k=self._limits.top_k)
            )
            scores, remark = self._scores(query, found.hits)
            degraded += [*found.degraded, *remark]
            for hit, score in zip(found.hits, scores, strict=True):
                hits.setdefault(hit.item.id, hit)
                best[hit.item.id] = max(best.get(hit.item.id, float("-inf")), OLDER_SHARE * score)
        return best, degraded

    def plan(
        self,
        working: WorkingSet,
        pool: Pool,
        *,
        record: WorkingRecord | None = None,
        uses: Sequence[Use] = (),
        turn_id: str = "",
    ) -> tuple[WorkingPlan, Pool]:
        """The working set that follows, and the pool with all items that it names.

        Without a record the candidates alone decide. With one, what answers have used may come back without
        being recalled, if it is still live in this cube and not of the turn `turn_id` itself.
        """
        record = record or WorkingRecord()
        order, used = record.order, Counter(use.item_id for use in uses)
        pinned = frozenset(item.id for item in working.items if PINNED_TAG in item.tags)
        while True:
            plan = plan_working(
                working.entries,
                pool.candidates,
                capacity=self._services.store.capacities.working,
                now=utc(self._services.clock.now()),
                order=order,
                used=used,
                balance=record.balanced(uses),
                pinned=pinned,
            )
            unread = [entry.item_id for entry in plan.added if entry.item_id not in pool.items]
            if not unread:
                return plan, pool
            found = {item.id: item for item in present(self._services.store, unread)}
            here = {
                one: item
                for one, item in found.items()
                if item.live and item.cube_id == working.cube_id and not (turn_id and item.turn_id == turn_id)
            }
            pool = replace(pool, items={**pool.items, **here})
            gone = frozenset(unread) - here.keys()
            order = order.without(gone)
            used = Counter({one: times for one, times in used.items() if one not in gone})

    def _request(self, query: TurnQuery, text: str, *, top_k: int) -> RecallRequest:
        return RecallRequest(
            query=text,
            cube_ids=(query.cube_id,),
            user_id=query.user_id,
            top_k=top_k,
            session_id=query.session_id,
            exclude_turn_ids=frozenset({query.turn_id}),
            dedup="sim",
        )

    def _scores(self, query: TurnQuery, hits: Sequence[Hit]) -> tuple[list[float], list[str]]:
        """The reranker's scores, recall's own where there is none or it fails."""
        reranker = self._services.reranker
        if reranker is not None and hits:
            try:
                return reranker.rerank(query.text, [hit.item.memory for hit in hits]), []
            except ModelError as error:
                logger.warning("rerank.failed", error=type(error).__name__)
                return [hit.score for hit in hits], [f"not reranked: {type(error).__name__}"]
        return [hit.score for hit in hits], []

    def _relativity(self, query: TurnQuery, working: WorkingSet) -> dict[str, float]:
        """How well each working memory fits the query, on recall's absolute scale."""
        if not working.items:
            return {}
        ids = tuple(item.id for item in working.items)
        recall = self._services.retriever.search(
            RecallRequest(
                query=query.text,
                cube_ids=(query.cube_id,),
                user_id=query.user_id,
                top_k=len(ids),
                filter=ItemFilter(cube_ids=(query.cube_id,), ids=ids),
                dedup="no",
                stages=("-again", "-walk", "-lending"),
            )
        )
        return {hit.item.id: hit.relativity for hit in recall.hits}

    def spread(self, candidates: Sequence[Candidate]) -> float | None:
        """How far the best candidate stands above the one in the middle of the places; None where there are
        fewer than places, or where the scores are a reranker's, whose scale nobody knows. What stands in working
        memory for its uses says nothing about how sure a recall was."""
        capacity = self._services.store.capacities.working
        if self._services.reranker is not None or len(candidates) < capacity:
            return None
        scores = sorted((one.score for one in candidates), reverse=True)
        return scores[0] - scores[(capacity - 1) // 2]

    def _has_news(self, query: TurnQuery, activity: Activity) -> bool:
        """Whether anything but this turn's own words was stored since the last recall."""
        if activity.recalled_at is None:
            return True
        newer = ItemFilter(cube_ids=(query.cube_id,), created_from=utc(activity.recalled_at))
        page = self._services.store.find(newer, limit=8)
        return any(item.turn_id != query.turn_id or not item.turn_id for item in page.items)


def _least(hits: Sequence[Hit]) -> float:
    return hits[-1].score if hits else 0.0


def _reason(hit: Hit, query: TurnQuery, gap: str, is_old: bool) -> str:
    best = sorted(hit.parts.items(), key=lambda part: -part[1])[:2]
    why = ", ".join(f"{stage} {share:.2f}" for stage, share in best if share > 0)
    what = f"fits the query ({why})" if why else "fits the query"
    if gap:
        what = f"{what}; recalled for a gap"
    return what if is_old else f"recalled: {what}"
