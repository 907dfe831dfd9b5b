"""GET /product/working_memory: the places of a cube and what they were good for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from memos.api.app import create_app
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import Runtime
from memos.testing import run_until_idle


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def submit(runtime: Runtime, label: str, content: str, **fields: object) -> None:
    told = ScheduleMessageItem(user_id="u", mem_cube_id="u", label=label, content=content, **fields)  # type: ignore[arg-type]
    runtime.scheduler.submit_messages([told])
    run_until_idle(runtime.scheduler)


def test_places_and_figures_follow_what_happens(client: TestClient, runtime: Runtime) -> None:
    """A place with its reason after a query; an access by an answer after the next one."""
    runtime.scheduler.start()
    said = client.post("/product/add", json={"user_id": "u", "messages": "My boat is called Petrel."}).json()
    memory_id = said["data"][0]["memory_id"]
    submit(runtime, "mem_update", "what is the boat called")
    data = client.get("/product/working_memory", params={"mem_cube_id": "u"}).json()["data"]
    assert data["places"][0]["memory_id"] == memory_id and data["places"][0]["reason"]
    assert (data["capacity"], data["replaced"], data["basis"]) == (20, 1, "recalls")
    submit(runtime, "answer", "Petrel", info={"memory_ids": [memory_id]})
    submit(runtime, "mem_update", "which port does the ferry leave from")
    data = client.get("/product/working_memory", params={"mem_cube_id": "u"}).json()["data"]
    assert data["curve"][-1]["capacity"] == 100 and data["changes"]["recalled"] >= 1
    assert "places would have held" in data["sentence"]


def test_an_unknown_cube_is_not_found(client: TestClient) -> None:
    """A cube that never was has no working memory to show."""
    assert client.get("/product/working_memory", params={"mem_cube_id": "nobody"}).status_code == 404
