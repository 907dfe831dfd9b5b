"""Spans of what is done, for whoever installed a tracer; without one they cost a look at a variable.

    with tracing.span("recall", top_k=10) as span:
        span.set(hits=3)

A span says what was done, how long it took and whether it failed: names of labels, models and stages, and
counts. Never who it was for, never a text: an error is told by its class. The place of a span in its trace
travels as a W3C `traceparent` (https://www.w3.org/TR/trace-context/), `memos.context.trace_id` being its trace id:
a message carries the one of its submit, so that the trace goes on in another process, after a restart, on a retry.
Loads no vendor: `memos.otel` is one that can be installed.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

Value = str | int | float | bool
Kind = Literal["internal", "server", "client", "producer", "consumer"]

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_HEX_TRACE = re.compile(r"[0-9a-f]{32}")


class Span(Protocol):
    """A span that has begun."""

    @property
    def traceparent(self) -> str:
        """Its place, for what follows from it elsewhere; "" where nothing is traced."""
        ...

    def set(self, **attributes: Value) -> None:
        """Say more about it. A name's underscores stand for dots: `http_route` is `http.route`."""
        ...

    def rename(self, name: str) -> None: ...

    def fail(self, kind: str) -> None:
        """It failed; `kind` is a class of errors or a status, no text."""
        ...


class Tracer(Protocol):
    """What `install` takes. Thread-safe; never blocks, never raises into what is traced."""

    def span(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Value],
        *,
        parent: str,
        links: Sequence[str],
        span_id: str,
        current: bool,
    ) -> AbstractContextManager[Span]:
        """A span below `parent` (a traceparent), else below the current one, else the first of the trace whose
        id the context names. `span_id`: 16 hex digits that it must have. `current`: until it ends, spans of
        the context stand below it."""
        ...

    def record(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Value],
        *,
        parent: str,
        links: Sequence[str],
        span_id: str,
        start_s: float,
        end_s: float,
    ) -> None:
        """A span that is over, by wall times."""
        ...

    def close(self) -> None:
        """Send what is left, for a bounded time."""
        ...


class _NoSpan:
    traceparent = ""

    def set(self, **attributes: Value) -> None: ...

    def rename(self, name: str) -> None: ...

    def fail(self, kind: str) -> None: ...


_NOTHING: AbstractContextManager[Span] = nullcontext(_NoSpan())
_lock = threading.Lock()
_installed: Tracer | None = None


def install(tracer: Tracer) -> None:
    """Trace from now on, in the whole process; the last one installed is used."""
    global _installed
    with _lock:
        _installed = tracer


def uninstall(tracer: Tracer) -> None:
    """Trace no more, unless another one was installed since; then close the tracer."""
    global _installed
    with _lock:
        if _installed is tracer:
            _installed = None
    tracer.close()


def is_on() -> bool:
    """Whether anything is traced."""
    return _installed is not None


def span(
    name: str,
    kind: Kind = "internal",
    *,
    parent: str = "",
    links: Sequence[str] = (),
    span_id: str = "",
    current: bool = True,
    **attributes: Value,
) -> AbstractContextManager[Span]:
    """A span for the length of the block; what leaves the block as an error fails it. See `Tracer.span`."""
    tracer = _installed
    if tracer is None:
        return _NOTHING
    return tracer.span(name, kind, attributes, parent=parent, links=links, span_id=span_id, current=current)


def record(
    name: str,
    kind: Kind = "internal",
    *,
    start_s: float,
    end_s: float,
    parent: str = "",
    links: Sequence[str] = (),
    span_id: str = "",
    **attributes: Value,
) -> None:
    """A span that is over. See `Tracer.record`."""
    tracer = _installed
    if tracer is not None:
        tracer.record(
            name,
            kind,
            attributes,
            parent=parent,
            links=links,
            span_id=span_id,
            start_s=start_s,
            end_s=end_s,
        )


def checked(text: str) -> str:
    """`text` if it is a traceparent, else ""."""
    found = _TRACEPARENT.fullmatch(text.strip().lower())
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return ""
    return found[0]


def trace_of(traceparent: str) -> str:
    """The trace id of a checked traceparent."""
    return traceparent[3:35]


def as_trace_id(text: str) -> str:
    """The 32 hex digits under which a trace of this name is traced: itself where it has that form."""
    folded = text.lower()
    if _HEX_TRACE.fullmatch(folded) and int(folded, 16):
        return folded
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def first_run_of(message_key: str) -> str:
    """The span id of the first run of a message: a later run, in any process, links to it."""
    return hashlib.blake2b(b"run\0" + message_key.encode(), digest_size=8).hexdigest()
