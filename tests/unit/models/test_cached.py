"""The caching embedder: same vectors, fewer encodings, bounded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from memos.errors import InvalidInput
from memos.models.base import Vectors
from memos.models.cached import CacheCounts, CachedEmbedder


class CountingEmbedder:
    """A small deterministic embedder that keeps what it was asked."""

    dim = 4
    fingerprint = "counting-1"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(list(texts))
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for number, text in enumerate(texts):
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
            rows[number] = np.frombuffer(digest[: self.dim], dtype=np.uint8) + 1.0
        rows /= np.linalg.norm(rows, axis=1, keepdims=True) if len(texts) else 1.0
        return rows


def test_a_repeated_text_is_encoded_once() -> None:
    """Texts seen before, in this call or an earlier one, do not reach the inner embedder again."""
    inner = CountingEmbedder()
    cached = CachedEmbedder(inner)
    first = cached.embed(["a", "b", "a"])
    second = cached.embed(["b", "c"])
    assert inner.asked == [["a", "b"], ["c"]]
    np.testing.assert_array_equal(first, CountingEmbedder().embed(["a", "b", "a"]))
    np.testing.assert_array_equal(second, CountingEmbedder().embed(["b", "c"]))


def test_counts_tell_hits_misses_and_evictions() -> None:
    """Each text of a call counts once, as a hit or as a miss."""
    cached = CachedEmbedder(CountingEmbedder(), entries_max=2)
    cached.embed(["a", "b"])
    cached.embed(["a", "c"])
    assert cached.counts == CacheCounts(hits=1, misses=3, evictions=1, entries=2)


def test_the_least_recently_used_goes_first() -> None:
    """A text that was just used outlives one that was not."""
    inner = CountingEmbedder()
    cached = CachedEmbedder(inner, entries_max=2)
    cached.embed(["a", "b"])
    cached.embed(["a"])
    cached.embed(["c"])
    cached.embed(["a"])
    cached.embed(["b"])
    assert inner.asked == [["a", "b"], ["c"], ["b"]]


def test_more_texts_than_the_cache_holds_in_one_call() -> None:
    """A call larger than the cache returns every vector, and the bound holds afterwards."""
    cached = CachedEmbedder(CountingEmbedder(), entries_max=3)
    texts = [str(number) for number in range(10)]
    np.testing.assert_array_equal(cached.embed(texts), CountingEmbedder().embed(texts))
    assert cached.counts.entries == 3


def test_nothing_is_kept_at_size_zero() -> None:
    """`entries_max=0` turns the cache off and the results stay."""
    inner = CountingEmbedder()
    cached = CachedEmbedder(inner, entries_max=0)
    np.testing.assert_array_equal(cached.embed(["a"]), cached.embed(["a"]))
    assert inner.asked == [["a"], ["a"]]


def test_what_a_caller_does_to_a_result_stays_with_the_caller() -> None:
    """Overwriting a returned vector changes no later result."""
    cached = CachedEmbedder(CountingEmbedder())
    for _ in range(2):
        cached.embed(["a"])[:] = 0.0
    np.testing.assert_array_equal(cached.embed(["a"]), CountingEmbedder().embed(["a"]))


def test_dimension_and_fingerprint_are_those_of_the_inner_embedder() -> None:
    """A cache does not change what the vectors are."""
    cached = CachedEmbedder(CountingEmbedder())
    assert (cached.dim, cached.fingerprint) == (4, "counting-1")
    assert cached.embed([]).shape == (0, 4)


def test_lone_surrogates_have_keys_too() -> None:
    """A string that is no valid Unicode is cached like any other."""
    cached = CachedEmbedder(CountingEmbedder())
    cached.embed(["\ud800"])
    cached.embed(["\ud800"])
    assert cached.counts.hits == 1


def test_threads_share_the_cache_safely() -> None:
    """Under concurrent use every result is right, every text is counted and the bound holds."""
    cached = CachedEmbedder(CountingEmbedder(), entries_max=20)
    wanted = {str(number): CountingEmbedder().embed([str(number)])[0] for number in range(40)}
    wrong: list[str] = []

    def work(offset: int) -> None:
        for step in range(200):
            texts = [str((offset * 7 + step + extra) % 40) for extra in range(3)]
            for text, vector in zip(texts, cached.embed(texts), strict=True):
                if not np.array_equal(vector, wanted[text]):
                    wrong.append(text)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = cached.counts
    assert wrong == []
    assert counts.hits + counts.misses == 4 * 200 * 3
    assert counts.entries <= 20


def test_bad_arguments_are_refused() -> None:
    """A bare string and a negative size are typed errors."""
    with pytest.raises(InvalidInput, match="-1"):
        CachedEmbedder(CountingEmbedder(), entries_max=-1)
    with pytest.raises(InvalidInput, match="list"):
        CachedEmbedder(CountingEmbedder()).embed("text")
