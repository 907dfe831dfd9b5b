"""All signals of all questions of a conversation as arrays, so that weights are tried without searching again.

A sheet holds what `HybridRetriever.pool` gives for each question, scattered over the items of the whole
conversation, and what the second look would find from any first hits; `Sheet.scores` gives what the retriever
itself would give, but for texts that it does not read because they rank low, and for the bounds of its walk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.vectors import DiskCachedEmbedder
from memos.clock import SystemClock
from memos.evaluation import locomo
from memos.evaluation.systems import USER_ID, Turn
from memos.memory.indexer import Indexer
from memos.memory.item import MemoryItem, Source
from memos.memory.moments import parse_moment
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems, Facet
from memos.models.minilm import MiniLMEmbedder
from memos.retrieval.entities import canonical
from memos.retrieval.fuse import weighted_sum
from memos.retrieval.hybrid import HybridRetriever, RecallRequest
from memos.retrieval.layout import Columns, Pool
from memos.retrieval.second import DAMPING, SEEDS, STEPS
from memos.retrieval.stages import Signals, rank, second
from memos.retrieval.weights import RecallWeights

DEPTH = 50  # hits of a question, as in the evaluation

_BY_QUERY = ("lexical", "names", "dense", "links", "participant", "time", "scenario", "recency")
_BY_ITEM = ("use", "asks", "substance")


@dataclass(frozen=True, slots=True)
class Means:
    """Averages over questions, and their number."""

    r5: float
    r10: float
    r20: float
    mrr: float
    ndcg10: float
    n: int = 0

    @property
    def mean(self) -> float:
        """Of the five."""
        return (self.r5 + self.r10 + self.r20 + self.mrr + self.ndcg10) / 5


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """One conversation: signals (questions, items) and which items each question wants."""

    name: str
    signals: Signals
    wanted: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]  # of wanted turns, those that are no candidates included
    categories: tuple[str, ...]
    alike: npt.NDArray[np.float32]  # (items, items) cosines
    walks: npt.NDArray[np.float32]  # (items, items) where a walk from each item ends

    def measure(self, weights: RecallWeights, *, category: str | None = None) -> Means:
        """The metrics under these weights, of one category or all."""
        return self.metrics(self.scores(weights), category=category)

    def scores(self, weights: RecallWeights) -> npt.NDArray[np.float32]:
        """The score of every item for every question, after both looks."""
        first = rank(self.signals, weights)
        if weights.again <= 0.0 and weights.walk <= 0.0:
            return first.score
        count = min(SEEDS, first.score.shape[1])
        seeds = np.argsort(-first.score, axis=1, kind="stable")[:, :count]
        shares = np.maximum(np.take_along_axis(first.score, seeds, axis=1), 0.0)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
        walked = np.einsum("qs,qsn->qn", shares, self.walks[seeds])
        np.put_along_axis(walked, seeds, 0.0, axis=1)
        looked = replace(self.signals, again=self.alike[seeds[:, 0]], walk=walked)
        more = weighted_sum(second(looked, weights), first.score)
        result: npt.NDArray[np.float32] = first.score + more
        return result

    def metrics(self, scores: npt.NDArray[np.float32], *, category: str | None = None) -> Means:
        """The metrics of given scores (questions, items)."""
        rows = np.array([category is None or one == category for one in self.categories])
        if not rows.any():
            return Means(0.0, 0.0, 0.0, 0.0, 0.0)
        scores, counts = scores[rows], self.counts[rows]
        depth = min(DEPTH, scores.shape[1])
        best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        hits = np.take_along_axis(self.wanted[rows], np.take_along_axis(best, order, axis=1), axis=1)
        first = np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1.0), 0.0)
        discounts = 1.0 / np.log2(np.arange(2, 12))
        ideal = np.cumsum(discounts)[np.minimum(counts, 10) - 1]
        gains = (hits[:, :10] * discounts[: hits[:, :10].shape[1]]).sum(axis=1)
        return Means(
            r5=float((hits[:, :5].sum(axis=1) / counts).mean()),
            r10=float((hits[:, :10].sum(axis=1) / counts).mean()),
            r20=float((hits[:, :20].sum(axis=1) / counts).mean()),
            mrr=float(first.mean()),
            ndcg10=float((gains / ideal).mean()),
            n=len(counts),
        )


def pooled(means: Sequence[Means]) -> Means:
    """The averages over all questions of several conversations."""
    total = sum(one.n for one in means)
    values = {
        field.name: sum(getattr(one, field.name) * one.n for one in means) / max(1, total)
        for field in fields(Means)
        if field.name != "n"
    }
    return Means(**values, n=total)


@contextmanager
def filled_store(
    conversations: Sequence[locomo.Conversation],
) -> Iterator[tuple[SqliteStore, DiskCachedEmbedder]]:
    """A store in a temporary folder with all turns of the conversations, one cube each."""
    embedder = DiskCachedEmbedder(MiniLMEmbedder.load())
    with tempfile.TemporaryDirectory(prefix="memos-recall-") as folder:
        store = SqliteStore(Path(folder) / "memory.db", clock=SystemClock())
        store.bind_embedder(embedder.fingerprint, embedder.dim)
        indexer = Indexer(embedder)
        for conversation in conversations:
            names = {turn.name for turns in conversation.sessions for turn in turns}
            for turns in conversation.sessions:
                items = [_item(conversation.name, place, turn) for place, turn in enumerate(turns)]
                store.apply([AddItems(tuple(indexer.index(items, participants=names)))])
        embedder.save()
        try:
            yield store, embedder
        finally:
            store.close()


def _item(cube_id: str, place: int, turn: Turn) -> MemoryItem:
    return MemoryItem(
        id=f"{cube_id} {turn.message_id}",
        cube_id=cube_id,
        user_id=USER_ID,
        memory=turn.text,
        participants=(turn.name,),
        role=turn.role,
        session_id=turn.session_id,
        position=place,
        sources=(Source(type="chat", message_id=turn.message_id),),
        happened_at=parse_moment(turn.at),
    )


def sheets(folder: Path, *, on_progress: Callable[[str], None] = lambda _: None) -> list[Sheet]:
    """The sheets of all conversations of a folder."""
    conversations = locomo.load(folder)
    with filled_store(conversations) as (store, embedder):
        retriever = HybridRetriever(store, embedder)
        made = []
        for conversation in conversations:
            made.append(_sheet(conversation, retriever, store))
            on_progress(conversation.name)
        embedder.save()
        return made


def _sheet(conversation: locomo.Conversation, retriever: HybridRetriever, store: SqliteStore) -> Sheet:
    pools = [
        retriever.pool(RecallRequest(query=question.text, cube_ids=(conversation.name,), top_k=DEPTH))
        for question in conversation.questions
    ]
    facets: dict[int, Facet] = {}
    for pool in pools:
        facets.update(zip((no for _, no in pool.keys), pool.facets, strict=True))
    numbers = sorted(facets)
    place = {no: index for index, no in enumerate(numbers)}
    wanted = np.zeros((len(pools), len(numbers)), dtype=bool)
    for row, question in enumerate(conversation.questions):
        ids = {f"{conversation.name} {turn}" for turn in question.wanted}
        wanted[row] = [facets[no].id in ids for no in numbers]
    with store.read(conversation.name) as view:
        vectors = view.vectors(numbers)
        hubs = frozenset(canonical(name) for name in view.participants())
    matrix = np.array([vectors[no] for no in numbers], dtype=np.float32)
    return Sheet(
        conversation.name,
        _scattered(pools, place, [facets[no] for no in numbers]),
        wanted,
        np.array([len(question.wanted) for question in conversation.questions]),
        tuple(question.category for question in conversation.questions),
        matrix @ matrix.T,
        _walks([facets[no] for no in numbers], hubs),
    )


def _walks(facets: Sequence[Facet], hubs: frozenset[str]) -> npt.NDArray[np.float32]:
    """For each item where the walk of the second look ends, without its bounds."""
    names: dict[str, int] = {}
    pairs = [
        (row, names.setdefault(link, len(names)))
        for row, facet in enumerate(facets)
        for link in facet.links
        if link not in hubs
    ]
    bears = np.zeros((len(facets), max(1, len(names))), dtype=np.float32)
    for row, column in pairs:
        bears[row, column] = 1.0
    gives = bears / np.maximum(bears.sum(axis=1, keepdims=True), 1.0)
    takes = bears.T / np.maximum(bears.sum(axis=0), 1.0)[:, None]
    step = DAMPING * gives @ takes
    reached, last = step.copy(), step
    for _ in range(STEPS - 1):
        last = last @ step
        reached += last
    return reached


def _scattered(pools: Sequence[Pool], place: dict[int, int], facets: list[Facet]) -> Signals:
    """One `Signals` of all questions over all items."""
    size = (len(pools), len(place))
    by_query = {name: np.zeros(size, dtype=np.float32) for name in _BY_QUERY}
    by_item = {name: np.zeros(len(place), dtype=np.float32) for name in _BY_ITEM}
    found = np.zeros(size, dtype=bool)
    tells_when = np.zeros(len(place), dtype=np.float32)
    for row, pool in enumerate(pools):
        columns = [place[no] for _, no in pool.keys]
        found[row, columns] = True
        for name in _BY_QUERY:
            by_query[name][row, columns] = getattr(pool.signals, name)[0]
        for name in _BY_ITEM:
            by_item[name][columns] = getattr(pool.signals, name)
        # Only for a query that asks for a time does the retriever look whether an item tells one.
        tells_when[columns] = np.maximum(tells_when[columns], pool.signals.tells_when)
    episodes, steps = Columns.of([(0, facet.no) for facet in facets], facets).surroundings()
    return Signals(
        found=found,
        asks_when=np.concatenate([pool.signals.asks_when for pool in pools]),
        asks_several=np.concatenate([pool.signals.asks_several for pool in pools]),
        tells_when=tells_when,
        again=np.zeros(size, dtype=np.float32),
        walk=np.zeros(size, dtype=np.float32),
        episodes=episodes,
        steps=steps,
        **by_query,
        **by_item,
    )
