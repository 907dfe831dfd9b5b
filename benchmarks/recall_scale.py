"""Large cubes for the speed of recall: many items that read like turns, with vectors that spread like theirs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.vectors import DiskCachedEmbedder
from memos.clock import SystemClock
from memos.evaluation import locomo
from memos.evaluation.metrics import percentile
from memos.memory.indexer import without_names
from memos.memory.item import Capacities, MemoryItem
from memos.memory.moments import parse_moment
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems, IndexedItem
from memos.retrieval.entities import entities
from memos.retrieval.hybrid import HybridRetriever, RecallRequest
from memos.retrieval.keywords import analyse

BATCH = 2_000
NOISE = 0.35  # of a copied vector, so that no two are alike
CUBE = "large"


@dataclass(frozen=True, slots=True)
class Scale:
    """What a cube of that size took."""

    items: int
    build_s: float  # without encoding
    query_p50_ms: float  # CPU, encoding excluded
    query_p95_ms: float


def measure(
    size: int, conversations: Sequence[locomo.Conversation], embedder: DiskCachedEmbedder, *, queries: int
) -> Scale:
    """Fill one cube with `size` items and ask it the questions of the conversations."""
    started = time.perf_counter()
    with _store(size) as store:
        store.bind_embedder(embedder.fingerprint, embedder.dim)
        for batch in _batches(size, conversations, embedder):
            store.apply([AddItems(tuple(batch))])
        build_s = time.perf_counter() - started
        retriever = HybridRetriever(store, embedder)
        texts = [question.text for conversation in conversations for question in conversation.questions]
        spread = texts[:: max(1, len(texts) // queries)][:queries]
        retriever.search(RecallRequest(query=spread[0], cube_ids=(CUBE,)))  # loads the vectors once
        taken = []
        for text in spread:
            # Asked first without counting, so that the text's vector is there.
            embedder.embed([text])
            cpu = time.process_time()
            recall = retriever.search(RecallRequest(query=text, cube_ids=(CUBE,)))
            taken.append(1_000 * (time.process_time() - cpu) - recall.timings_ms["encode"])
        return Scale(size, build_s, percentile(taken, 0.5), percentile(taken, 0.95))


@contextmanager
def _store(size: int) -> Iterator[SqliteStore]:
    with tempfile.TemporaryDirectory(prefix="memos-scale-") as folder:
        store = SqliteStore(
            Path(folder) / "memory.db",
            clock=SystemClock(),
            capacities=Capacities(long_term=max(size, 10_000)),
        )
        try:
            yield store
        finally:
            store.close()


def _batches(
    size: int, conversations: Sequence[locomo.Conversation], embedder: DiskCachedEmbedder
) -> Iterator[list[IndexedItem]]:
    """The turns again and again, each time in other sessions and with vectors moved a little."""
    turns = [turn for conversation in conversations for turns in conversation.sessions for turn in turns]
    names = {turn.name for turn in turns}
    known = [(turn, analyse(turn.text), entities(turn.text, sorted(names))) for turn in turns]
    vectors = embedder.embed([without_names(turn.text, names) or turn.text for turn in turns])
    random = np.random.default_rng(0)
    batch: list[IndexedItem] = []
    for number in range(size):
        place = number % len(turns)
        turn, terms, links = known[place]
        moved = vectors[place] + NOISE * random.standard_normal(embedder.dim).astype(np.float32) / np.sqrt(
            embedder.dim
        )
        item = MemoryItem(
            id=f"item {number}",
            cube_id=CUBE,
            user_id="user",
            memory=turn.text,
            participants=(turn.name,),
            session_id=f"{number // len(turns)} {turn.session_id} {turn.name}",
            position=number,
            links=links,
            happened_at=parse_moment(turn.at),
        )
        batch.append(IndexedItem(item, terms, (moved / np.linalg.norm(moved)).astype(np.float32)))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
