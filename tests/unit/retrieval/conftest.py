"""A small world for recall: a store, an embedder that knows words only, and a way to fill cubes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memos.memory.indexer import Indexer
from memos.memory.item import MemoryItem, Source
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems
from memos.retrieval.keywords import analyse
from memos.testing import ManualClock

NOW = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)  # where ManualClock stands
DIM = 128


class WordEmbedder:
    """Texts are alike as far as they share stems: deterministic, and close to nothing else."""

    dim = DIM
    fingerprint = "words-1"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.texts.extend(texts)
        vectors = np.full((len(texts), DIM), 1e-6, dtype=np.float32)
        for row, text in enumerate(texts):
            for term, count in analyse(text).items():
                vectors[row, zlib.crc32(term.encode()) % DIM] += count
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def item(item_id: str, memory: str, **fields: Any) -> MemoryItem:
    """An item with what recall needs; everything else by default."""
    made = MemoryItem(
        id=item_id, cube_id="cube", user_id="user", memory=memory, created_at=NOW, updated_at=NOW
    )
    return replace(made, **fields)


def turns(*said: tuple[str, str], session_id: str = "s1", **fields: Any) -> list[MemoryItem]:
    """A conversation: (speaker, text) in order; ids are session and place."""
    return [
        item(
            f"{session_id}.{place}",
            text,
            participants=(speaker,),
            session_id=session_id,
            position=place,
            sources=(Source(type="chat", message_id=f"{session_id}:{place}"),),
            **fields,
        )
        for place, (speaker, text) in enumerate(said)
    ]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "memory.db", clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def fill(store: SqliteStore, embedder: WordEmbedder) -> Callable[[Sequence[MemoryItem]], None]:
    """Store items with terms, links and vectors."""

    def put(items: Sequence[MemoryItem]) -> None:
        store.bind_embedder(embedder.fingerprint, embedder.dim)
        store.apply([AddItems(tuple(Indexer(embedder).index(items)))])

    return put


@pytest.fixture
def make_item() -> Callable[..., MemoryItem]:
    return item


@pytest.fixture
def make_turns() -> Callable[..., list[MemoryItem]]:
    return turns
