"""The HTTP side: routes, envelopes, frames, limits, ids. Driven through the real application."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from memos import log
from memos.api import auth
from memos.api.app import create_app
from memos.api.errors import STATUS_OF, status_of
from memos.api.routers.product import product_router
from memos.errors import ConfigError, MemosError, QueueFull, StoreCorrupt
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.store import ItemFilter
from memos.runtime import Runtime, build
from memos.testing import run_until_idle

from .conftest import settings_in

JSON = {"content-type": "application/json"}


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def frames_of(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n\n")
    return [json.loads(frame.removeprefix("data: ")) for frame in text.split("\n\n") if frame]


def add(client: TestClient, *texts: str, **fields: object) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in texts]
    answer = client.post("/product/add", json={"user_id": "u", "messages": messages, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_health_tells_service_version_and_scheduler(client: TestClient, runtime: Runtime) -> None:
    """Health is true about the scheduler, before and after it starts."""
    body = client.get("/health").json()
    assert (body["status"], body["service"], body["scheduler"]) == ("healthy", "memscheduler", "stopped")
    runtime.scheduler.start()
    assert client.get("/health").json()["scheduler"] == "running"


def test_added_over_http_is_found_over_http(client: TestClient) -> None:
    """What one request stores the next one finds, in the documented shapes."""
    body = add(client, "My boat is called Petrel.")
    assert (body["code"], [row["cube_id"] for row in body["data"]]) == (200, ["u"])
    found = client.post("/product/search", json={"user_id": "u", "query": "boat called"}).json()
    [memory] = found["data"]["text_mem"][0]["memories"]
    assert memory["id"] == body["data"][0]["memory_id"]
    one = client.get(f"/product/get_memory/{memory['id']}").json()
    assert one["data"]["memory"] == "My boat is called Petrel."
    listed = client.post("/product/get_memory", json={"mem_cube_id": "u"}).json()
    assert listed["data"]["text_mem"][0]["total_nodes"] == 1
    deleted = client.post("/product/delete_memory", json={"memory_ids": [memory["id"]]}).json()
    assert deleted["data"] == {"status": "success", "deleted": 1}
    found = client.post("/product/search", json={"user_id": "u", "query": "boat called"}).json()
    assert found["data"]["text_mem"][0]["memories"] == []


def test_the_playground_stream_has_the_documented_frames(client: TestClient) -> None:
    """Frames are `data: {json}` in the documented order, with no event line, and `end` last."""
    add(client, "My boat is called Petrel.")
    answer = client.post(
        "/product/chat/stream/playground", json={"user_id": "u", "query": "What is my boat called?"}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event:" not in answer.text
    frames = frames_of(answer.text)
    assert [frame["type"] for frame in frames] == [
        *("status", "status", "reference", "pref_md_string", "reference"),
        *("status", "reasoning", "status", "text", "time", "suggestion", "end"),
    ]
    by_type = {frame["type"]: frame for frame in frames}
    assert "Petrel" in by_type["text"]["data"]
    assert by_type["time"]["data"]["speed_improvement"] is None
    [reference] = by_type["reference"]["data"]
    assert set(reference) == {"metadata"} and reference["metadata"]["memory"] == "My boat is called Petrel."


def test_the_plain_stream_has_reasoning_text_and_end_only(client: TestClient) -> None:
    """The plain stream leaves out what only a playground shows."""
    answer = client.post("/product/chat/stream", json={"user_id": "u", "query": "Who am I?"})
    assert [frame["type"] for frame in frames_of(answer.text)] == ["reasoning", "text", "end"]


def test_a_failing_stream_ends_with_an_error_frame_and_end(
    client: TestClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in mid-stream is a frame with text and trace id, without traceback, and `end` follows."""

    def broken(self: object, _: object) -> object:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(type(runtime.retriever), "search", broken)
    answer = client.post(
        "/product/chat/stream", json={"user_id": "u", "query": "q"}, headers={"x-trace-id": "trace-5"}
    )
    error, end = frames_of(answer.text)
    assert (error["type"], error["trace_id"], end) == ("error", "trace-5", {"type": "end"})
    assert "internal error" in error["content"]
    assert "secret" not in answer.text and "Traceback" not in answer.text


def test_chat_complete_answers_in_one_piece(client: TestClient) -> None:
    """`/chat/complete` gives response and reasoning in the envelope."""
    add(client, "My boat is called Petrel.")
    body = client.post(
        "/product/chat/complete", json={"user_id": "u", "query": "What is my boat called?"}
    ).json()
    assert "Petrel" in body["data"]["response"] and body["data"]["reasoning"]


def test_chat_is_off_unless_it_is_switched_on(tmp_path: Path) -> None:
    """Without the switch every chat route answers 503 and says how to switch it on; the rest works."""
    with build(settings_in(tmp_path / "off", enable_chat=None), start=False) as built:
        client = TestClient(create_app(built))
        for route in ("complete", "stream", "stream/playground"):
            answer = client.post(f"/product/chat/{route}", json={"user_id": "u", "query": "q"})
            assert answer.status_code == 503
            assert "ENABLE_CHAT_API=true" in answer.json()["message"]
        add(client, "still works")


@pytest.mark.parametrize(
    ("method", "path", "kwargs", "status", "says"),
    [
        ("POST", "/product/add", {"content": b"{nonsense", "headers": JSON}, 422, "JSON"),
        ("POST", "/product/add", {"json": [1, 2]}, 422, ""),
        ("POST", "/product/add", {"json": {"user_id": "u", "messages": ""}}, 422, "messages is empty"),
        ("POST", "/product/search", {"json": {"user_id": "", "query": "q"}}, 422, "user_id is empty"),
        (
            "POST",
            "/product/search",
            {"json": {"user_id": "u", "query": "q", "filter": {"bogus": 1}}},
            400,
            "bogus",
        ),
        ("POST", "/product/delete_memory", {"json": {"memory_ids": ["none-such"]}}, 404, "none-such"),
        ("GET", "/product/nowhere", {}, 404, "Not Found"),
        ("GET", "/product/add", {}, 405, "Not Allowed"),
        ("GET", "/product/scheduler/status?user_id=u&task_id=t", {}, 404, "no task 't'"),
        ("GET", "/product/scheduler/task_queue_status?user_id=", {}, 400, "user_id is empty"),
        ("POST", "/product/scheduler/wait?user_name=u&timeout_seconds=-1", {}, 422, "timeout_seconds"),
        ("POST", "/product/scheduler/wait?user_name=", {}, 400, "user_name is empty"),
        ("GET", "/product/scheduler/wait/stream?user_name=", {}, 400, "user_name is empty"),
        ("GET", "/product/scheduler/wait/stream?user_name=a%00", {}, 400, "control"),
    ],
)
def test_every_error_is_the_one_envelope(
    client: TestClient, method: str, path: str, kwargs: dict[str, Any], status: int, says: str
) -> None:
    """A bad request has its true status, a text that helps, no data and the request's id."""
    answer = client.request(method, path, **kwargs)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert (body["code"], body["data"]) == (status, None)
    assert says in body["message"]
    assert body["request_id"] == answer.headers["x-trace-id"]
    assert ("detail" in body) == (status == 422)


def test_every_error_class_has_a_status() -> None:
    """Each of our errors maps to one status; what the caller cannot change is a 500."""
    assert status_of(StoreCorrupt("x")) == 500
    assert all(400 <= status < 600 and issubclass(kind, MemosError) for kind, status in STATUS_OF)


def test_a_full_queue_says_when_to_come_back(
    client: TestClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retryable error is a 503 with Retry-After."""

    def full(*_: object, **__: object) -> object:
        raise QueueFull("200000 messages wait")

    monkeypatch.setattr(type(runtime.queue), "depth", full)
    answer = client.get("/product/scheduler/task_queue_status?user_id=u")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_fault_of_ours_shows_nothing_of_itself(
    client: TestClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception is a 500 in the envelope, without its text."""

    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(type(runtime.queue), "depth", broken)
    answer = client.get("/product/scheduler/task_queue_status?user_id=u")
    assert answer.status_code == 500 and "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-trace-id"]


@pytest.mark.parametrize("name", ["x-trace-id", "g-trace-id", "trace-id"])
def test_the_callers_trace_reaches_the_task(client: TestClient, runtime: Runtime, name: str) -> None:
    """A trace id of the caller comes back and rides on the task; one with odd characters is replaced."""
    messages = [{"role": "user", "content": "x y"}]
    answer = client.post(
        "/product/add", json={"user_id": "u", "messages": messages}, headers={name: "trace-42"}
    )
    assert answer.headers["x-trace-id"] == answer.json()["request_id"] == "trace-42"
    [delivery] = runtime.queue.get([status.key for status in runtime.queue.statuses()])
    assert (delivery.message.trace_id, delivery.message.api_path) == ("trace-42", "/product/add")
    odd = client.get("/health", headers={name: "a b\tc"}).headers["x-trace-id"]
    assert odd != "a b\tc" and len(odd) == 32


@pytest.mark.parametrize("declared", [True, False])
def test_an_over_long_body_is_refused(tmp_path: Path, declared: bool) -> None:
    """A body over the limit is a 413, whether its length was declared or not, and stores nothing."""
    with build(settings_in(tmp_path / "small", body_bytes_max=2_048), start=False) as built:
        client = TestClient(create_app(built))
        body = json.dumps({"user_id": "u", "messages": "x" * 4_000}).encode()
        content = body if declared else iter([body[:1_000], body[1_000:]])
        answer = client.post("/product/add", content=content, headers=JSON)
        assert answer.status_code == 413, answer.text
        assert "at most 2048" in answer.json()["message"]
        assert built.store.cubes() == []


def test_a_key_opens_every_route_and_its_lack_only_health(tmp_path: Path) -> None:
    """With a key set, requests without it or with another are 401; health stays open."""
    key = "correct-horse-battery"
    settings = settings_in(tmp_path / "keyed")
    api = type(settings.api)(enable_chat=True, key=key, host="0.0.0.0")
    with build(settings.model_copy(update={"api": api}), start=False) as built:
        client = TestClient(create_app(built))
        search = {"user_id": "u", "query": "q"}
        assert client.get("/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {key}"}):
            refused = client.post("/product/search", json=search, headers=headers)
            assert (refused.status_code, refused.json()["data"]) == (401, None)
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            assert client.post("/product/search", json=search, headers=headers).status_code == 200


def test_a_key_stands_in_no_file_and_no_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Keys that were right and wrong, wherever a client puts them: memory, journal, queue, web logs, output."""
    key, wrong = "correct-horse-battery", "incorrect-horse-battery"
    settings = settings_in(tmp_path / "keyed")
    api = type(settings.api)(enable_chat=True, key=key)
    with build(settings.model_copy(update={"api": api}), start=False) as built:
        log.configure("DEBUG", "json")
        client = TestClient(create_app(built), raise_server_exceptions=False)
        body = {"user_id": "u", "messages": [{"role": "user", "content": "My boat is called Petrel."}]}
        for given in (key, wrong):
            for headers in ({"authorization": f"Bearer {given}"}, {"x-api-key": given}):
                client.post("/product/add", json=body, headers=headers)
                client.post("/product/search", json={"user_id": "u"}, headers=headers)
        built.scheduler.start()
        run_until_idle(built.scheduler)
        assert built.store.find(ItemFilter(user_ids=("u",))).total >= 1
    written = {path: path.read_bytes() for path in (tmp_path / "keyed").rglob("*") if path.is_file()}
    assert any(b"Petrel" in content for content in written.values())
    assert [path for path, content in written.items() if b"horse-battery" in content] == []
    out, err = capfd.readouterr()
    assert "scheduler.stopped" in err and "horse-battery" not in out + err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_an_open_server_needs_a_key(host: str) -> None:
    """Off loopback a missing key is refused at start, and so is a short one anywhere."""
    with pytest.raises(ConfigError, match="MEMOS_API__KEY"):
        auth.check_exposure(host, None)
    with pytest.raises(ConfigError, match="at least 16"):
        auth.check_exposure("127.0.0.1", "short")
    auth.check_exposure(host, "a-long-enough-key")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_key(host: str) -> None:
    """On loopback the server starts without a key."""
    auth.check_exposure(host, None)


def test_the_router_keeps_its_envelope_in_any_application(runtime: Runtime) -> None:
    """Mounted in somebody else's application, the routes still answer errors in the envelope."""
    from memos.api.handlers import handlers_of

    app = FastAPI()
    app.include_router(product_router(lambda: handlers_of(runtime), instance_id="i"))
    client = TestClient(app)
    add(client, "in another application")
    answer = client.post("/product/delete_memory", json={"memory_ids": ["nope"]})
    assert (answer.status_code, answer.json()["code"]) == (404, 404)
    assert client.post("/product/add", json={}).json()["code"] == 422


def test_status_counts_are_those_of_the_queue(client: TestClient, runtime: Runtime) -> None:
    """Waiting, then completed: the counts, the item and the business task agree at both moments."""
    add(client, "first", task_id="job", session_id="s")
    runtime.scheduler.submit_messages(
        [
            ScheduleMessageItem(item_id="i1", user_id="u", mem_cube_id="u", label="my_label", content="x"),
        ]
    )
    before = client.get("/product/scheduler/allstatus").json()["data"]
    assert before["all_tasks_summary"]["waiting"] == before["scheduler_summary"]["waiting"] == 2
    queued = client.get("/product/scheduler/task_queue_status?user_id=u").json()["data"]
    assert (queued["remaining_tasks_count"], queued["pending_tasks_count"]) == (2, 0)
    assert len(queued["stream_keys"]) == 2
    done: list[str] = []
    runtime.scheduler.register_handlers(
        {"my_label": lambda messages: done.extend(m.item_id for m in messages)}
    )
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    assert done == ["i1"]
    after = client.get("/product/scheduler/allstatus").json()["data"]
    assert after["all_tasks_summary"]["completed"] == after["all_tasks_summary"]["total"] == 2
    for task in ("job", "i1"):
        status = client.get("/product/scheduler/status", params={"user_id": "u", "task_id": task}).json()
        assert status["data"] == [{"task_id": task, "status": "completed"}]
    everything = client.get("/product/scheduler/status", params={"user_id": "u"}).json()["data"]
    assert {row["status"] for row in everything} == {"completed"} and len(everything) == 2


def test_wait_answers_when_the_work_is_done_and_not_before(client: TestClient, runtime: Runtime) -> None:
    """In local mode too: timeout while something waits, idle when nothing does."""
    release = threading.Event()
    runtime.scheduler.register_handlers({"slow": lambda messages: release.wait(30)})
    runtime.scheduler.start()
    runtime.scheduler.submit_messages(
        ScheduleMessageItem(user_id="u", mem_cube_id="c", label="slow", content="x")
    )
    url = "/product/scheduler/wait?user_name=u&poll_interval=0.02&timeout_seconds="
    late = client.post(url + "0.1").json()
    assert late["message"] == "timeout" and late["data"]["running_tasks"] == 1 and late["data"]["timed_out"]
    other = client.post("/product/scheduler/wait?user_name=v").json()
    assert other["message"] == "idle" and other["data"]["running_tasks"] == 0
    release.set()
    assert client.post(url + "60").json()["message"] == "idle"
    stream = client.get("/product/scheduler/wait/stream?user_name=u&poll_interval=0.02")
    assert [frame["status"] for frame in frames_of(stream.text)] == ["idle"]
    runtime.scheduler.submit_messages(
        ScheduleMessageItem(user_id="u", mem_cube_id="c", label="nobody_serves_this", content="x")
    )
    stream = client.get("/product/scheduler/wait/stream?user_name=u&poll_interval=0.02&timeout_seconds=0.1")
    states = [frame["status"] for frame in frames_of(stream.text)]
    assert states[-1] == "timeout" and set(states[:-1]) == {"running"}


def test_waiting_clients_do_not_keep_others_out(runtime: Runtime) -> None:
    """While more clients wait than the server has threads, other requests are answered."""
    runtime.scheduler.submit_messages(
        ScheduleMessageItem(user_id="u", mem_cube_id="c", label="nobody_serves_this", content="x")
    )

    async def crowd() -> tuple[int, int]:
        transport = httpx.ASGITransport(app=create_app(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            url = "/product/scheduler/wait?user_name=u&poll_interval=60&timeout_seconds=3600"
            waiting = [asyncio.create_task(client.post(url)) for _ in range(60)]
            await asyncio.sleep(0)
            answer = await asyncio.wait_for(client.get("/health"), 30)
            left = sum(not one.done() for one in waiting)
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            return answer.status_code, left

    assert asyncio.run(crowd()) == (200, 60)


def test_an_application_closes_the_runtime_that_it_opened(tmp_path: Path) -> None:
    """Without a runtime of the caller's, the application runs one of its own and leaves nothing running."""
    settings = settings_in(tmp_path / "own")
    with TestClient(create_app(settings=settings)) as client:
        assert client.get("/health").json()["scheduler"] == "running"
        add(client, "My boat is called Petrel.")
        assert (
            client.post("/product/scheduler/wait?user_name=u&poll_interval=0.02").json()["message"] == "idle"
        )
    assert client.post("/product/search", json={"user_id": "u", "query": "boat"}).status_code == 503
    with TestClient(create_app(settings=settings)) as client:
        found = client.post("/product/search", json={"user_id": "u", "query": "boat called"}).json()
        assert found["data"]["text_mem"][0]["memories"][0]["memory"] == "My boat is called Petrel."


def test_a_stream_that_is_cut_stores_no_half_turn(client: TestClient, runtime: Runtime) -> None:
    """The frames' own iterator, closed after its first frame, closes the turn behind it."""
    from memos.api.handlers import handlers_of
    from memos.api.product_models import ChatPlaygroundRequest
    from memos.api.streams import streamed

    async def first_frame() -> str:
        request = ChatPlaygroundRequest(user_id="u", query="Where is my boat?")
        frames = handlers_of(runtime).chat_service.handle_chat_stream(request, kind="playground")
        body = streamed(frames).body_iterator
        async for frame in body:
            await body.aclose()  # type: ignore[union-attr]
            return str(frame)
        return ""

    assert '"status"' in asyncio.run(first_frame())
    assert runtime.store.cubes() == [] and runtime.queue.statuses() == []


def test_the_description_of_the_api_is_complete(client: TestClient) -> None:
    """OpenAPI lists every route with a description."""
    paths = client.get("/openapi.json").json()["paths"]
    assert {
        *("/product/add", "/product/search", "/product/chat/complete", "/product/chat/stream"),
        *("/product/chat/stream/playground", "/product/get_memory", "/product/get_memory/{memory_id}"),
        *("/product/delete_memory", "/product/scheduler/allstatus", "/product/scheduler/status"),
        *("/product/scheduler/task_queue_status", "/product/scheduler/wait"),
        *("/product/scheduler/wait/stream", "/health", "/metrics"),
        *("/product/chat/stream/business_user", "/product/feedback", "/product/suggestions"),
        *("/product/get_memory_by_ids", "/product/get_all", "/product/get_memory_dashboard"),
        *("/product/create_cube", "/product/register_cube", "/product/exist_mem_cube_id"),
        *("/product/get_user_names_by_memory_ids", "/product/delete_memory_by_record_id"),
        *("/product/recover_memory_by_record_id", "/product/explain", "/product/scheduler/logs"),
        *("/product/scheduler/logs/stream", "/ready", "/health/memory"),
        *("/product/scheduler/queue", "/product/scheduler/latency", "/product/scheduler/dead"),
        *("/product/scheduler/dead/retry", "/product/scheduler/dead/purge"),
        *("/product/me", "/product/cubes", "/product/load", "/product/working_memory"),
        "/product/working_memory/history",
        "/product/activation/{mem_cube_id}",
    } == set(paths)
    assert all(operation["description"] for path in paths.values() for operation in path.values())
