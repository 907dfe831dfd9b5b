"""Derived items as reading makes them, and an encoder that needs no model, for tests of organise and feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts

from memos.clock import utc
from memos.memory.extract import as_item, derive
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.store import AddItems
from memos.models.base import Vectors
from memos.retrieval.keywords import analyse


class WordEmbedder:
    """Texts with the same words are near, others far: one dimension a word."""

    dim = 256
    fingerprint = "words/1"

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for term in analyse(text) or {"": 1}:
                vectors[row, sum(map(ord, term)) % self.dim] += 1.0
            vectors[row] /= np.linalg.norm(vectors[row])
        return vectors


def said(
    parts: Parts, text: str, *, ids: Sequence[str], at_s: float = 0.0, **fields: Any
) -> list[MemoryItem]:
    """A raw turn of the user (id `ids[0]`), and what is read from it (the other ids)."""
    cube_id, user_id = fields.pop("cube_id", CUBE), fields.pop("user_id", USER)
    at = utc(parts.clock.now() + at_s)
    raw = replace(
        MemoryItem(
            id=ids[0],
            cube_id=cube_id,
            user_id=user_id,
            memory=text,
            role="user",
            session_id="s1",
            created_at=at,
            updated_at=at,
            happened_at=at,
        ),
        **fields,
    )
    found = derive([raw]).derived
    assert len(found) == len(ids) - 1, found
    items = [
        raw,
        *(as_item(one, item_id=id_, now=at, raw=[raw]) for one, id_ in zip(found, ids[1:], strict=True)),
    ]
    parts.store.apply([AddItems(tuple(parts.services.indexer.index(items)))])
    return items


def stated(parts: Parts, item_id: str, text: str, **fields: Any) -> MemoryItem:
    """A derived item with nothing behind it."""
    now = utc(parts.clock.now())
    item = replace(
        MemoryItem(
            id=item_id,
            cube_id=CUBE,
            user_id=USER,
            memory=text,
            kind=MemoryKind.LONG_TERM,
            raw=False,
            created_at=now,
            updated_at=now,
        ),
        **fields,
    )
    parts.store.apply([AddItems(tuple(parts.services.indexer.index([item])))])
    return item
