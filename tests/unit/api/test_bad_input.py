"""Whatever comes over the wire: a typed answer in the one envelope, nothing lost, the server goes on."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient

from memos.api.app import create_app
from memos.runtime import Runtime, build
from memos.settings import Settings

JSON = {"content-type": "application/json"}


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime), raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runtime, int]]:
    """A real server on a free port, impatient with slow bodies."""
    home: Path = tmp_path_factory.mktemp("served")
    settings = Settings(
        home=home, models={"embedder": "none"}, api={"enable_chat": True, "body_silence_s": 0.3}
    )
    listening = socket.create_server(("127.0.0.1", 0))
    with build(settings, start=True) as runtime:
        server = uvicorn.Server(uvicorn.Config(create_app(runtime), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield runtime, listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)


def spoken(port: int, *parts: bytes) -> bytes:
    """What the server answers to these bytes."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as line:
        for part in parts:
            line.sendall(part)
        got = b""
        while chunk := line.recv(65_536):
            got += chunk
        return got


def post(path: str, body: bytes, *, length: int | None = None, extra: bytes = b"") -> bytes:
    size = len(body) if length is None else length
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size}\r\nConnection: close\r\n".encode()
        + extra
        + b"\r\n"
        + body
    )


def envelope(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    parsed = dict(json.loads(body))
    assert f" {parsed['code']} ".encode() in head.split(b"\r\n")[0]
    assert parsed["data"] is None and parsed["request_id"]
    return parsed


def is_alive(port: int) -> bool:
    found = spoken(port, post("/product/search", b'{"user_id": "u", "query": "boat"}'))
    return found.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"user_id": 7, "messages": "x"}',
        b'{"user_id": "u", "messages": {"role": "user"}}',
        b'{"user_id": "u", "messages": [{"role": "nobody", "content": "x"}]}',
        b'{"user_id": "u", "messages": "x", "info": {"a": NaN}}',
        b'{"user_id": "u", "messages": "x", "info": {"a": "\\ud800"}}',
        b'{"user_id": "u", "messages": "x", "info": {"a": ' + b"9" * 5_000 + b"}}",
        b'{"user_id": "u", "messages": "x", "info": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"user_id": "u\\u0000", "messages": "x"}',
        b'{"user_id": "u", "messages": "x", "doc_path": "../../etc/passwd"}',
    ],
)
def test_a_bad_body_is_refused_whole(client: TestClient, runtime: Runtime, body: bytes) -> None:
    """Not JSON, wrong types, what cannot be kept, paths: 4xx in the envelope, and nothing is stored."""
    answer = client.post("/product/add", content=body, headers=JSON)
    assert 400 <= answer.status_code < 500, answer.text
    told = answer.json()
    assert (told["code"], told["data"]) == (answer.status_code, None)
    assert told["request_id"] == answer.headers["x-trace-id"]
    assert runtime.store.cubes() == [] and runtime.queue.statuses() == []


def test_ten_megabytes_are_refused(client: TestClient, runtime: Runtime) -> None:
    """More than the limit is a 413 that says the limit, declared or chunk by chunk."""
    body = json.dumps({"user_id": "u", "messages": "x" * 10_000_000}).encode()
    for content in (body, iter([body[:6_000_000], body[6_000_000:]])):
        answer = client.post("/product/add", content=content, headers=JSON)
        assert answer.status_code == 413 and str(8 * 1024 * 1024) in answer.json()["message"]
    assert runtime.store.cubes() == []


@pytest.mark.parametrize(
    "path", ["..%2f..%2fetc%2fpasswd", "%00", "a" * 5_000, "%ED%A0%80", "..%5c..%5cboot.ini"]
)
def test_path_tricks_find_nothing(client: TestClient, path: str) -> None:
    """An id is looked up as it is and never a path: unknown, or no such route."""
    answer = client.get(f"/product/get_memory/{path}")
    assert answer.status_code in (200, 404, 405) and answer.json()["data"] is None


def test_headers_cannot_be_injected(client: TestClient) -> None:
    """A trace id with odd characters is replaced, never repeated; a key of odd bytes is just wrong."""
    for odd in ("a\tb", "x" * 500, "<script>", "é"):
        answer = client.get("/health", headers={"x-trace-id": odd.encode("latin-1")})  # type: ignore[dict-item]
        assert answer.headers["x-trace-id"] != odd and len(answer.headers["x-trace-id"]) == 32


def test_a_broken_head_is_refused(served: tuple[Runtime, int]) -> None:
    """Bytes that are no HTTP, and header lines that are no headers, end the connection and nothing else."""
    _, port = served
    for head in (
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nx y: z\r\n\r\n",
    ):
        assert b"400" in spoken(port, head)[:20]
    long_line = b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.suppress(OSError):  # the line may be cut while we still speak
        assert b" 4" in spoken(port, long_line)[:14]
    assert is_alive(port)


def test_a_body_that_is_cut_off_stores_nothing(served: tuple[Runtime, int]) -> None:
    """A client that goes away in the middle of its body leaves nothing behind, and no answer is owed."""
    runtime, port = served
    whole = b'{"user_id": "cut", "messages": "My boat is called Petrel."}'
    for size in (1, len(whole) // 2, len(whole) - 1):
        with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as line:
            line.sendall(post("/product/add", whole[:size], length=len(whole)))
    assert is_alive(port)
    assert "cut" not in runtime.store.cubes()


def test_a_slow_body_is_given_up(served: tuple[Runtime, int]) -> None:
    """A body that stops coming is a 408; others are served meanwhile."""
    runtime, port = served
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as line:
        line.sendall(post("/product/add", b'{"user_id": "slow", ', length=100))
        assert is_alive(port)
        got = b""
        while chunk := line.recv(65_536):
            got += chunk
    assert envelope(got)["code"] == 408
    assert "slow" not in runtime.store.cubes()


def test_a_stream_that_is_cut_off_harms_nobody(served: tuple[Runtime, int]) -> None:
    """Clients that leave a chat in the middle of the stream do not keep the server busy."""
    _, port = served
    body = b'{"user_id": "left", "query": "What is my boat called?"}'
    for _ in range(5):
        with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as line:
            line.sendall(post("/product/chat/stream/playground", body))
            line.recv(64)
    assert is_alive(port)


def test_an_answered_add_is_never_lost_among_bad_ones(served: tuple[Runtime, int]) -> None:
    """Good and broken requests interleaved on many connections: every add that was answered 200 is found."""
    runtime, port = served
    answered: list[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            mark = f"note-{number}-{turn}"
            text = f"Remember {mark} please."
            good = json.dumps({"user_id": f"busy-{number}", "messages": text}).encode()
            with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as line:
                line.sendall(post("/product/add", good[: 5 + turn], length=len(good)))
            spoken(port, post("/product/add", b"{" * (turn + 1)))
            if spoken(port, post("/product/add", good)).startswith(b"HTTP/1.1 200"):
                answered.append(mark)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) == 30
    for number in range(6):
        body = json.dumps({"mem_cube_id": f"busy-{number}"}).encode()
        kept = spoken(port, post("/product/get_memory", body)).decode()
        assert all(mark in kept for mark in answered if mark.startswith(f"note-{number}-"))
    assert runtime.queue.dead.list() == []
