"""Large cubes and many cubes: items that read like turns, with vectors that spread like theirs.

`measure` fills one cube and asks it. `many` fills many cubes and touches them in turn in a process of its own,
which has nothing else in memory; that is where resident memory and cold cubes are measured.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.vectors import DiskCachedEmbedder
from memos.clock import SystemClock
from memos.evaluation import locomo
from memos.evaluation.metrics import percentile
from memos.memory.indexer import without_names
from memos.memory.item import Capacities, MemoryItem
from memos.memory.moments import parse_moment
from memos.memory.relational.store import RelationalStore
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems, IndexedItem
from memos.models.base import Vectors
from memos.models.minilm import MiniLMEmbedder
from memos.retrieval.entities import entities
from memos.retrieval.hybrid import HybridRetriever, RecallRequest
from memos.retrieval.keywords import analyse

BATCH = 2_000
NOISE = 0.35  # of a copied vector, so that no two are alike
CUBE = "large"
DEPTH = 200  # hits of a channel, as recall asks for them
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Scale:
    """What a cube of that size took."""

    items: int
    build_s: float  # without encoding
    items_per_s: float  # written, wall time
    load_s: float  # the first search of a process, wall time
    loss: float  # share of the first `DEPTH` by exact comparison that the search of vectors misses
    query_p50_ms: float  # CPU, encoding excluded
    query_p95_ms: float


@dataclass(frozen=True, slots=True)
class Many:
    """What many cubes took, touched one after the other. CPU times without encoding."""

    cubes: int
    limit_bytes: int
    grown_bytes: int  # resident memory over that of before the first query, at its highest
    rss_bytes: int
    cold_p50_ms: float
    cold_p95_ms: float
    warm_p50_ms: float
    warm_p95_ms: float


def measure(
    size: int, conversations: Sequence[locomo.Conversation], embedder: DiskCachedEmbedder, *, queries: int
) -> Scale:
    """Fill one cube with `size` items and ask it the questions of the conversations."""
    texts = [question.text for conversation in conversations for question in conversation.questions]
    spread = texts[:: max(1, len(texts) // queries)][:queries]
    with tempfile.TemporaryDirectory(prefix="memos-scale-") as folder:
        with _opened(Path(folder), size) as store:
            build_s = _fill(store, Turns(conversations, embedder).items(size), embedder)
        with _opened(Path(folder), size) as store:
            store.bind_embedder(embedder.fingerprint, embedder.dim)
            timed = Timed(embedder)
            retriever = HybridRetriever(store, timed)
            vectors = embedder.embed(spread)
            started = time.perf_counter()
            retriever.search(RecallRequest(query=spread[0], cube_ids=(CUBE,)))
            load_s = time.perf_counter() - started
            taken = [asked_ms(retriever, timed, text, CUBE) for text in spread]
            loss = loss_of(store, vectors)
        return Scale(
            size, build_s, size / build_s, load_s, loss, percentile(taken, 0.5), percentile(taken, 0.95)
        )


def many(
    count: int,
    each: int,
    conversations: Sequence[locomo.Conversation],
    embedder: DiskCachedEmbedder,
    *,
    limits_bytes: Sequence[int],
) -> list[Many]:
    """Fill `count` cubes with `each` items; then, for each bound of the cache, touch all of them in turn."""
    with tempfile.TemporaryDirectory(prefix="memos-scale-") as folder:
        with _opened(Path(folder), each) as store:
            turns = Turns(conversations, embedder)
            for number in range(count):
                _fill(store, turns.items(each, cube_id=f"cube {number}"), embedder)
                if number % 50 == 49:
                    print(f"{number + 1:,} of {count:,} cubes filled", file=sys.stderr, flush=True)
        texts = [question.text for conversation in conversations for question in conversation.questions]
        found = []
        for limit in limits_bytes:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found.append(pool.apply(_touch, (Path(folder), count, each, limit, texts)))
        return found


def _touch(folder: Path, count: int, each: int, limit: int, texts: Sequence[str]) -> Many:
    """In a process of its own: one query to each cube in turn, then several to the cubes touched last."""
    embedder = DiskCachedEmbedder(MiniLMEmbedder.load())
    embedder.embed(texts[:count])
    with _opened(folder, each, cache_bytes=limit) as store:
        store.bind_embedder(embedder.fingerprint, embedder.dim)
        timed = Timed(embedder)
        retriever = HybridRetriever(store, timed)
        gc.collect()
        before = highest = _rss_bytes()
        asked = itertools.cycle(texts)
        cold, warm = [], []
        for number in range(count):
            cold.append(asked_ms(retriever, timed, next(asked), f"cube {number}"))
            highest = max(highest, _rss_bytes())
        for number in range(max(0, count - 20), count):
            warm += [asked_ms(retriever, timed, next(asked), f"cube {number}") for _ in range(5)]
        highest = max(highest, _rss_bytes())
    return Many(
        count,
        limit,
        highest - before,
        highest,
        percentile(cold, 0.5),
        percentile(cold, 0.95),
        percentile(warm, 0.5),
        percentile(warm, 0.95),
    )


class Timed:
    """An embedder that knows the CPU time that it has taken."""

    def __init__(self, inner: DiskCachedEmbedder) -> None:
        self._inner = inner
        self.cpu_s = 0.0
        self.dim, self.fingerprint = inner.dim, inner.fingerprint

    def embed(self, texts: Sequence[str]) -> Vectors:
        cpu = time.process_time()
        try:
            return self._inner.embed(texts)
        finally:
            self.cpu_s += time.process_time() - cpu


def asked_ms(retriever: HybridRetriever, timed: Timed, text: str, cube_id: str) -> float:
    """CPU milliseconds of one recall, without encoding."""
    before, cpu = timed.cpu_s, time.process_time()
    retriever.search(RecallRequest(query=text, cube_ids=(cube_id,)))
    return 1_000 * (time.process_time() - cpu - (timed.cpu_s - before))


def loss_of(store: RelationalStore, queries: Vectors) -> float:
    """Against all stored vectors, compared one by one."""
    missed = []
    with store._database.read() as tables:
        nos, matrix = _table(list(tables.recall.vectors(1)))
    with store.read(CUBE) as view:
        for query in queries:
            exact = set(nos[np.argsort(-(matrix @ query))[:DEPTH]].tolist())
            found = view.search_vector(query, limit=DEPTH)
            missed.append(len(exact - found.keys()) / len(exact))
    return float(np.mean(missed))


def _table(rows: list[tuple[int, bytes]]) -> tuple[np.ndarray, np.ndarray]:
    nos = np.array([no for no, _ in rows])
    return nos, np.frombuffer(b"".join(value for _, value in rows), dtype="<f4").reshape(len(rows), -1)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _opened(folder: Path, size: int, *, cache_bytes: int = 512 * MIB) -> Iterator[SqliteStore]:
    store = SqliteStore(
        folder / "memory.db",
        clock=SystemClock(),
        capacities=Capacities(long_term=max(size, 10_000)),
        vector_cache_bytes_max=cache_bytes,
    )
    try:
        yield store
    finally:
        store.close()


def _fill(store: SqliteStore, items: Iterator[IndexedItem], embedder: DiskCachedEmbedder) -> float:
    """Write the items in batches; the seconds that the store took."""
    store.bind_embedder(embedder.fingerprint, embedder.dim)
    taken = 0.0
    while batch := tuple(itertools.islice(items, BATCH)):
        started = time.perf_counter()
        store.apply([AddItems(batch)])
        taken += time.perf_counter() - started
    return taken


class Turns:
    """The turns of all conversations, each read and encoded once."""

    def __init__(self, conversations: Sequence[locomo.Conversation], embedder: DiskCachedEmbedder) -> None:
        turns = [turn for conversation in conversations for turns in conversation.sessions for turn in turns]
        names = {turn.name for turn in turns}
        self._names = sorted(names)
        self._turns = turns
        self._vectors = embedder.embed([without_names(turn.text, names) or turn.text for turn in turns])
        self._read: dict[int, tuple[MemoryItem, dict[str, int]]] = {}

    def items(self, size: int, *, cube_id: str = CUBE) -> Iterator[IndexedItem]:
        """The turns again and again, each time in other sessions and with vectors moved a little."""
        random = np.random.default_rng(0)
        count, dim = self._vectors.shape
        for number in range(size):
            item, terms = self._item(number % count)
            moved = self._vectors[number % count] + NOISE * random.standard_normal(dim) / np.sqrt(dim)
            placed = replace(
                item,
                id=f"{cube_id} item {number}",
                cube_id=cube_id,
                session_id=f"{number // count} {item.session_id}",
                position=number,
            )
            yield IndexedItem(placed, terms, (moved / np.linalg.norm(moved)).astype(np.float32))

    def _item(self, place: int) -> tuple[MemoryItem, dict[str, int]]:
        if place not in self._read:
            turn = self._turns[place]
            item = MemoryItem(
                id="",
                cube_id=CUBE,
                user_id="user",
                memory=turn.text,
                participants=(turn.name,),
                session_id=f"{turn.session_id} {turn.name}",
                links=tuple(entities(turn.text, self._names)),
                happened_at=parse_moment(turn.at),
            )
            self._read[place] = item, dict(analyse(turn.text))
        return self._read[place]
