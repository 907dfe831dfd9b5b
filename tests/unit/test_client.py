"""The client against a real server, and against one that is busy, gone or broken."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvicorn

from memos.api.access import Role
from memos.api.app import create_app
from memos.api.keys import KeyFile
from memos.client import ApiError, AsyncMemosClient, MemosClient
from memos.runtime import build
from memos.settings import Settings


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(base URL, key for the user alice) of a real server."""
    home: Path = tmp_path_factory.mktemp("served")
    settings = Settings(home=home, models={"embedder": "none"}, api={"enable_chat": True})
    _, key = KeyFile(settings.keys_path).create("alice", role=Role.USER, users=("alice",), cubes=())
    listening = socket.create_server(("127.0.0.1", 0))
    with build(settings, start=True) as runtime:
        server = uvicorn.Server(uvicorn.Config(create_app(runtime), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", key
        server.should_exit = True
        thread.join(20)


class Scripted(BaseHTTPRequestHandler):
    """Answers from a script: a status, or None for a connection that is cut."""

    script: ClassVar[list[int | None]] = []
    bodies: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.bodies.append(json.loads(body))
        status = self.script.pop(0)
        if status is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        told = {"code": status, "message": "as scripted", "data": [], "request_id": "r-1"}
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        if status == 503:
            self.send_header("retry-after", "7")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def scripted() -> Iterator[tuple[str, list[int | None], list[dict[str, Any]]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    Scripted.script.clear()
    Scripted.bodies.clear()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Scripted.script, Scripted.bodies
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_the_whole_way(served: tuple[str, str]) -> None:
    """Added, found as fresh, explained, chatted about in both ways, waited for, corrected, deleted."""
    url, key = served
    with MemosClient(url, key=key) as memory:
        added = memory.add("My boat is called Petrel.", user_id="alice")
        assert [one.text for one in added.memories] == ["My boat is called Petrel."]
        found = memory.search("boat called", user_id="alice", min_seq=added.seqs, relativity=0)
        assert found.memories[0].id == added.memories[0].id and found.freshness["alice"]["fresh"]
        told = memory.explain("boat called", user_id="alice", expected="My boat is called Petrel.")
        assert told["verdict"] == "found"
        assert "Petrel" in memory.chat("What is my boat called?", user_id="alice").text
        assert "Petrel" in "".join(memory.chat_stream("What is my boat called?", user_id="alice"))
        assert memory.wait("alice", timeout_s=20)
        [row] = memory.feedback(
            "No, my boat is called Kestrel.",
            user_id="alice",
            async_mode="sync",
            history=[
                {"role": "user", "content": "What is my boat called?"},
                {"role": "assistant", "content": "Petrel."},
            ],
        )
        assert row["status"] == "completed"
        stored = memory.get(added.memories[0].id)
        assert stored is not None and stored.cube_id == "alice"
        assert memory.delete([stored.id]) == 1 and memory.get(stored.id) is None


def test_the_same_with_async(served: tuple[str, str]) -> None:
    """The client for asyncio gives what the blocking one gives."""
    url, key = served

    async def work() -> None:
        async with AsyncMemosClient(url, key=key) as memory:
            added = await memory.add([{"role": "user", "content": "I keep bees in Tavira."}], user_id="alice")
            found = await memory.search("bees", user_id="alice", min_seq=added.seqs, relativity=0)
            assert "bees" in found.memories[0].text
            pieces = [piece async for piece in memory.chat_stream("Where are the bees?", user_id="alice")]
            assert "Tavira" in "".join(pieces)
            assert "Tavira" in (await memory.chat("Where are the bees?", user_id="alice")).text
            told = await memory.explain("bees", user_id="alice", memory_id=added.memories[0].id)
            assert told["verdict"] == "found" and await memory.wait("alice")
            assert await memory.get("nowhere") is None and await memory.delete([added.memories[0].id]) == 1

    asyncio.run(work())


def test_errors_of_the_server_are_typed(served: tuple[str, str]) -> None:
    """Status, text and request id come with the error, of a stream too."""
    url, key = served
    with MemosClient(url, key=key) as memory, MemosClient(url) as stranger:
        with pytest.raises(ApiError) as caught:
            memory.search("x", user_id="bob")
        assert caught.value.status == 403 and "bob" in caught.value.message and caught.value.request_id
        with pytest.raises(ApiError) as caught:
            list(memory.chat_stream("x", user_id="bob"))
        assert caught.value.status == 403
        with pytest.raises(ApiError) as caught:
            stranger.add("x", user_id="alice")
        assert caught.value.status == 401


def test_a_busy_server_is_asked_again_when_it_says(
    scripted: tuple[str, list[int | None], list[dict[str, Any]]],
) -> None:
    """After the time it names, a lost connection after a growing one; each try sends the same message ids."""
    url, script, bodies = scripted
    script += [503, None, 200]
    pauses: list[float] = []
    with MemosClient(url, sleep=pauses.append) as memory:
        memory.add("My boat is called Petrel.", user_id="alice")
    assert len(bodies) == 3 and bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["messages"][0]["message_id"]
    assert pauses[0] == 7.0 and 0 < pauses[1] < 1


def test_tries_end(scripted: tuple[str, list[int | None], list[dict[str, Any]]]) -> None:
    """The last try's error comes out; what may have been carried out is not tried again."""
    url, script, bodies = scripted
    with MemosClient(url, sleep=lambda _: None, tries_max=2) as memory:
        script += [503, 503]
        with pytest.raises(ApiError) as caught:
            memory.add("x", user_id="alice")
        assert caught.value.status == 503
        script += [None, 200]
        with pytest.raises(ApiError) as caught:
            memory.chat("x", user_id="alice")
        assert caught.value.status == 0 and len(bodies) == 3


def test_a_server_that_is_not_there() -> None:
    """A refused connection is tried as often as allowed and told with the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    tried: list[float] = []
    with MemosClient(url, sleep=tried.append) as memory, pytest.raises(ApiError, match="did not answer"):
        memory.chat("x", user_id="alice")
    assert len(tried) == 3
