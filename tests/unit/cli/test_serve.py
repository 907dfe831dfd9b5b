"""`memos serve` and `memos demo`, as processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

START_TIMEOUT_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(port: int, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A server on `port`, answering."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "memos.cli", "serve", "--port", str(port)],
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=1)
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        else:
            return process
    process.kill()
    raise AssertionError(log.read_text())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    process = start(port, tmp_path / "server.log")
    yield f"http://127.0.0.1:{port}", process
    process.kill()
    process.wait()


def test_the_server_serves_a_whole_turn(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    """Over HTTP a memory is added, found and quoted in a chat answer, and the scheduler ends idle."""
    url, _ = server
    with httpx.Client(base_url=url, timeout=30) as client:
        assert client.get("/health").json()["status"] == "healthy"
        added = client.post(
            "/product/add",
            json={"user_id": "ann", "writable_cube_ids": ["pets"], "messages": "Max is allergic to chicken"},
        ).json()
        assert added["code"] == 200
        assert added["data"][0]["memory"] == "Max is allergic to chicken"
        found = client.post(
            "/product/search",
            json={"user_id": "ann", "query": "what is Max allergic to", "readable_cube_ids": ["pets"]},
        ).json()
        texts = [m["memory"] for bucket in found["data"]["text_mem"] for m in bucket["memories"]]
        assert texts == ["Max is allergic to chicken"]
        answer = client.post(
            "/product/chat/complete",
            json={"user_id": "ann", "query": "What is Max allergic to?", "readable_cube_ids": ["pets"]},
        ).json()
        assert "chicken" in answer["data"]["response"]
        waited = client.post(
            "/product/scheduler/wait", params={"user_name": "ann", "timeout_seconds": 20}
        ).json()
        assert waited["data"]["timed_out"] is False


def test_a_stopped_server_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """After Ctrl-C, and after a SIGKILL, a new server on the same data finds every acknowledged memory."""
    log = tmp_path / "server.log"
    acknowledged = []
    for number, how in enumerate((signal.SIGINT, signal.SIGKILL, signal.SIGTERM)):
        port = free_port()
        process = start(port, log)
        text = f"memory number {number} of the kettle"
        answer = httpx.post(
            f"http://127.0.0.1:{port}/product/add",
            json={"user_id": "ann", "writable_cube_ids": ["k"], "messages": text},
            timeout=30,
        )
        assert answer.status_code == 200
        acknowledged.append(text)
        process.send_signal(how)
        process.wait(timeout=30)
        if how is signal.SIGINT:
            assert process.returncode == 0, log.read_text()
    port = free_port()
    process = start(port, log)
    try:
        found = httpx.post(
            f"http://127.0.0.1:{port}/product/search",
            json={
                "user_id": "ann",
                "query": "kettle",
                "readable_cube_ids": ["k"],
                "relativity": 0,
                "dedup": "no",
            },
            timeout=30,
        ).json()
    finally:
        process.kill()
        process.wait()
    texts = {m["memory"] for bucket in found["data"]["text_mem"] for m in bucket["memories"]}
    assert texts == set(acknowledged)


def test_off_loopback_without_a_key_is_refused(tmp_path: Path) -> None:
    """A server that other machines could reach does not start without a key."""
    ran = subprocess.run(
        [sys.executable, "-m", "memos.cli", "serve", "--host", "0.0.0.0", "--port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 1
    assert "MEMOS_API__KEY" in ran.stderr


def test_the_demo_answers_from_memory(tmp_path: Path) -> None:
    """The demo's answers, its working memory and its last skip of recall come from the running system."""
    ran = subprocess.run(
        [sys.executable, "-m", "memos.cli", "demo", "--home", str(tmp_path / "kept")],
        env=os.environ | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ran.returncode == 0, ran.stderr
    for expected in ("named Max", "allergic to nuts", "Tuesdays", "9:40"):
        assert expected in ran.stdout
    assert ran.stdout.count("recall is needed") >= 1
    assert ran.stdout.rindex("working memory suffices") > ran.stdout.rindex("recall is needed")
    assert "chain intact: True" in ran.stdout
    assert (tmp_path / "kept" / "memory.db").exists()
