"""Streams of questions for working memory, and the recall that production would make for each.

Every question of a conversation is asked of the cube that holds the conversation, in one of four orders, all
made from a fixed seed and the conversation's name:

natural    in the order of the data, each once
revisited  the natural order, and before each next question, with probability 1/2, one of those asked before
           again, a number of questions back that is spread exponentially around 8; two asks a question
popular    questions drawn by Zipf's law (exponent 1) over a random order, two asks a question
topics     windows of twelve questions in natural order that move on by six; twelve draws from each
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.recall_sheets import filled_store
from memos.clock import SystemClock
from memos.evaluation import locomo
from memos.evaluation.systems import USER_ID
from memos.mem_scheduler.handlers.context import RecallLimits, Services
from memos.mem_scheduler.handlers.turn import SessionTurn, TurnQuery
from memos.mem_scheduler.monitors.activity import ActivityMonitor
from memos.mem_scheduler.monitors.intent import IntentMonitor
from memos.memory.indexer import Indexer
from memos.memory.item import WorkingSet
from memos.memory.working import Candidate
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.searcher import Searcher
from memos.testing import RecordingSink

POOL_FACTOR = RecallLimits().pool_factor


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: the items that it wants and what recall finds for it, best first."""

    wanted: frozenset[str]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Talk:
    """The questions of one conversation in natural order."""

    name: str
    asked: tuple[Asked, ...]


def load(folder: Path, *, capacity_max: int, on_progress: Callable[[str], None]) -> list[Talk]:
    """The conversations of `folder`, recalled by the steps of `mem_update`, with weights fitted without each."""
    conversations = locomo.load(folder)
    limits = RecallLimits(candidates_max=POOL_FACTOR * capacity_max)
    talks = []
    with filled_store(conversations) as (store, embedder):
        for conversation in conversations:
            weights = locomo.fold_weights(conversation.name)
            retriever = HybridRetriever(store, embedder, weights=weights)
            services = Services(
                store=store,
                indexer=Indexer(embedder),
                retriever=retriever,
                searcher=Searcher(retriever),
                clock=SystemClock(),
                sink=RecordingSink(),
                intent=IntentMonitor(embedder),
                activity=ActivityMonitor(),
                cube_of=lambda cube_id: cube_id,
            )
            turn, cube = SessionTurn(services, limits), conversation.name
            empty = WorkingSet(cube, 0, (), ())
            asked = []
            for question in conversation.questions:
                query = TurnQuery(question.text, USER_ID, cube)
                pool = turn.pool(query, empty, services.intent.gaps(question.text))
                best = sorted(pool.candidates, key=lambda one: -one.score)
                wanted = frozenset(f"{cube} {turn_id}" for turn_id in question.wanted)
                asked.append(Asked(wanted, tuple(best)))
            talks.append(Talk(cube, tuple(asked)))
            on_progress(f"recalled for {cube}")
        embedder.save()
    return talks


def natural(talk: Talk, seed: int) -> list[int]:
    return list(range(len(talk.asked)))


def revisited(talk: Talk, seed: int) -> list[int]:
    chance, order, fresh = random.Random(f"{seed} {talk.name}"), list[int](), 0
    while len(order) < 2 * len(talk.asked):
        if fresh < len(talk.asked) and (not order or chance.random() < 0.5):
            order.append(fresh)
            fresh += 1
        else:
            order.append(order[-min(len(order), 1 + int(chance.expovariate(1 / 8)))])
    return order


def popular(talk: Talk, seed: int) -> list[int]:
    chance = random.Random(f"{seed} {talk.name}")
    order = list(range(len(talk.asked)))
    chance.shuffle(order)
    weights = [1 / rank for rank in range(1, len(order) + 1)]
    return chance.choices(order, weights=weights, k=2 * len(order))


def topics(talk: Talk, seed: int) -> list[int]:
    chance = random.Random(f"{seed} {talk.name}")
    questions = range(len(talk.asked))
    starts = range(0, len(talk.asked), 6)
    return [chance.choice(questions[start : start + 12]) for start in starts for _ in range(12)]


STREAMS: dict[str, Callable[[Talk, int], Sequence[int]]] = {
    "natural": natural,
    "revisited": revisited,
    "popular": popular,
    "topics": topics,
}
