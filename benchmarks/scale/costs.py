"""What one unit of each kind of work costs in CPU time, at several sizes.

A runtime with the production defaults on SQLite, or on the PostgreSQL at a given address, scheduler included; embedding is part of a turn and of an add, and
of a search. `message` is a task with a handler that does nothing: what the queue and the scheduler cost by themselves.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.item import MemoryItem
from memos.memory.store import AddItems, IndexedItem
from memos.retrieval.keywords import analyse
from memos.retrieval.request import RecallRequest
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import run_until_idle

LABEL = "benchmark"
FILL_BATCH = 2_000
WAIT_S = 600.0
WORDS = [
    "harbour",
    "engine",
    "boat",
    "garden",
    "doctor",
    "violin",
    "kitchen",
    "train",
    "winter",
    "budget",
    "holiday",
    "school",
    "dentist",
    "painting",
    "mountain",
    "recipe",
    "laptop",
    "marathon",
    "neighbour",
    "birthday",
    "concert",
    "museum",
    "bicycle",
    "passport",
    "insurance",
    "coffee",
    "sister",
    "meeting",
    "flight",
    "river",
]


STORE_URL = "BENCH_STORE_URL"  # a database to be measured beside SQLite


@contextmanager
def installation(
    *, store_url: str = "", environment: Mapping[str, str] | None = None, **scheduler: object
) -> Iterator[Runtime]:
    """A runtime over a folder of its own, started; its memory in a schema of its own at `store_url`, if given.

    `environment`: settings besides, such as those of a queue.
    """
    with _schema(store_url) as store, opened({**store, **(environment or {})}, **scheduler) as runtime:
        yield runtime


@contextmanager
def opened(environment: Mapping[str, str], *, start: bool = True, **scheduler: object) -> Iterator[Runtime]:
    """A runtime of these settings over a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="memos-scale-") as folder:
        settings = Settings.load({"MEMOS_HOME": folder, **environment})
        memory = settings.memory.model_copy(update={"long_term_capacity": 200_000})
        changed = settings.scheduler.model_copy(update=scheduler)
        settings = settings.model_copy(update={"memory": memory, "scheduler": changed})
        with build(settings, start=start) as runtime:
            yield runtime


@contextmanager
def _schema(store_url: str) -> Iterator[dict[str, str]]:
    """Settings of a schema and a role that are dropped at the end."""
    if not store_url:
        yield {}
        return
    import psycopg
    from psycopg import sql

    name = f"bench_{os.getpid()}_{time.monotonic_ns()}"
    try:
        yield {
            "MEMOS_STORE__URL": store_url,
            "MEMOS_STORE__SCHEMA_NAME": name,
            "MEMOS_STORE__ROLE": name,
        }
    finally:
        with psycopg.connect(store_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def passed_ms(since: tuple[float, float], count: int) -> tuple[float, float]:
    """(CPU ms of this process, ms on the clock) for one of `count` since `now()`."""
    cpu, wall = now()
    return 1_000 * (cpu - since[0]) / count, 1_000 * (wall - since[1]) / count


def now() -> tuple[float, float]:
    """(CPU seconds of this process, seconds on the clock)."""
    return time.process_time(), time.perf_counter()


def sentence(chance: random.Random) -> str:
    """Words of a life, in no order."""
    return (
        "I told you about the "
        + " and the ".join(chance.sample(WORDS, 4))
        + f" on day {chance.randrange(9999)}."
    )


def message_ms(cubes: int, *, count: int) -> float:
    """CPU ms of one message from submit to finish, over `cubes` cubes of as many users."""
    with installation() as runtime:
        runtime.scheduler.register_handlers({LABEL: lambda messages: None})
        sent = [
            ScheduleMessageItem(
                user_id=f"u{n % cubes}", mem_cube_id=f"c{n % cubes}", label=LABEL, content="x"
            )
            for n in range(count)
        ]
        before = time.process_time()
        for one in sent:
            runtime.scheduler.submit_messages([one])
        run_until_idle(runtime.scheduler, WAIT_S)
        return 1_000 * (time.process_time() - before) / count


def fill(runtime: Runtime, cube_id: str, items: int, chance: random.Random) -> None:
    """Items that read like turns, with vectors of no meaning: encoding 100,000 would take an hour."""
    vectors = np.random.default_rng(chance.randrange(2**31))
    dim = runtime.embedder.dim if runtime.embedder is not None else 0
    for start in range(0, items, FILL_BATCH):
        batch = []
        for number in range(start, min(items, start + FILL_BATCH)):
            text = sentence(chance)
            item = MemoryItem(id=f"{cube_id}/{number}", cube_id=cube_id, user_id=cube_id, memory=text)
            vector = vectors.standard_normal(dim).astype(np.float32) if dim else None
            if vector is not None:
                vector /= np.linalg.norm(vector)
            batch.append(IndexedItem(item, analyse(text), vector))
        runtime.store.apply([AddItems(tuple(batch))])


def recall_ms(runtime: Runtime, cubes: list[str], *, queries: int, chance: random.Random) -> float:
    """CPU ms of one search, the encoding of its query included, in cubes taken at random."""
    asked = [(sentence(chance), chance.choice(cubes)) for _ in range(queries)]
    runtime.retriever.search(RecallRequest(query="warm up", cube_ids=(cubes[0],)))
    before = time.process_time()
    for query, cube_id in asked:
        runtime.retriever.search(RecallRequest(query=query, cube_ids=(cube_id,)))
    return 1_000 * (time.process_time() - before) / queries


def turn_ms(runtime: Runtime, cube_id: str, *, turns: int, chance: random.Random) -> float:
    """CPU ms of a whole turn: what was said is added, recall asked, `query` and `answer` queued, and all that
    follows is run: reading, working memory, preferences."""
    before = time.process_time()
    for _ in range(turns):
        said, answer = sentence(chance), sentence(chance)
        conversation = [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]
        runtime.chat.writer.write(conversation, user_id=cube_id, cube_ids=[cube_id], read="later")
        runtime.retriever.search(RecallRequest(query=said, cube_ids=(cube_id,)))
        runtime.scheduler.submit_messages(
            [
                ScheduleMessageItem(user_id=cube_id, mem_cube_id=cube_id, label=label, content=content)
                for label, content in (("query", said), ("answer", answer))
            ]
        )
        run_until_idle(runtime.scheduler, WAIT_S)
    return 1_000 * (time.process_time() - before) / turns


def bytes_an_item(runtime: Runtime, items: int) -> float:
    """Bytes of the memory file for one item with its terms, vector and links."""
    return Path(runtime.settings.store_path).stat().st_size / items
