"""No key reaches beyond its users and cubes, by no route, under load too; a reading key changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from memos.api.access import Role
from memos.api.app import create_app
from memos.api.errors import EnvelopeRoute
from memos.api.keys import KeyFile
from memos.api.routers.product import product_router
from memos.memory.store import ItemFilter
from memos.runtime import Runtime

from .letters import give_up

SECRET = "canary-7391"


@pytest.fixture
def app(runtime: Runtime) -> FastAPI:
    return create_app(runtime)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as opened:
        yield opened


@pytest.fixture
def key_of(runtime: Runtime) -> Callable[..., dict[str, str]]:
    keys = KeyFile(runtime.settings.keys_path)

    def make(
        role: Role = Role.USER, users: tuple[str, ...] | None = ("eve",), cubes: tuple[str, ...] | None = ()
    ) -> dict[str, str]:
        return {"authorization": "Bearer " + keys.create("k", role=role, users=users, cubes=cubes)[1]}

    return make


def foreign_requests(item_id: str, letter: str = "no-such-letter") -> dict[str, tuple[str, str, Any]]:
    """By route: a request of eve's for alice's data."""
    said = [{"role": "user", "content": "x"}]
    chat = {"user_id": "eve", "query": SECRET, "readable_cube_ids": ["alice"]}
    return {
        "/product/add": (
            "POST",
            "/product/add",
            {"user_id": "eve", "writable_cube_ids": ["alice"], "messages": said},
        ),
        "/product/search": (
            "POST",
            "/product/search",
            {"user_id": "eve", "readable_cube_ids": ["alice"], "query": SECRET},
        ),
        "/product/explain": (
            "POST",
            "/product/explain",
            {"user_id": "eve", "query": "code name", "memory_id": item_id},
        ),
        "/product/feedback": (
            "POST",
            "/product/feedback",
            {"user_id": "eve", "writable_cube_ids": ["alice"], "feedback_content": "wrong", "history": said},
        ),
        "/product/delete_memory": ("POST", "/product/delete_memory", {"memory_ids": [item_id]}),
        "/product/suggestions": ("POST", "/product/suggestions", {"user_id": "eve", "mem_cube_id": "alice"}),
        "/product/chat/complete": ("POST", "/product/chat/complete", chat),
        "/product/chat/stream": ("POST", "/product/chat/stream", chat),
        "/product/chat/stream/playground": ("POST", "/product/chat/stream/playground", chat),
        "/product/chat/stream/business_user": ("POST", "/product/chat/stream/business_user", chat),
        "/product/get_memory": ("POST", "/product/get_memory", {"mem_cube_id": "alice"}),
        "/product/get_memory/{memory_id}": ("GET", f"/product/get_memory/{item_id}", None),
        "/product/get_memory_by_ids": ("POST", "/product/get_memory_by_ids", [item_id]),
        "/product/get_memory_dashboard": ("POST", "/product/get_memory_dashboard", {"user_id": "alice"}),
        "/product/get_all": ("POST", "/product/get_all", {"user_id": "eve", "mem_cube_ids": ["alice"]}),
        "/product/get_user_names_by_memory_ids": (
            "POST",
            "/product/get_user_names_by_memory_ids",
            {"memory_ids": [item_id]},
        ),
        "/product/create_cube": ("POST", "/product/create_cube", {"cube_name": "alice", "owner_id": "eve"}),
        "/product/register_cube": ("POST", "/product/register_cube", {"mem_cube_name_or_path": "alice"}),
        "/product/exist_mem_cube_id": ("POST", "/product/exist_mem_cube_id", {"mem_cube_id": "alice"}),
        "/product/activation/{mem_cube_id}": ("GET", "/product/activation/alice", None),
        "/product/working_memory": ("GET", "/product/working_memory?mem_cube_id=alice", None),
        "/product/delete_memory_by_record_id": (
            "POST",
            "/product/delete_memory_by_record_id",
            {"mem_cube_id": "alice", "record_id": "r", "hard_delete": True},
        ),
        "/product/recover_memory_by_record_id": (
            "POST",
            "/product/recover_memory_by_record_id",
            {"mem_cube_id": "alice", "delete_record_id": "r"},
        ),
        "/product/scheduler/status": ("GET", "/product/scheduler/status?user_id=alice", None),
        "/product/scheduler/task_queue_status": (
            "GET",
            "/product/scheduler/task_queue_status?user_id=alice",
            None,
        ),
        "/product/scheduler/logs": ("GET", "/product/scheduler/logs?mem_cube_id=alice", None),
        "/product/scheduler/logs/stream": ("GET", "/product/scheduler/logs/stream?user_id=alice", None),
        "/product/scheduler/queue": ("GET", "/product/scheduler/queue?mem_cube_id=alice", None),
        "/product/scheduler/latency": ("GET", "/product/scheduler/latency?user_id=alice", None),
        "/product/scheduler/dead": ("GET", "/product/scheduler/dead?user_id=alice", None),
        "/product/scheduler/dead/retry": ("POST", "/product/scheduler/dead/retry", {"keys": [letter]}),
        "/product/scheduler/dead/purge": ("POST", "/product/scheduler/dead/purge", {"keys": [letter]}),
        "/product/working_memory/history": (
            "GET",
            "/product/working_memory/history?mem_cube_id=alice",
            None,
        ),
        "/product/cubes": ("GET", "/product/cubes", None),
        "/health/memory": ("GET", "/health/memory?mem_cube_id=alice", None),
        "/product/scheduler/wait": (
            "POST",
            "/product/scheduler/wait?user_name=alice&timeout_seconds=0",
            None,
        ),
        "/product/scheduler/wait/stream": (
            "GET",
            "/product/scheduler/wait/stream?user_name=alice&timeout_seconds=0",
            None,
        ),
    }


FREE_OF_USERS = {
    *("/health", "/ready", "/metrics", "/product/scheduler/allstatus"),
    *("/product/me", "/product/load"),
}
# They answer, and must not show or change anything of what is not in the key's scope.
ANSWERS_NOTHING = {
    "/product/get_memory/{memory_id}": lambda body: body["data"] is None,
    "/product/get_memory_by_ids": lambda body: body["data"] == {"memories": []},
    "/product/explain": lambda body: body["data"]["verdict"] == "never_written",
    "/product/get_user_names_by_memory_ids": lambda body: set(body["data"].values()) == {None},
    "/product/cubes": lambda body: body["data"] == [] and body["total"] == 0,
    "/product/scheduler/dead/retry": lambda body: body["data"]["handled"] == 0,
    "/product/scheduler/dead/purge": lambda body: body["data"]["handled"] == 0,
}


def test_no_route_shows_or_changes_what_is_not_in_the_scope(
    app: FastAPI, client: TestClient, runtime: Runtime, key_of: Callable[..., dict[str, str]]
) -> None:
    """Every route of the application, asked with another user's key, refuses or shows nothing."""
    messages = [{"role": "user", "content": f"My code name is {SECRET}."}]
    [row] = client.post("/product/add", json={"user_id": "alice", "messages": messages}).json()["data"]
    letter = give_up(runtime, user="alice", content=SECRET)
    before = (runtime.store.seq("alice"), len(runtime.queue.statuses()), len(runtime.queue.dead.list()))
    requests = foreign_requests(row["memory_id"], letter)
    described = set(app.openapi()["paths"])
    assert described - FREE_OF_USERS == set(requests), "a route without a request here"
    headers = key_of()
    for path, (method, url, body) in requests.items():
        answer = client.request(method, url, json=body, headers=headers)
        assert SECRET not in answer.text, path
        if path in ANSWERS_NOTHING:
            assert answer.status_code == 200 and ANSWERS_NOTHING[path](answer.json()), path
        else:
            unknown = path == "/product/delete_memory"  # as if there were no such memory
            assert answer.status_code == (404 if unknown else 403), (path, answer.text)
            assert answer.json()["data"] is None, path
    after = (runtime.store.seq("alice"), len(runtime.queue.statuses()), len(runtime.queue.dead.list()))
    assert after == before


def test_a_user_id_of_somebody_else_is_refused(
    client: TestClient, key_of: Callable[..., dict[str, str]]
) -> None:
    """Even over a cube of the scope nobody asks in another one's name."""
    headers = key_of(cubes=("team",))
    body = {"user_id": "alice", "writable_cube_ids": ["team"], "messages": "x"}
    assert client.post("/product/add", json=body, headers=headers).status_code == 403
    assert client.post("/product/add", json={**body, "user_id": "eve"}, headers=headers).status_code == 200


def test_a_reading_key_changes_nothing(
    client: TestClient, runtime: Runtime, key_of: Callable[..., dict[str, str]]
) -> None:
    """It searches and lists in its scope; add, chat, feedback, deletion and cubes are refused."""
    client.post("/product/add", json={"user_id": "eve", "messages": "My boat is called Petrel."})
    before = runtime.store.seq("eve")
    headers = key_of(role=Role.READ_ONLY)
    [item] = runtime.store.find(ItemFilter(cube_ids=("eve",))).items
    for path, (method, url, body) in foreign_requests(item.id).items():
        if path == "/product/scheduler/logs/stream":
            continue  # for ever
        own = url.replace("alice", "eve")
        text = (
            {
                key: ["eve"] if value == ["alice"] else "eve" if value == "alice" else value
                for key, value in body.items()
            }
            if isinstance(body, dict)
            else body
        )
        status = client.request(method, own, json=text, headers=headers).status_code
        writes = path in {
            *("/product/add", "/product/feedback", "/product/delete_memory", "/product/create_cube"),
            *("/product/register_cube", "/product/delete_memory_by_record_id"),
            *("/product/recover_memory_by_record_id", "/product/chat/complete", "/product/chat/stream"),
            *("/product/chat/stream/playground", "/product/chat/stream/business_user"),
            *("/product/scheduler/dead/retry", "/product/scheduler/dead/purge"),
        }
        assert status == (403 if writes else 200), path
    assert runtime.store.seq("eve") == before


def test_deletion_by_user_stays_in_the_scope(
    client: TestClient, runtime: Runtime, key_of: Callable[..., dict[str, str]]
) -> None:
    """Without cubes named, a key deletes its user's memories in the cubes of its scope and in no other."""
    for cube in ("eve", "team"):
        client.post(
            "/product/add", json={"user_id": "eve", "writable_cube_ids": [cube], "messages": "A fact."}
        )
    answer = client.post("/product/delete_memory", json={"user_id": "eve"}, headers=key_of())
    assert answer.json()["data"]["deleted"] == 1
    assert [runtime.store.sizes(cube).long_term for cube in ("eve", "team")] == [0, 1]


def reads_of(user: str) -> list[tuple[str, str, Any]]:
    """Requests that show what a user has, in every form that the server knows."""
    ask = {"user_id": user, "query": "what is my mark"}
    return [
        ("POST", "/product/explain", {**ask, "expected": "my mark is"}),
        ("POST", "/product/get_all", {"user_id": user, "search_query": "mark"}),
        ("POST", "/product/get_memory_dashboard", {"user_id": user}),
        ("POST", "/product/suggestions", {"user_id": user, "mem_cube_id": user, "language": "en"}),
        ("POST", "/product/chat/stream/playground", ask),
        ("GET", f"/product/working_memory?mem_cube_id={user}", None),
        ("GET", f"/product/scheduler/logs?user_id={user}&mem_cube_id={user}", None),
        ("GET", f"/product/scheduler/status?user_id={user}", None),
        ("GET", f"/product/scheduler/task_queue_status?user_id={user}", None),
    ]


def test_many_users_at_once_never_see_each_other(
    client: TestClient, runtime: Runtime, key_of: Callable[..., dict[str, str]]
) -> None:
    """Eight users add, search, list and chat interleaved, with the scheduler running: each finds only its own,
    and every add that was answered is found."""
    runtime.scheduler.start()
    users = [f"user-{number}" for number in range(8)]
    headers = {user: key_of(users=(user,)) for user in users}
    faults: list[str] = []

    def work(user: str) -> None:
        mine = f"mark-{user}-only"
        for turn in range(3):
            said = {
                "user_id": user,
                "messages": [{"role": "user", "content": f"Note {turn}: my mark is {mine}."}],
            }
            answers = [
                client.post("/product/add", json=said, headers=headers[user]),
                client.post(
                    "/product/search",
                    json={"user_id": user, "query": "what is my mark", "relativity": 0, "top_k": 50},
                    headers=headers[user],
                ),
                client.post("/product/get_memory", json={"mem_cube_id": user}, headers=headers[user]),
                client.post(
                    "/product/chat/complete",
                    json={"user_id": user, "query": "What is my mark?"},
                    headers=headers[user],
                ),
                *(
                    client.request(method, path, json=body, headers=headers[user])
                    for method, path, body in reads_of(user)
                ),
            ]
            for answer in answers:
                if answer.status_code != 200:
                    faults.append(f"{user}: {answer.status_code} {answer.text[:200]}")
                faults.extend(
                    f"{user} saw {other}"
                    for other in users
                    if other != user and f"mark-{other}-" in answer.text
                )
            if mine not in answers[1].text:
                faults.append(f"{user} does not find its own")

    threads = [threading.Thread(target=work, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    for user in users:
        kept = " ".join(
            item.memory for item in runtime.store.find(ItemFilter(cube_ids=(user,)), limit=500).items
        )
        assert all(f"Note {turn}:" in kept for turn in range(3))


def test_every_route_answers_errors_in_the_envelope() -> None:
    """No route of the product API was added beside the envelope."""
    router = product_router(lambda: None, instance_id="i")  # type: ignore[arg-type,return-value]

    def walk(routes: Sequence[object]) -> list[object]:
        inner = [one.original_router.routes for one in routes if hasattr(one, "original_router")]
        return [one for one in routes if isinstance(one, APIRoute)] + [
            one for part in inner for one in walk(part)
        ]

    routes = walk(router.routes)
    assert len(routes) >= 20 and all(isinstance(one, EnvelopeRoute) for one in routes)
