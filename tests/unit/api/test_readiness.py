"""/ready and /health/memory tell the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from memos.api.access import Role
from memos.api.app import create_app
from memos.api.keys import KeyFile
from memos.errors import QueueUnavailable, StoreUnavailable
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import Runtime, build
from memos.settings import Settings

from .conftest import settings_in


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def test_a_server_without_a_worker_is_ready_and_says_so(client: TestClient, runtime: Runtime) -> None:
    """It stores and searches: it stays with the balancer while nobody serves the queue, and the answer, a metric
    and the lag tell who looks."""
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert "no worker serves the queue" in answer.json()["checks"]["scheduler"]
    assert "\nmemos_queue_instances 0.0\n" in client.get("/metrics").text
    assert client.get("/health").status_code == 200
    added = {"user_id": "u", "messages": [{"role": "user", "content": "My boat is called Petrel."}]}
    assert client.post("/product/add", json=added).status_code == 200
    found = client.post("/product/search", json={"user_id": "u", "query": "boat"}).json()["data"]["text_mem"]
    assert [one["memory"] for part in found for one in part["memories"]] == ["My boat is called Petrel."]
    runtime.scheduler.start()
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert {name: answer.json()["checks"][name] for name in ("store", "queue", "scheduler")} == {
        "store": "ok",
        "queue": "ok",
        "scheduler": "ok",
    }


@pytest.mark.parametrize("part", ["store", "queue"])
def test_a_part_that_fails_is_named(
    client: TestClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A store that cannot be written and a queue that does not answer make the server not ready."""
    runtime.scheduler.start()

    def fails(*_: object, **__: object) -> object:
        raise StoreUnavailable("locked") if part == "store" else QueueUnavailable("gone")

    owner, name = (runtime.store, "tick") if part == "store" else (runtime.queue, "depth")
    monkeypatch.setattr(type(owner), name, fails)
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert [key for key, said in answer.json()["checks"].items() if "Unavailable" in said] == [part]


def test_a_full_queue_is_not_ready(tmp_path: Path) -> None:
    """While new work would be refused, new requests belong elsewhere."""
    plain = settings_in(tmp_path / "full")
    settings = Settings(
        home=plain.home, models=plain.models, queue={"messages_max": 2, "lane_messages_max": 2}
    )
    with build(settings, start=True) as built:
        built.queue.submit(
            [ScheduleMessageItem(user_id="u", mem_cube_id="u", label="nobody", content="x") for _ in range(2)]
        )
        answer = TestClient(create_app(built)).get("/ready")
        assert answer.status_code == 503 and "full" in answer.json()["checks"]["queue"]


def test_memory_health_counts_what_is_there(client: TestClient, runtime: Runtime) -> None:
    """Duplicates, quarantine, unread turns and fill of one cube, or of all for admins."""
    for text in ("My boat is called Petrel.", "My boat is called Petrel.", "I live in Lisbon."):
        client.post("/product/add", json={"user_id": "u", "messages": [{"role": "user", "content": text}]})
    held = "my api key is sk-abcdefghijklmnopqrstuvwxyz123456"
    client.post("/product/add", json={"user_id": "v", "messages": [{"role": "user", "content": held}]})
    told = client.get("/health/memory?mem_cube_id=u").json()["data"]
    assert (told["live"], told["quarantined"], told["unread"]) == (3, 0, 3)
    assert told["findings"]["duplicates"]["count"] == 1
    assert told["fill"]["long_term"] == pytest.approx(3 / runtime.store.capacities.long_term)
    everything = client.get("/health/memory").json()["data"]
    assert (everything["live"], everything["quarantined"]) == (3, 1)
    assert client.get("/health/memory?mem_cube_id=nowhere").status_code == 404
    _, text = KeyFile(runtime.settings.keys_path).create("k", role=Role.USER, users=("u",), cubes=())
    headers = {"authorization": f"Bearer {text}"}
    assert client.get("/health/memory?mem_cube_id=u", headers=headers).status_code == 200
    for query in ("", "?mem_cube_id=v"):
        assert client.get(f"/health/memory{query}", headers=headers).status_code == 403
