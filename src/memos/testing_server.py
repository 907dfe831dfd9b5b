"""A small OpenAI-compatible server for tests: real HTTP on a free local port, every reply scripted.

    with ModelServer(["Hello.", rate_limit(2), Fault(500), Garbage(b"<html>")]) as server:
        llm = OpenAIChat("any", base_url=server.url)

Chat requests take the next reply of the script; after the last one they get what `answer` says to their
body, else `default`, else status 500 that says so. Embeddings are a function of the text (same text, same vector), reranking
counts common words; with `prefixes` the server keeps beginnings of prompts as a real one does; `fail` puts one of the faults before them. `requests` keeps what was asked, at most
`REQUESTS_MAX`. It needs the standard library only. Not for production: one thread a connection, no TLS.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypeAlias

from memos.testing_prefixes import PromptCache, Read

REQUESTS_MAX = 10_000
BODY_BYTES_MAX = 64 * 1024 * 1024
STALL_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class Say:
    """A reply of the model. `pieces` is how a stream cuts it (default: word by word)."""

    text: str
    reasoning: str = ""
    pieces: tuple[str, ...] = ()
    finish_reason: str = "stop"
    tokens_in: int = 12
    tokens_out: int = 7
    tokens_cached: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """An HTTP error with the body an endpoint sends; `code` as OpenAI's `error.code`."""

    status: int
    message: str = "something went wrong"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def rate_limit(retry_after_s: float | str | None = None) -> Fault:
    """Status 429; a text is sent as it is (an HTTP date), None sends no header."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Fault(429, "slow down", "rate_limit_exceeded", headers)


@dataclass(frozen=True, slots=True)
class Garbage:
    """Any bytes with status 200, where an answer was expected."""

    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class CutOff:
    """The first `bytes_max` bytes of an answer, then the connection is closed. Of a stream: its first
    `events_max` events."""

    reply: Say
    bytes_max: int = 40
    events_max: int = 2


@dataclass(frozen=True, slots=True)
class Slow:
    """The inner reply after `delay_s`; the delay ends early when the server stops."""

    reply: Say | Fault | Garbage | CutOff
    delay_s: float


@dataclass(frozen=True, slots=True)
class Refuses:
    """Like `reply`, but a request that carries `field` (as `response_format.json_schema`) is refused with
    400 and the reply is kept for the next request."""

    field: str
    reply: Say
    message: str = ""


Scripted: TypeAlias = str | Mapping[str, Any] | Say | Fault | Garbage | CutOff | Slow | Refuses


@dataclass(frozen=True, slots=True)
class Request:
    """What one request asked. Header names are lower case."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]


class ModelServer:
    """A context manager; `url` is the base URL for clients. Thread-safe."""

    def __init__(
        self,
        replies: Iterable[Scripted] = (),
        *,
        default: Scripted | None = None,
        answer: Callable[[Mapping[str, Any]], Scripted] | None = None,
        models: Iterable[str] = ("scripted",),
        dim: int = 8,
        prefixes: PromptCache | None = None,
    ) -> None:
        """prefixes: what the server keeps of prompts, and tells in the place of a reply's token counts."""
        self._lock = threading.Lock()
        self._replies: deque[Scripted] = deque(replies)
        self._default = default
        self._compute = answer
        self._fault: Fault | Garbage | Slow | None = None
        self._prefixes = prefixes
        self.models = tuple(models)
        self.dim = dim
        self._requests: deque[Request] = deque(maxlen=REQUESTS_MAX)
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, with /v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def requests(self) -> list[Request]:
        """What was asked, oldest first."""
        with self._lock:
            return list(self._requests)

    def chats(self) -> list[Request]:
        """The requests for completions."""
        return [request for request in self.requests if request.path.endswith("/chat/completions")]

    def script(self, *replies: Scripted) -> None:
        """Add replies at the end of the script."""
        with self._lock:
            self._replies.extend(replies)

    def drop(self) -> None:
        """Forget what is left of the script."""
        with self._lock:
            self._replies.clear()

    def fail(self, fault: Fault | Garbage | Slow | None) -> None:
        """Answer every request with `fault` from now on; None: as before."""
        with self._lock:
            self._fault = fault

    def __enter__(self) -> ModelServer:
        self._thread = threading.Thread(target=self._serve, name="model-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; clients get a refused connection."""
        self._stopping.set()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()

    # -- answering --------------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else a body waits 40 ms for the client's delayed ACK of the head

            def do_GET(self) -> None:
                server._answer(self, {})

            def do_POST(self) -> None:
                length = min(int(self.headers.get("Content-Length") or 0), BODY_BYTES_MAX)
                try:
                    body = json.loads(self.rfile.read(length) or b"{}")
                except ValueError:
                    body = {}
                server._answer(self, body if isinstance(body, dict) else {})

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: `requests` tells."""

        return Handler

    def _answer(self, http: BaseHTTPRequestHandler, body: Mapping[str, Any]) -> None:
        path = http.path.partition("?")[0].rstrip("/")
        asked = Request(path, body, {name.lower(): value for name, value in http.headers.items()})
        with self._lock:
            self._requests.append(asked)
            reply: Scripted | None = self._fault
            if reply is None and path == "/v1/chat/completions":
                reply = self._next(body)
        try:
            if reply is not None:
                self._reply(http, asked, reply)
            elif path == "/v1/models":
                _json(http, {"object": "list", "data": [{"id": m, "object": "model"} for m in self.models]})
            elif path == "/v1/embeddings":
                _json(http, self._embeddings(body))
            elif path.endswith("/rerank"):
                _json(http, _ranked(body))
            elif self._prefixes is not None and path == "/props":
                _json(http, self._prefixes.props())
            elif self._prefixes is not None and path.startswith("/slots/"):
                status, told = self._prefixes.act(*_slot_action(http.path), str(body.get("filename", "")))
                _json(http, told, status=status)
            else:
                self._reply(http, asked, Fault(404, f"no such path: {path}"))
        except (BrokenPipeError, ConnectionError):  # the client went away, as tests of time-outs do
            http.close_connection = True

    def _next(self, body: Mapping[str, Any]) -> Scripted:
        if not self._replies and self._compute is not None:
            return self._compute(body)
        if not self._replies:
            return self._default or Fault(500, "the script has no further reply")
        reply = self._replies[0]
        if isinstance(reply, Refuses):
            if _holds(body, reply.field):
                return Fault(400, reply.message or f"{reply.field} is not supported")
            self._replies.popleft()
            return reply.reply
        return self._replies.popleft()

    def _reply(self, http: BaseHTTPRequestHandler, asked: Request, reply: Scripted) -> None:
        if isinstance(reply, Slow):
            self._stopping.wait(min(reply.delay_s, STALL_MAX_S))
            reply = reply.reply
        if isinstance(reply, Refuses):
            reply = reply.reply
        if isinstance(reply, Mapping):
            reply = json.dumps(reply, ensure_ascii=False)
        if isinstance(reply, str):
            reply = Say(reply)
        if isinstance(reply, Fault):
            fault = {"message": reply.message, "type": "scripted", "param": None, "code": reply.code}
            _json(http, {"error": fault}, status=reply.status, headers=reply.headers)
        elif isinstance(reply, Garbage):
            _send(http, reply.body, content_type=reply.content_type)
        elif isinstance(reply, Say | CutOff):
            said = reply if isinstance(reply, Say) else reply.reply
            cut = reply if isinstance(reply, CutOff) else None
            read = self._prefixes.read(asked.body) if self._prefixes is not None else None
            counts = _counts(said, read)
            if asked.body.get("stream"):
                options = asked.body.get("stream_options") or {}
                asked_for = bool(options.get("include_usage")) or "timings" in counts
                _stream(http, said, str(asked.body.get("model", "")), cut, counts if asked_for else None)
            else:
                _whole(http, said, str(asked.body.get("model", "")), cut, counts)

    def _embeddings(self, body: Mapping[str, Any]) -> dict[str, Any]:
        given = body.get("input", [])
        texts = [given] if isinstance(given, str) else [str(text) for text in given]
        rows = [
            {"object": "embedding", "index": place, "embedding": _vector(text, self.dim)}
            for place, text in enumerate(texts)
        ]
        return {"object": "list", "model": body.get("model"), "data": rows, "usage": {"prompt_tokens": 1}}


def _vector(text: str, dim: int) -> list[float]:
    """Of each word a direction of its own, added up: texts with common words are near each other."""
    row = [0.01] * dim
    for word in text.casefold().split():
        digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
        row[int.from_bytes(digest[:4], "big") % dim] += 1.0
        row[int.from_bytes(digest[4:], "big") % dim] += 0.5
    return row


def _ranked(body: Mapping[str, Any]) -> dict[str, Any]:
    query = set(str(body.get("query", "")).casefold().split())
    texts = body.get("documents") or body.get("texts") or []
    scores = [len(query.intersection(str(text).casefold().split())) / (len(query) or 1) for text in texts]
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return {"results": [{"index": place, "relevance_score": scores[place]} for place in order]}


def _holds(body: Any, path: str) -> bool:
    for part in path.split("."):
        if not isinstance(body, Mapping) or part not in body:
            return False
        body = body[part]
    return True


def _slot_action(path: str) -> tuple[int, str]:
    """Of `/slots/N?action=name`."""
    found = re.fullmatch(r"/slots/(\d+)\?action=(\w+)", path)
    return (int(found[1]), found[2]) if found else (0, "")


def _counts(said: Say, read: Read | None) -> dict[str, Any]:
    """What an answer tells of its tokens: of the script, or of what the server keeps."""
    usage: dict[str, Any] = {
        "prompt_tokens": said.tokens_in if read is None else read.tokens,
        "completion_tokens": said.tokens_out,
    }
    if read is None or read.details:
        usage["prompt_tokens_details"] = {
            "cached_tokens": said.tokens_cached if read is None else read.cached
        }
    timings = None if read is None else read.timings
    return {"usage": usage} if timings is None else {"usage": usage, "timings": dict(timings)}


def _whole(
    http: BaseHTTPRequestHandler, said: Say, model: str, cut: CutOff | None, counts: Mapping[str, Any]
) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    tree = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": said.finish_reason}],
        **counts,
    }
    body = json.dumps(tree).encode()
    if cut is None:
        _send(http, body)
        return
    _head(http, 200, "application/json", {"Content-Length": str(len(body))})
    http.wfile.write(body[: min(cut.bytes_max, len(body) - 1)])
    http.close_connection = True


def _stream(
    http: BaseHTTPRequestHandler,
    said: Say,
    model: str,
    cut: CutOff | None,
    counts: Mapping[str, Any] | None,
) -> None:
    words = said.text.split(" ")
    pieces = said.pieces or tuple(w if n == len(words) else w + " " for n, w in enumerate(words, start=1))
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": said.reasoning}] if said.reasoning else []
    deltas += [{"content": piece} for piece in pieces]
    _head(http, 200, "text/event-stream", {"Connection": "close"})  # its end is the connection's
    http.close_connection = True
    for number, delta in enumerate(deltas):
        if cut is not None and number > cut.events_max:
            return
        _event(http, model, {"index": 0, "delta": delta, "finish_reason": None})
    if cut is None:
        _event(http, model, {"index": 0, "delta": {}, "finish_reason": said.finish_reason})
        if counts is not None:
            tree = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model, "choices": []}
            http.wfile.write(b"data: " + json.dumps(tree | dict(counts)).encode() + b"\n\n")
        http.wfile.write(b"data: [DONE]\n\n")


def _event(http: BaseHTTPRequestHandler, model: str, choice: Mapping[str, Any]) -> None:
    tree = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model, "choices": [choice]}
    http.wfile.write(b"data: " + json.dumps(tree).encode() + b"\n\n")
    http.wfile.flush()


def _json(
    http: BaseHTTPRequestHandler,
    tree: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> None:
    _send(http, json.dumps(tree).encode(), status=status, headers=headers)


def _send(
    http: BaseHTTPRequestHandler,
    body: bytes,
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    _head(http, status, content_type, {"Content-Length": str(len(body)), **(headers or {})})
    http.wfile.write(body)


def _head(http: BaseHTTPRequestHandler, status: int, content_type: str, headers: Mapping[str, str]) -> None:
    http.send_response(status)
    http.send_header("Content-Type", content_type)
    for name, value in headers.items():
        http.send_header(name, value)
    http.end_headers()
