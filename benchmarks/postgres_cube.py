"""One large cube on PostgreSQL: its index of vectors, made as `memos migrate` makes it, and what it costs and loses.

    python -m benchmarks.postgres_cube [--quick] [--json FILE]

Items read like turns of the conversations and have vectors that spread like theirs, as in `recall_scale`; the rows
`real_…` are encodings as they came out of the model: turns, their sentences, and turns with the one before. The server is a
private one with fsync on; the cube is filled while the extension is not there, then the extension is installed and the
index made. Times are without encoding; `server` is the processor time of PostgreSQL. Loss is the share of the nearest 200
by comparing with every vector that the search of vectors misses.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from benchmarks.postgres_server import PrivatePostgres
from benchmarks.processes import cpu_s
from benchmarks.recall_scale import BATCH, CUBE, Timed, Turns, asked_ms, loss_of
from benchmarks.report import Bar, Options, Row, main
from benchmarks.vectors import DiskCachedEmbedder
from memos.clock import SystemClock
from memos.evaluation import locomo
from memos.evaluation.metrics import percentile
from memos.memory.item import Capacities, MemoryItem
from memos.memory.postgres import PoolBounds, PostgresAddress, PostgresStore
from memos.memory.postgres.connection import bring_up
from memos.memory.sentences import sentences
from memos.memory.store import AddItems, IndexedItem
from memos.models.minilm import MiniLMEmbedder
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.keywords import analyse

FOLDER = Path(os.environ.get("MEMOS_DATA_LOCOMO", "../shared/data/locomo"))
SIZE, QUICK_SIZE = 100_000, 2_000
QUERIES = 100
SETTINGS = ("shared_buffers=512MB", "maintenance_work_mem=512MB")
OWNER, ROLE = "bench_owner", "bench_app"


@dataclass(frozen=True, slots=True)
class Filled:
    """What filling and indexing took."""

    fill_s: float
    fill_cpu_s: float  # of the server
    build_s: float
    build_cpu_s: float
    index_mb: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What one recall took, in ms."""

    program: list[float]
    clock: list[float]
    server: float
    loss: float


def measure(options: Options) -> list[Row]:
    """All rows."""
    size = QUICK_SIZE if options.quick else SIZE
    conversations = locomo.load(FOLDER)
    embedder = DiskCachedEmbedder(MiniLMEmbedder.load())
    texts = [question.text for conversation in conversations for question in conversation.questions]
    questions = texts[:: max(1, len(texts) // QUERIES)][:QUERIES]
    rows = []
    real = () if options.quick else tuple(_real(conversations, embedder))
    for name, count, items in (
        ("", size, Turns(conversations, embedder).items(size)),
        ("real_", len(real), iter(real)),
    ):
        if not count:
            rows.append(Row(f"{name}loss", Bar("<=", 0.01), None, "share", "--quick"))
            continue
        print(f"{count:,} items", file=sys.stderr, flush=True)
        with _server() as (server, address):
            filled = _fill(server, address, count, items, embedder)
            asked = _ask(server, address, count, questions, embedder)
        embedder.save()
        rows += _rows(name, count, filled, asked)
    return rows


def _rows(name: str, count: int, filled: Filled, asked: Asked) -> list[Row]:
    note = f"{count:,} items"
    return [
        Row(f"{name}fill", None, count / filled.fill_s, "items/s", f"{note}, without encoding and index"),
        Row(f"{name}fill_server", None, 1_000 * filled.fill_cpu_s / count, "CPU ms an item", note),
        Row(f"{name}index_build", None, filled.build_s, "s", f"{filled.build_cpu_s:.0f} s of CPU"),
        Row(f"{name}index_size", None, filled.index_mb, "MB"),
        Row(f"{name}query_p50", None, percentile(asked.program, 0.5), "CPU ms", "of the program"),
        Row(f"{name}query_p95", None, percentile(asked.program, 0.95), "CPU ms", "of the program"),
        Row(f"{name}query_server", None, asked.server, "CPU ms", "mean"),
        Row(f"{name}query_clock_p50", None, percentile(asked.clock, 0.5), "ms"),
        Row(f"{name}query_clock_p95", None, percentile(asked.clock, 0.95), "ms"),
        Row(f"{name}loss", Bar("<=", 0.01), asked.loss, "share", note),
    ]


@contextmanager
def _server() -> Iterator[tuple[PrivatePostgres, PostgresAddress]]:
    """A server, and the address of a store whose owner may not install extensions."""
    with PrivatePostgres(fsync=True, settings=SETTINGS) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            for statement in (
                f"CREATE ROLE {OWNER} LOGIN",
                f"CREATE ROLE {ROLE}",
                f"GRANT {ROLE} TO {OWNER}",
                f"GRANT CREATE ON DATABASE postgres TO {OWNER}",
            ):
                connection.execute(statement.encode())
        parts = urlsplit(server.url)
        url = urlunsplit(parts._replace(netloc=f"{OWNER}@{parts.hostname}:{parts.port}"))
        yield server, PostgresAddress(url, schema="bench", role=ROLE)


@contextmanager
def _opened(address: PostgresAddress, size: int) -> Iterator[PostgresStore]:
    store = PostgresStore(
        address,
        clock=SystemClock(),
        capacities=Capacities(long_term=max(size, 10_000)),
        bounds=PoolBounds(exact_max=min(PoolBounds().exact_max, size // 2)),
    )
    try:
        yield store
    finally:
        store.close()


def _fill(
    server: PrivatePostgres,
    address: PostgresAddress,
    size: int,
    items: Iterator[IndexedItem],
    embedder: DiskCachedEmbedder,
) -> Filled:
    with _opened(address, size) as store:
        store.bind_embedder(embedder.fingerprint, embedder.dim)
        taken, used = 0.0, 0.0
        while batch := tuple(itertools.islice(items, BATCH)):
            started, before = time.perf_counter(), cpu_s(server.pid)
            store.apply([AddItems(batch)])
            taken += time.perf_counter() - started
            used += cpu_s(server.pid) - before
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("VACUUM ANALYZE")
        started, before = time.perf_counter(), cpu_s(server.pid)
        bring_up(address, dry_run=False)
        build_s, build_cpu_s = time.perf_counter() - started, cpu_s(server.pid) - before
        connection.execute("VACUUM ANALYZE")
        row = connection.execute(
            "SELECT sum(pg_relation_size(indexrelid)) FROM pg_stat_all_indexes "
            "JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam WHERE amname = 'hnsw'"
        ).fetchone()
    assert row is not None
    return Filled(taken, used, build_s, build_cpu_s, float(row[0]) / 1e6)


def _ask(
    server: PrivatePostgres,
    address: PostgresAddress,
    size: int,
    questions: Sequence[str],
    embedder: DiskCachedEmbedder,
) -> Asked:
    with _opened(address, size) as store:
        store.bind_embedder(embedder.fingerprint, embedder.dim)
        timed = Timed(embedder)
        retriever = HybridRetriever(store, timed)
        vectors = embedder.embed(questions)
        for text in questions[:10]:
            asked_ms(retriever, timed, text, CUBE)
        program, clock = [], []
        before = cpu_s(server.pid)
        for text in questions:
            started = time.perf_counter()
            program.append(asked_ms(retriever, timed, text, CUBE))
            clock.append(1_000 * (time.perf_counter() - started))
        used = 1_000 * (cpu_s(server.pid) - before) / len(questions)
        return Asked(program, clock, used, loss_of(store, vectors))


def _real(
    conversations: Sequence[locomo.Conversation], embedder: DiskCachedEmbedder
) -> Iterator[IndexedItem]:
    """Every text once, with its own encoding."""
    texts: dict[str, None] = {}
    for conversation in conversations:
        for turns in conversation.sessions:
            before = ""
            for turn in turns:
                for text in (
                    turn.text,
                    *(one.text for one in sentences(turn.text)),
                    f"{before} {turn.text}".strip(),
                ):
                    texts[text] = None
                before = turn.text
    for start in range(0, len(texts), BATCH):
        batch = list(itertools.islice(texts, start, start + BATCH))
        for number, (text, vector) in enumerate(zip(batch, embedder.embed(batch), strict=True), start):
            item = MemoryItem(id=f"item {number}", cube_id=CUBE, user_id="user", memory=text)
            yield IndexedItem(item, analyse(text), vector)


if __name__ == "__main__":
    main(
        "One large cube on PostgreSQL",
        measure,
        settings={"data": FOLDER, "items": SIZE, "server": "; ".join(SETTINGS)},
    )
