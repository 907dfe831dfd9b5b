"""A typed client for the HTTP API, with and without async.

    with MemosClient("http://127.0.0.1:8000", key=…) as memory:
        added = memory.add("My boat is called Petrel.", user_id="alice")
        found = memory.search("What is my boat called?", user_id="alice", min_seq=added.seqs)

What can be repeated without harm is repeated: a server that is busy is asked again after the time it names,
a lost connection is tried again. `add` is such a call, because each message carries an id of its own and a
turn that is sent again is not stored twice; a chat is repeated only if it cannot have begun. Every error of
the server is an `ApiError` with its status, text and request id. Thread-safe, as far as httpx is.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import quote
from uuid import uuid4

import httpx

from memos.errors import MemosError

BASE_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 30.0
TRIES_MAX = 4
WAIT_MIN_S, WAIT_MAX_S = 0.2, 30.0
BUSY = frozenset({408, 429, 503})  # nothing was done

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]


class ApiError(MemosError):
    """The server refused, or did not answer (`status` 0). `request_id` stands in its log too."""

    def __init__(self, status: int, message: str, request_id: str = "") -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.message = message
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Memory:
    """One memory. `relativity`: how well it fits the query, in [0, 1]; None where nothing was asked."""

    id: str
    text: str
    cube_id: str = ""
    relativity: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Added:
    """What was stored, and what was not and why. `seqs` by cube: give it to `search` as `min_seq`."""

    memories: tuple[Memory, ...]
    seqs: Mapping[str, int]
    skipped: tuple[Mapping[str, Any], ...]
    quarantined: tuple[Mapping[str, Any], ...]
    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """What was recalled, best first, how fresh each cube was read, and what recall had to do without."""

    memories: tuple[Memory, ...]
    preferences: tuple[Memory, ...]
    freshness: Mapping[str, Mapping[str, Any]]
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A chat's answer in one piece."""

    text: str
    reasoning: str


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    params: Mapping[str, Any] | None = None
    repeatable: bool = True  # also when it may have been carried out


# -- the calls, in the same words for both clients ------------------------------------------------------


def _add(messages: Messages, user_id: str, options: Mapping[str, Any]) -> _Call:
    turns: Iterable[Mapping[str, Any]] = (
        [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    )
    named = [{"message_id": str(uuid4()), **turn} for turn in turns]
    return _Call("POST", "/product/add", {"user_id": user_id, "messages": named, **options})


def _search(query: str, user_id: str, options: Mapping[str, Any]) -> _Call:
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("min_seq"), Mapping):
        given["min_seq"] = dict(given["min_seq"])
    return _Call("POST", "/product/search", {"user_id": user_id, "query": query, **given})


def _explain(query: str, user_id: str, options: Mapping[str, Any]) -> _Call:
    return _Call("POST", "/product/explain", {"user_id": user_id, "query": query, **options})


def _feedback(text: str, user_id: str, options: Mapping[str, Any]) -> _Call:
    body = {"user_id": user_id, "feedback_content": text, **options}
    return _Call("POST", "/product/feedback", body, repeatable=False)


def _chat(query: str, user_id: str, options: Mapping[str, Any]) -> _Call:
    body = {"user_id": user_id, "query": query, **options}
    return _Call("POST", "/product/chat/complete", body, repeatable=False)


def _stream(query: str, user_id: str, options: Mapping[str, Any]) -> _Call:
    body = {"user_id": user_id, "query": query, **options}
    return _Call("POST", "/product/chat/stream", body, repeatable=False)


def _delete(memory_ids: Sequence[str]) -> _Call:
    return _Call("POST", "/product/delete_memory", {"memory_ids": list(memory_ids)})


def _wait(user_id: str, timeout_s: float) -> _Call:
    params = {"user_name": user_id, "timeout_seconds": timeout_s, "poll_interval": 0.1}
    return _Call("POST", "/product/scheduler/wait", params=params)


# -- the answers ----------------------------------------------------------------------------------------


def _added(told: Mapping[str, Any]) -> Added:
    return Added(
        memories=tuple(Memory(row["memory_id"], row["memory"], row["cube_id"]) for row in told["data"] or ()),
        seqs=told.get("seqs", {}),
        skipped=tuple(told.get("skipped", ())),
        quarantined=tuple(told.get("quarantined", ())),
        message=told["message"],
    )


def _found(told: Mapping[str, Any]) -> Found:
    return Found(
        memories=_memories(told["data"]["text_mem"]),
        preferences=_memories(told["data"]["pref_mem"]),
        freshness=told.get("freshness", {}),
        degraded=tuple(told.get("degraded", ())),
    )


def _memories(buckets: Sequence[Mapping[str, Any]]) -> tuple[Memory, ...]:
    """Of all cubes, best first."""
    found = [
        Memory(
            row["id"], row["memory"], bucket["cube_id"], row["metadata"].get("relativity"), row["metadata"]
        )
        for bucket in buckets
        for row in bucket["memories"]
    ]
    if len(buckets) > 1:
        found.sort(key=lambda one: -(one.relativity or 0.0))
    return tuple(found)


def _memory(told: Mapping[str, Any]) -> Memory | None:
    row = told["data"]
    return row and Memory(row["id"], row["memory"], row["metadata"]["mem_cube_id"], None, row["metadata"])


def _answer(told: Mapping[str, Any]) -> Answer:
    return Answer(told["data"]["response"], told["data"]["reasoning"])


def _told(response: httpx.Response) -> dict[str, Any]:
    """The envelope of a good answer. Raises ApiError."""
    try:
        envelope = response.json()
    except ValueError:
        envelope = None
    if response.is_success and isinstance(envelope, dict):
        return envelope
    told = envelope if isinstance(envelope, dict) else {}
    message = str(told.get("message") or response.text[:200] or response.reason_phrase)
    raise ApiError(response.status_code, message, str(told.get("request_id") or ""))


def _text_of(line: str) -> str:
    """The piece of an answer that one line of a stream brings. Raises ApiError for an error frame."""
    if not line.startswith("data:"):
        return ""
    frame = json.loads(line[5:])
    if frame["type"] == "error":
        raise ApiError(0, frame["content"], frame.get("trace_id", ""))
    return str(frame["data"]) if frame["type"] == "text" else ""


def _pause_s(number: int, response: httpx.Response | None) -> float:
    """How long to wait before try `number` + 1: what the server asks for, else longer each time, jittered."""
    asked = response.headers.get("retry-after", "") if response is not None else ""
    if asked.isdecimal():
        return min(float(asked), WAIT_MAX_S)
    longer: float = WAIT_MIN_S * 2.0**number
    return min(longer, WAIT_MAX_S) * (0.5 + random.random() / 2)


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _lost(error: httpx.TransportError, base_url: object) -> ApiError:
    return ApiError(0, f"{base_url} did not answer: {error or type(error).__name__}")


class MemosClient:
    """Blocking. Close it, or use it as a context manager. Options are the documented fields of each request."""

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        tries_max: int = TRIES_MAX,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(base_url=base_url, headers=_headers(key), timeout=timeout_s)
        self._timeout_s = timeout_s
        self._tries_max = tries_max
        self._sleep = sleep

    def add(self, messages: Messages, *, user_id: str, **options: Any) -> Added:
        """Store a text or a conversation; it can be recalled when this returns."""
        return _added(self._send(_add(messages, user_id, options)))

    def search(
        self,
        query: str,
        *,
        user_id: str,
        top_k: int = 10,
        min_seq: int | Mapping[str, int] | None = None,
        wait_ms: int = 0,
        **options: Any,
    ) -> Found:
        """The memories that fit, best first."""
        options |= {"top_k": top_k, "min_seq": min_seq, "wait_ms": wait_ms}
        return _found(self._send(_search(query, user_id, options)))

    def explain(self, query: str, *, user_id: str, **options: Any) -> Mapping[str, Any]:
        """Why a search finds `memory_id` or `expected`, or why not."""
        told: Mapping[str, Any] = self._send(_explain(query, user_id, options))["data"]
        return told

    def feedback(self, text: str, *, user_id: str, **options: Any) -> Sequence[Mapping[str, Any]]:
        """Say what was right or wrong about an answer."""
        told: Sequence[Mapping[str, Any]] = self._send(_feedback(text, user_id, options))["data"]
        return told

    def chat(self, query: str, *, user_id: str, **options: Any) -> Answer:
        """An answer out of memory, in one piece."""
        return _answer(self._send(_chat(query, user_id, options)))

    def chat_stream(self, query: str, *, user_id: str, **options: Any) -> Iterator[str]:
        """The same in pieces, as they come. Leaving the loop ends the chat."""
        call = _stream(query, user_id, options)
        try:
            with self._http.stream(call.method, call.path, json=call.body) as response:
                if not response.is_success:
                    response.read()
                    _told(response)
                for line in response.iter_lines():
                    if text := _text_of(line):
                        yield text
        except httpx.TransportError as error:
            raise _lost(error, self._http.base_url) from error

    def get(self, memory_id: str) -> Memory | None:
        """One memory; None when there is none of that id."""
        return _memory(self._send(_Call("GET", f"/product/get_memory/{quote(memory_id, safe='')}")))

    def delete(self, memory_ids: Sequence[str]) -> int:
        """Delete memories everywhere; how many lived."""
        return int(self._send(_delete(memory_ids))["data"]["deleted"])

    def wait(self, user_id: str, *, timeout_s: float = 60.0) -> bool:
        """Wait until the user has nothing left in the queue; whether that came true."""
        return not self._send(_wait(user_id, timeout_s), wait_s=timeout_s)["data"]["timed_out"]

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> MemosClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: _Call, *, wait_s: float = 0.0) -> dict[str, Any]:
        timeout = httpx.Timeout(self._timeout_s, read=self._timeout_s + wait_s)
        for number in range(self._tries_max):
            last = number + 1 == self._tries_max
            response = None
            try:
                response = self._http.request(
                    call.method, call.path, json=call.body, params=call.params, timeout=timeout
                )
                if response.status_code not in BUSY or last:
                    return _told(response)
            except httpx.TransportError as error:
                if last or not (call.repeatable or isinstance(error, httpx.ConnectError)):
                    raise _lost(error, self._http.base_url) from error
            self._sleep(_pause_s(number, response))
        raise AssertionError("the last try returns or raises")


class AsyncMemosClient:
    """The same for asyncio: every method is awaited, `chat_stream` is looped over with `async for`."""

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        tries_max: int = TRIES_MAX,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, headers=_headers(key), timeout=timeout_s)
        self._timeout_s = timeout_s
        self._tries_max = tries_max
        self._sleep = sleep

    async def add(self, messages: Messages, *, user_id: str, **options: Any) -> Added:
        """Store a text or a conversation; it can be recalled when this returns."""
        return _added(await self._send(_add(messages, user_id, options)))

    async def search(
        self,
        query: str,
        *,
        user_id: str,
        top_k: int = 10,
        min_seq: int | Mapping[str, int] | None = None,
        wait_ms: int = 0,
        **options: Any,
    ) -> Found:
        """The memories that fit, best first."""
        options |= {"top_k": top_k, "min_seq": min_seq, "wait_ms": wait_ms}
        return _found(await self._send(_search(query, user_id, options)))

    async def explain(self, query: str, *, user_id: str, **options: Any) -> Mapping[str, Any]:
        """Why a search finds `memory_id` or `expected`, or why not."""
        told: Mapping[str, Any] = (await self._send(_explain(query, user_id, options)))["data"]
        return told

    async def feedback(self, text: str, *, user_id: str, **options: Any) -> Sequence[Mapping[str, Any]]:
        """Say what was right or wrong about an answer."""
        told: Sequence[Mapping[str, Any]] = (await self._send(_feedback(text, user_id, options)))["data"]
        return told

    async def chat(self, query: str, *, user_id: str, **options: Any) -> Answer:
        """An answer out of memory, in one piece."""
        return _answer(await self._send(_chat(query, user_id, options)))

    async def chat_stream(self, query: str, *, user_id: str, **options: Any) -> AsyncIterator[str]:
        """The same in pieces, as they come. Leaving the loop ends the chat."""
        call = _stream(query, user_id, options)
        try:
            async with self._http.stream(call.method, call.path, json=call.body) as response:
                if not response.is_success:
                    await response.aread()
                    _told(response)
                async for line in response.aiter_lines():
                    if text := _text_of(line):
                        yield text
        except httpx.TransportError as error:
            raise _lost(error, self._http.base_url) from error

    async def get(self, memory_id: str) -> Memory | None:
        """One memory; None when there is none of that id."""
        return _memory(await self._send(_Call("GET", f"/product/get_memory/{quote(memory_id, safe='')}")))

    async def delete(self, memory_ids: Sequence[str]) -> int:
        """Delete memories everywhere; how many lived."""
        return int((await self._send(_delete(memory_ids)))["data"]["deleted"])

    async def wait(self, user_id: str, *, timeout_s: float = 60.0) -> bool:
        """Wait until the user has nothing left in the queue; whether that came true."""
        return not (await self._send(_wait(user_id, timeout_s), wait_s=timeout_s))["data"]["timed_out"]

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncMemosClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: _Call, *, wait_s: float = 0.0) -> dict[str, Any]:
        timeout = httpx.Timeout(self._timeout_s, read=self._timeout_s + wait_s)
        for number in range(self._tries_max):
            last = number + 1 == self._tries_max
            response = None
            try:
                response = await self._http.request(
                    call.method, call.path, json=call.body, params=call.params, timeout=timeout
                )
                if response.status_code not in BUSY or last:
                    return _told(response)
            except httpx.TransportError as error:
                if last or not (call.repeatable or isinstance(error, httpx.ConnectError)):
                    raise _lost(error, self._http.base_url) from error
            await self._sleep(_pause_s(number, response))
        raise AssertionError("the last try returns or raises")
