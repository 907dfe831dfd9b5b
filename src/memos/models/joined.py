"""Texts of threads that encode at the same time go through the model together.

A batch of sixteen short texts costs half of what they cost one by one, and a server under load encodes for many
requests at once. At most `leaders_max` threads encode; who comes while all of them do waits, and the next to be
free takes what waits along with its own. Nobody waits for company: alone it costs what it did.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from memos.models.base import Embedder, Vectors

TEXTS_MAX = 32  # of a shared batch; a call with more goes by itself


class _Call:
    """One call of `embed`. When `woken`, it has its rows, or it leads the next batch, or it has to go alone."""

    __slots__ = ("leads", "rows", "texts", "woken")

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.rows: Vectors | None = None
        self.leads = False
        self.woken = threading.Event()


class JoinedEmbedder:
    """Fulfils `memos.models.base.Embedder` by way of another one. Thread-safe."""

    def __init__(self, inner: Embedder, *, leaders_max: int) -> None:
        self._inner = inner
        self._leaders_max = max(1, leaders_max)
        self._lock = threading.Lock()
        self._leaders = 0
        self._waiting: deque[_Call] = deque()

    @property
    def dim(self) -> int:
        return self._inner.dim

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the inner embedder's. What fails in company is tried alone, so that an error is one's own."""
        if isinstance(texts, str) or not 1 <= len(texts) <= TEXTS_MAX:
            return self._inner.embed(texts)
        call = _Call(list(texts))
        with self._lock:
            call.leads = self._leaders < self._leaders_max
            if call.leads:
                self._leaders += 1
            else:
                self._waiting.append(call)
        if not call.leads:
            self._wait(call)
        if call.leads:
            self._lead(call)
        return self._inner.embed(call.texts) if call.rows is None else call.rows

    def _wait(self, call: _Call) -> None:
        try:
            call.woken.wait()
        except BaseException:  # Ctrl-C: nobody may wait for this thread
            with self._lock:
                if call in self._waiting:
                    self._waiting.remove(call)
            if call.leads:
                self._hand_over()
            raise

    def _lead(self, own: _Call) -> None:
        """Encode the own texts and what waits, then give the place to the first who waits by then."""
        calls = [own, *self._company(own)]
        try:
            if len(calls) > 1:
                rows = self._inner.embed([text for call in calls for text in call.texts])
                start = 0
                for call in calls:
                    call.rows = rows[start : start + len(call.texts)]
                    start += len(call.texts)
            else:
                own.rows = self._inner.embed(own.texts)
        except Exception:  # each tries for itself and raises its own
            for call in calls:
                call.rows = None
        finally:
            self._hand_over()
            for call in calls[1:]:
                call.woken.set()

    def _company(self, own: _Call) -> list[_Call]:
        taken: list[_Call] = []
        count = len(own.texts)
        with self._lock:
            while self._waiting and count + len(self._waiting[0].texts) <= TEXTS_MAX:
                taken.append(self._waiting.popleft())
                count += len(taken[-1].texts)
        return taken

    def _hand_over(self) -> None:
        with self._lock:
            if self._waiting:
                following = self._waiting.popleft()
                following.leads = True
                following.woken.set()
            else:
                self._leaders -= 1
