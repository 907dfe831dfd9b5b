"""A server with a runtime of the test's own, and a page of a real browser over it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from memos.api.access import Role
from memos.api.app import create_app
from memos.api.keys import KeyFile
from memos.api.product_models import APIADDRequest
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import run_until_idle

from .browser import FLAGS, chromium

START_TIMEOUT_S = 20.0
SHOWN_MS = 15_000  # a limit for what must come, on a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(runtime: Runtime, port: int) -> Iterator[str]:
    """The application over `runtime` on `port`; connections that are open at the end are cut."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(runtime), port=port, log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.started:
        assert time.monotonic() < deadline and thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class World:
    """What the tests do to the server behind the page's back."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def add(self, text: str, *, user: str = "ann", cube: str = "pets") -> str:
        from memos.api.handlers import handlers_of

        request = APIADDRequest(
            user_id=user,
            writable_cube_ids=[cube],
            messages=[{"role": "user", "content": text}],
            async_mode="sync",
        )
        stored = handlers_of(self.runtime).add.handle_add_memories(request).data
        assert stored
        return str(stored[0]["memory_id"])

    def submit(
        self,
        label: str,
        content: str = "x",
        *,
        user: str = "ann",
        cube: str = "pets",
        trace: str = "t",
        delay_s: float = 0,
    ) -> str:
        message = ScheduleMessageItem(
            user_id=user, mem_cube_id=cube, label=label, content=content, trace_id=trace
        )
        return self.runtime.queue.submit([message], delay_s=delay_s)[0]

    def idle(self) -> None:
        run_until_idle(self.runtime.scheduler)

    def key(
        self, role: Role, *, users: tuple[str, ...] | None = None, cubes: tuple[str, ...] | None = None
    ) -> str:
        return KeyFile(self.runtime.settings.keys_path).create("k", role=role, users=users, cubes=cubes)[1]


def fail(messages: list[ScheduleMessageItem]) -> None:
    raise ValueError(f"no total on <b>{messages[0].content}</b>")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A running scheduler with a handler that always fails, and dies at the first try."""
    with build(Settings(home=tmp_path / "data", models={"embedder": "none"})) as runtime:
        runtime.scheduler.register_handlers({"bad": fail, "fine": lambda messages: None})
        policy = runtime.scheduler.orchestrator.get_policy("bad")
        runtime.scheduler.orchestrator.set_policy("bad", replace(policy, max_attempts=1, batch_size_max=1))
        yield World(runtime)


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with serving(world.runtime, free_port()) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Closed with each file: its event loop would be in the way of tests that run one of their own."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="the development extra is not installed")
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


class Seen:
    """Everything that a page asked for and complained about."""

    def __init__(self, page: Any) -> None:
        self.urls: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None,
        )


Opener = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Opener]:
    """Opens the dashboard in a browser profile of its own; `seen` of the page tells what it asked for."""
    contexts = []

    def opener(
        url: str,
        tab: str = "overview",
        *,
        key: str = "",
        ready: bool = True,
        clock: bool = False,
        **options: Any,
    ) -> Any:
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options
        )
        context.set_default_timeout(SHOWN_MS)
        contexts.append(context)
        page = context.new_page()
        page.seen = Seen(page)
        if clock:
            page.clock.install()
        if key:
            page.add_init_script(f"sessionStorage.setItem('memos.key', '{key}')")
        page.goto(f"{url}/" if tab == "overview" else f"{url}/#{tab}")
        if ready:
            page.wait_for_selector("#pulse[data-state=live]")
        return page

    yield opener
    for context in contexts:
        context.close()
