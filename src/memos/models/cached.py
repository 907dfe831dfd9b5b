"""An embedder that remembers: vectors by content hash, least recently used out first.

Within one turn the same query is asked for by the intent check, by each search and by the working-set
update; encoding it costs many times everything else. Guarantees: at most `entries_max` vectors are kept
(a vector of 384 takes 1.5 kB), results equal those of the inner embedder, callers may change what they
get, and the class is thread-safe. Two threads that miss the same text at once both encode it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from memos import metrics, tracing
from memos.errors import InvalidInput
from memos.models.base import Embedder, Vectors


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """How often texts were found and not found, how many entries were pushed out and how many are kept."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0


class CachedEmbedder:
    """Fulfils `memos.models.base.Embedder` by way of another one. `entries_max=0` keeps nothing."""

    def __init__(self, inner: Embedder, *, entries_max: int = 4_096) -> None:
        if entries_max < 0:
            raise InvalidInput(f"entries_max must not be negative, got {entries_max}")
        self._inner = inner
        self._entries_max = entries_max
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Vectors] = OrderedDict()
        self._hits = 0
        self._misses = 0
        self._evictions = 0

    @property
    def dim(self) -> int:
        return self._inner.dim

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    @property
    def counts(self) -> CacheCounts:
        """The counters since this object was made, read together."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, self._evictions, len(self._kept))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the inner embedder's; each distinct text that is not kept is encoded once, all together."""
        if isinstance(texts, str):
            raise InvalidInput("embed takes a sequence of texts, not one text: wrap it in a list")
        if not texts:
            return self._inner.embed(texts)
        keys = [_key(text) for text in texts]
        found = self._look_up(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            with tracing.span("embed", memos_texts=len(missing)):
                fresh = self._inner.embed(list(missing.values()))
            found.update(zip(missing, fresh, strict=True))
            self._keep(missing, fresh)
        return _stack([found[key] for key in keys])

    def _look_up(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """What is kept of these, each made the most recently used."""
        found: dict[bytes, Vectors] = {}
        with self._lock:
            for key in keys:
                vector = self._kept.get(key)
                if vector is not None:
                    self._kept.move_to_end(key)
                    found[key] = vector
            hits = sum(1 for key in keys if key in found)
            self._hits += hits
            self._misses += len(keys) - hits
        metrics.EMBEDDED_TEXTS.add(hits, outcome="kept")
        metrics.EMBEDDED_TEXTS.add(len(keys) - hits, outcome="encoded")
        return found

    def _keep(self, missing: dict[bytes, str], fresh: Vectors) -> None:
        """Keep a copy of each row: a view would hold the whole batch in memory."""
        with self._lock:
            for key, vector in zip(missing, fresh, strict=True):
                self._kept[key] = vector.copy()
                self._kept.move_to_end(key)
            while len(self._kept) > self._entries_max:
                self._kept.popitem(last=False)
                self._evictions += 1


def _key(text: str) -> bytes:
    """Of the exact text; `surrogatepass` because a lone surrogate is no reason to fail."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _stack(rows: Sequence[Vectors]) -> Vectors:
    import numpy as np

    return np.stack(rows)
