"""The tracer of `memos.tracing` over OpenTelemetry: spans go to an OTLP endpoint over HTTP.

The standard variables are read by the SDK itself: OTEL_EXPORTER_OTLP_ENDPOINT (default http://localhost:4318),
_HEADERS, _TIMEOUT, OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, OTEL_SDK_DISABLED …
The provider is our own and not the global one, so that an application's own tracing stays as it is; its current
span is the parent of ours all the same, as the context is shared.

Spans wait in a bounded buffer for a thread that sends them. An endpoint that is away costs the spans that do not
fit, and nothing else: no request, no task and no stop waits for it longer than CLOSE_S.
"""

from __future__ import annotations

import contextvars
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from memos import __version__, context
from memos.tracing import Kind, Span, Value, as_trace_id, checked

SERVICE = "memscheduler"
CLOSE_S = 2.0  # of a stop that waits for the endpoint

_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_wanted_span: contextvars.ContextVar[str] = contextvars.ContextVar("memos_wanted_span", default="")


class _Ids(IdGenerator):
    """Ids by chance, but those that are asked for: of a trace by the context, of a span by its maker."""

    def generate_span_id(self) -> int:
        wanted = _wanted_span.get()
        return int(wanted, 16) if wanted else random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return int(as_trace_id(context.current_trace_id()), 16)


class OtelTracer:
    """Fulfils `memos.tracing.Tracer`. `exporter`: where spans go, instead of the endpoint (tests)."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
        resource = Resource.create({"service.version": __version__})
        if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": SERVICE}))
        # `shutdown_on_exit` would make every exit wait for an endpoint that is away.
        self._provider = TracerProvider(resource=resource, id_generator=_Ids(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("memos", __version__)

    @contextmanager
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
    ) -> Iterator[Span]:
        begun = self._begin(name, kind, attributes, parent=parent, links=links, span_id=span_id)
        shown = _OtelSpan(begun)
        try:
            if current:
                with trace.use_span(begun, record_exception=False, set_status_on_exception=False):
                    yield shown
            else:
                yield shown
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                shown.fail(type(error).__name__)
            raise
        finally:
            begun.end()

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
        begun = self._begin(
            name, kind, attributes, parent=parent, links=links, span_id=span_id, start_s=min(start_s, end_s)
        )
        begun.end(end_time=round(end_s * 1e9))

    def _begin(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Value],
        *,
        parent: str,
        links: Sequence[str],
        span_id: str,
        start_s: float | None = None,
    ) -> Any:
        token = _wanted_span.set(span_id)
        try:
            return self._tracer.start_span(
                name,
                context=_below(parent),
                kind=_KINDS[kind],
                attributes=_dotted(attributes),
                links=[Link(found) for found in map(_context_of, links) if found is not None],
                start_time=None if start_s is None else round(start_s * 1e9),
                record_exception=False,
                set_status_on_exception=False,
            )
        finally:
            _wanted_span.reset(token)

    def close(self) -> None:
        """Send what is left; an endpoint that is away is waited for at most CLOSE_S."""
        ending = threading.Thread(target=self._provider.shutdown, name="memos-tracing", daemon=True)
        ending.start()
        ending.join(CLOSE_S)


class _OtelSpan:
    def __init__(self, span: Any) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        found = self._span.get_span_context()
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}"

    def set(self, **attributes: Value) -> None:
        self._span.set_attributes(_dotted(attributes))

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))


def _dotted(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {
        name.replace("__", "\0").replace("_", ".").replace("\0", "_"): value
        for name, value in attributes.items()
    }


def _context_of(traceparent: str) -> SpanContext | None:
    whole = checked(traceparent)
    if not whole:
        return None
    _, trace_id, span_id, flags = whole.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


def _below(parent: str) -> Context | None:
    """None: the current context."""
    found = _context_of(parent) if parent else None
    return None if found is None else trace.set_span_in_context(NonRecordingSpan(found), Context())
