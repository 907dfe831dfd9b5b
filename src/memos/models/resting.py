"""A language model that is left alone for a while when its endpoint fails.

An endpoint that cannot be reached, or that asks to wait, is not asked again before a pause is over:
requests then fail at once, with the same kind of error. The pause doubles with each failure in a row, up
to `REST_MAX_S`; when it is over one request tries, and the others wait for how it ends. So an endpoint
that is down for an hour costs a task a look at the clock and not a time-out, and nothing is retried here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memos import log, metrics
from memos.clock import Clock
from memos.errors import ModelError, ModelUnavailable, RateLimited
from memos.models.base import LLM, ChatMessage, Completion

logger = log.get_logger(__name__)

REST_S = 1.0
REST_MAX_S = 60.0
TRY_MAX_S = 300.0  # how long the one request that tries keeps the others waiting


class RestingLLM:
    """Fulfils `memos.models.base.LLM` over another one. Thread-safe."""

    def __init__(self, inner: LLM, clock: Clock) -> None:
        self.inner = inner
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0  # in a row
        self._until = 0.0  # monotonic: not asked before
        self._limited = False  # whether the pause is one that the endpoint asked for
        self._reason = ""

    @property
    def name(self) -> str:
        return self.inner.name

    def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Completion:
        """As the inner model; while it is left alone, the kind of error that it last raised."""
        self._begin()
        try:
            done = self.inner.complete(
                messages,
                schema=schema,
                max_tokens=max_tokens,
                timeout_s=timeout_s,
                temperature=temperature,
                top_p=top_p,
            )
        except ModelError as error:
            self._failed(error)
            raise
        self._answered()
        return done

    def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Iterator[str]:
        """The same in pieces."""
        self._begin()
        try:
            yield from self.inner.stream(
                messages, max_tokens=max_tokens, timeout_s=timeout_s, temperature=temperature, top_p=top_p
            )
        except ModelError as error:
            self._failed(error)
            raise
        except GeneratorExit:  # the reader left; that it spoke is enough
            self._answered()
            raise
        self._answered()

    def _begin(self) -> None:
        """Raises while the endpoint is left alone."""
        now = self._clock.monotonic()
        with self._lock:
            left = self._until - now
            if left <= 0:
                if self._failures:
                    self._until = now + TRY_MAX_S  # this one tries
                return
            limited, reason = self._limited, self._reason
        metrics.MODEL_CALLS.add(model=self.name, outcome="not_asked")
        if limited:
            raise RateLimited(left, f"{self.name} asked to wait: {left:.0f} s are left")
        raise ModelUnavailable(f"{self.name} is left alone for a while after it failed: {reason}")

    def _answered(self) -> None:
        with self._lock:
            failures, self._failures, self._until = self._failures, 0, 0.0
        if failures:
            logger.warning("model.back", model=self.name, failures=failures)

    def _failed(self, error: ModelError) -> None:
        now = self._clock.monotonic()
        with self._lock:
            if isinstance(error, RateLimited):
                self._failures = max(1, self._failures)
                self._limited, self._until = True, now + error.retry_after_s
            elif isinstance(error, ModelUnavailable):
                self._failures += 1
                pause = min(REST_MAX_S, REST_S * 2.0 ** min(self._failures - 1, 16))
                self._limited, self._until = False, now + pause
            else:  # it answers: what it says is another matter
                self._failures, self._until = 0, 0.0
            self._reason = str(error)[:200]
            first = self._failures == 1
        if first:  # the following ones are counted
            logger.warning("model.left_alone", model=self.name, error=str(error)[:200])
