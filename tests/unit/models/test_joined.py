"""Concurrent encodings share batches: the same rows, fewer runs, and everybody's errors are their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from memos.errors import ModelUnavailable
from memos.models.base import Vectors
from memos.models.joined import TEXTS_MAX, JoinedEmbedder


class SlowEmbedder:
    """Rows that say which text they are of; the first run waits until it is let go."""

    dim = 2
    fingerprint = "slow-1"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.go_on = threading.Event()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Vectors:
        with self._lock:
            self.asked.append(list(texts))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.go_on.wait(30)
            if "bad" in texts:
                raise ModelUnavailable("bad")
            return np.array([[float(text), 1.0] for text in texts], dtype=np.float32).reshape(-1, 2)
        finally:
            with self._lock:
                self.at_once -= 1


def together(joined: JoinedEmbedder, inner: SlowEmbedder, *calls: list[str]) -> list[object]:
    """What each call came to; all of them but the first wait while the first run is held."""
    ended: list[object] = [None] * len(calls)

    def run(number: int, texts: list[str]) -> None:
        try:
            ended[number] = joined.embed(texts)[:, 0].tolist()
        except ModelUnavailable as error:
            ended[number] = str(error)

    threads = [threading.Thread(target=run, args=(n, texts)) for n, texts in enumerate(calls)]
    threads[0].start()
    while not inner.asked:
        time.sleep(0.001)
    for thread in threads[1:]:
        thread.start()
    while len(joined._waiting) < len(calls) - 1:
        time.sleep(0.001)
    inner.go_on.set()
    for thread in threads:
        thread.join()
    assert joined._leaders == 0 and not joined._waiting
    return ended


def test_those_who_wait_share_a_run() -> None:
    """Three calls behind a running one are one run, and each gets the rows of its own texts in order."""
    inner = SlowEmbedder()
    joined = JoinedEmbedder(inner, leaders_max=1)
    assert together(joined, inner, ["1"], ["2", "3"], ["4"], ["5"]) == [[1], [2, 3], [4], [5]]
    assert len(inner.asked) == 2 and len(inner.asked[1]) == 4


def test_an_error_is_one_s_own() -> None:
    """A text that cannot be encoded fails its own call and none of those that it was joined with."""
    inner = SlowEmbedder()
    joined = JoinedEmbedder(inner, leaders_max=1)
    assert together(joined, inner, ["1"], ["2"], ["bad"], ["3"]) == [[1], [2], "bad", [3]]


def test_a_shared_run_is_bounded() -> None:
    """More than TEXTS_MAX texts are several runs; a long call goes by itself."""
    inner = SlowEmbedder()
    joined = JoinedEmbedder(inner, leaders_max=1)
    calls = [[str(n)] for n in range(2 * TEXTS_MAX + 2)]
    assert together(joined, inner, *calls) == [[float(n)] for n in range(len(calls))]
    assert max(map(len, inner.asked)) == TEXTS_MAX and len(inner.asked) <= 5
    long = [str(n) for n in range(TEXTS_MAX + 1)]
    assert joined.embed(long)[:, 0].tolist() == [float(n) for n in range(len(long))]
    assert joined.embed([]).shape == (0, 2)


def test_no_more_than_so_many_run_at_once() -> None:
    """Under load at most `leaders_max` threads are inside the model, and every row is right."""
    inner = SlowEmbedder()
    inner.go_on.set()
    joined = JoinedEmbedder(inner, leaders_max=2)
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(50):
            text = str(100 * number + turn)
            if joined.embed([text])[0, 0] != float(text):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and inner.most_at_once <= 2
    assert (joined.dim, joined.fingerprint) == (2, "slow-1")


def test_an_error_alone_is_raised() -> None:
    """A call without company raises what the model raises, and the next one works."""
    inner = SlowEmbedder()
    inner.go_on.set()
    joined = JoinedEmbedder(inner, leaders_max=1)
    with pytest.raises(ModelUnavailable):
        joined.embed(["bad"])
    assert joined.embed(["7"])[0, 0] == 7
