"""The outermost layer of the application: request ids, keys, rates, body limits, the last catch.

A plain ASGI middleware, so that streams pass through untouched. Every request gets a trace id, its
caller's (that of a W3C `traceparent`, else `x-trace-id`, `g-trace-id`, `trace-id`) if that is a sane one, and every answer
carries it.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import anyio
from fastapi import HTTPException

from memos import context, log, metrics, tracing
from memos.api import access, auth
from memos.api.draining import Drain
from memos.api.errors import envelope, of_http_error

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TRACE_HEADERS = (b"x-trace-id", b"g-trace-id", b"trace-id")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SANE_TRACE = re.compile(r"[A-Za-z0-9_.:/+=-]{1,128}")

logger = log.get_logger(__name__)


class Boundary:
    """Wraps an ASGI application.

    `body_bytes_max`: longer request bodies are refused with 413. `body_silence_s`: a body of which nothing
    more comes for so long is given up with 408, so that a client cannot hold a place by going to sleep.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        body_bytes_max: int,
        gate: auth.Gate,
        body_silence_s: float = 30.0,
        drain: Drain | None = None,
    ) -> None:
        self._drain = drain or Drain()
        self._app = app
        self._body_silence_s = body_silence_s
        self._body_bytes_max = body_bytes_max
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        parent = _traceparent_of(headers)
        trace = tracing.trace_of(parent) or _trace_of(headers)
        traced = _Traced(send, trace, self._drain)
        started = time.monotonic()
        try:
            with (
                context.bound(trace=trace, path=scope["path"]),
                tracing.span("HTTP", "server", parent=parent) as span,
            ):
                try:
                    await self._guarded(scope, receive, traced)
                finally:
                    _describe(span, scope, traced.status)
        finally:
            _count(scope, traced.status, time.monotonic() - started)

    async def _guarded(self, scope: Scope, receive: Receive, send: _Traced) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        admitted = self._gate.admit(scope["path"], headers)
        if isinstance(admitted, auth.Refusal):
            refusal = envelope(admitted.status, admitted.message, headers=admitted.headers)
            await refusal(scope, receive, send)
            return
        declared = _content_length(headers)
        if declared is not None and declared > self._body_bytes_max:
            metrics.REFUSALS.add(reason="body_size")
            refusal = of_http_error(_TooLarge(declared, self._body_bytes_max))
            await refusal(scope, receive, send)
            return
        counted = _Counted(receive, self._body_bytes_max, self._body_silence_s)
        who = access.become(admitted)
        fenced = context.fence.set(admitted.fence())
        try:
            await self._app(scope, counted, send)
        except Exception as error:  # the last place that can still answer
            logger.error("api.fault", kind=type(error).__name__, path=scope["path"], exc_info=True)
            if send.started:
                raise  # the server must cut the connection: half an answer must not look whole
            fault = envelope(500, "internal error; the log has the cause under this request id")
            await fault(scope, receive, send)
        finally:
            context.fence.reset(fenced)
            access.forget(who)


class _TooLarge(HTTPException):
    """An HTTPException, because FastAPI turns any other error while reading a body into a 400."""

    def __init__(self, seen: int, bytes_max: int) -> None:
        super().__init__(413, f"the request body has {seen} bytes or more; at most {bytes_max} are accepted")


class _Silent(HTTPException):
    def __init__(self, silence_s: float) -> None:
        super().__init__(408, f"the rest of the request body did not come within {silence_s:g} s")


class _Counted:
    """`receive` that stops an over-long body, declared or not, and one that does not go on."""

    def __init__(self, receive: Receive, bytes_max: int, silence_s: float) -> None:
        self._receive = receive
        self._bytes_max = bytes_max
        self._silence_s = silence_s
        self._seen = 0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:  # whoever still asks waits for the client to go
            return await self._receive()
        message: Message | None = None
        with anyio.move_on_after(self._silence_s):
            message = await self._receive()
        if message is None:
            metrics.REFUSALS.add(reason="silence")
            raise _Silent(self._silence_s)
        self._whole = not message.get("more_body", False)
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._bytes_max:
                metrics.REFUSALS.add(reason="body_size")
                raise _TooLarge(self._seen, self._bytes_max)
        return message


class _Traced:
    """`send` that adds the trace id to the answer, and that it is the last one while the server stops."""

    def __init__(self, send: Send, trace: str, drain: Drain) -> None:
        self._drain = drain
        self._send = send
        self._trace = trace
        self.status = 0  # none yet

    @property
    def started(self) -> bool:
        return self.status > 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            message["headers"].append((b"x-trace-id", self._trace.encode()))
            if self._drain.begun:
                message["headers"].append((b"connection", b"close"))
        await self._send(message)


def _count(scope: Scope, status: int, seconds: float) -> None:
    route = _pattern(scope)
    method = scope["method"] if scope["method"] in _METHODS else metrics.OTHER
    metrics.HTTP_REQUESTS.add(method=method, route=route, status=str(status or "cut"))
    metrics.HTTP_SECONDS.observe(seconds, route=route)


def _pattern(scope: Scope) -> str:
    """The pattern of the route that matched, with the prefixes of the routers that it is included by."""
    own: str | None = getattr(scope.get("route"), "path", None)
    if own is None:
        return "(none)"
    concrete = own
    for name, value in scope.get("path_params", {}).items():
        concrete = concrete.replace(f"{{{name}}}", str(value))
    path: str = scope["path"]
    return path.removesuffix(concrete) + own if path.endswith(concrete) else own


def _describe(span: tracing.Span, scope: Scope, status: int) -> None:
    """By the pattern of the route, as the path of a request may name a memory."""
    if not tracing.is_on():
        return
    route = _pattern(scope)
    method = scope["method"] if scope["method"] in _METHODS else metrics.OTHER
    span.rename(f"{method} {route}")
    span.set(http_request_method=method, http_route=route, http_response_status__code=status)
    if status >= 500 or not status:
        span.fail(str(status or "cut"))


def _traceparent_of(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name.lower() == b"traceparent":
            return tracing.checked(value.decode("latin-1"))
    return ""


def _trace_of(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name.lower() in TRACE_HEADERS:
            given = value.decode("latin-1")
            if _SANE_TRACE.fullmatch(given):
                return given
    return context.new_trace_id()


def _content_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value[:20])
    return None
