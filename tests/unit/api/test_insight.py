"""Who asks, the cubes, the load, and working memory with its history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from memos.api.access import Role
from memos.api.app import create_app
from memos.api.keys import KeyFile
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.item import ItemStatus, WorkingEntry
from memos.memory.store import ReplaceWorking, SetStatus
from memos.runtime import Runtime
from memos.testing import run_until_idle

AT = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def add(client: TestClient, text: str, user: str = "u") -> str:
    said = [{"role": "user", "content": text}]
    return str(
        client.post("/product/add", json={"user_id": user, "messages": said}).json()["data"][0]["memory_id"]
    )


def working(client: TestClient, **query: Any) -> dict[str, Any]:
    answer = client.get("/product/working_memory/history", params={"mem_cube_id": "u", **query})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def place(runtime: Runtime, *ids: str, reason: str) -> None:
    entries = tuple(WorkingEntry(one, 0.5, f"recalled for {reason}", AT) for one in ids)
    runtime.store.apply([ReplaceWorking("u", entries, None, reason=reason)])


def test_places_and_turns_tell_what_came_and_what_left(client: TestClient, runtime: Runtime) -> None:
    """Each replacement names what it brought, with its reason, and what it took; the newest stands first."""
    boat, dog, city = (
        add(client, text) for text in ("My boat is Petrel.", "My dog is Max.", "I live in Oslo.")
    )
    place(runtime, boat, dog, reason="first")
    place(runtime, city, dog, reason="second")
    data = working(client)["data"]
    assert [(one["memory"], one["reason"]) for one in data["places"]] == [
        ("I live in Oslo.", "recalled for second"),
        ("My dog is Max.", "recalled for second"),
    ]
    second, first = data["history"]
    assert [one["memory"] for one in first["came"]] == ["My boat is Petrel.", "My dog is Max."]
    assert first["left"] == [] and (first["version"], second["version"]) == (1, 2)
    assert second["came"] == [
        {"memory_id": city, "memory": "I live in Oslo.", "reason": "recalled for second"}
    ]
    assert [(one["memory_id"], one["reason"]) for one in second["left"]] == [(boat, "second")]
    assert second["kept"] == 1 and data["capacity"] == runtime.store.capacities.working


def test_a_deleted_memory_leaves_without_its_text(client: TestClient, runtime: Runtime) -> None:
    """Deletion is a turn of its own in the history, and the text is shown nowhere any more."""
    boat = add(client, "My boat is Petrel.")
    place(runtime, boat, reason="first")
    runtime.store.apply([SetStatus((boat,), ItemStatus.DELETED, "asked")])
    answer = working(client)
    gone, first = answer["data"]["history"]
    assert [(one["memory"], one["reason"]) for one in gone["left"]] == [(None, "item left: delete")]
    assert first["came"][0]["memory"] is None and "Petrel" not in str(answer)


def test_why_a_memory_left_is_told_by_the_update_itself(client: TestClient, runtime: Runtime) -> None:
    """After real turns the history carries the trace, the task's label and the reason of each departure."""
    for text in ("My boat is called Petrel.", "My dog is called Max.", "Oslo is where I live."):
        add(client, text)
    runtime.scheduler.start()
    for number, query in enumerate(("What is my boat called?", "What is my dog called?", "Where do I live?")):
        ask = ScheduleMessageItem(
            user_id="u", mem_cube_id="u", label="mem_update", content=query, trace_id=f"t{number}"
        )
        runtime.scheduler.submit_messages([ask])
        run_until_idle(runtime.scheduler)
    history = working(client)["data"]["history"]
    assert [row["trace_id"] for row in history] == ["t2", "t1", "t0"]
    assert {row["label"] for row in history} == {"mem_update"}
    left = [one for row in history for one in row["left"]]
    assert left and {one["reason"].split(":")[0] for one in left} <= {
        "does not bear on the query",
        "outranked",
    }


def test_history_comes_in_pages_and_nothing_new_is_cheap(client: TestClient, runtime: Runtime) -> None:
    """Pages follow without a gap; with the known number nothing is read until something happens."""
    boat, dog = add(client, "My boat is Petrel."), add(client, "My dog is Max.")
    for number in range(5):
        place(runtime, (boat, dog)[number % 2], reason=str(number))
    first = working(client, limit=2)
    assert [row["reason"] for row in first["data"]["history"]] == ["4", "3"]
    rest = working(client, limit=10, before=first["next_before"])
    assert [row["reason"] for row in rest["data"]["history"]] == ["2", "1", "0"] and rest[
        "next_before"
    ] is None
    seq = first["data"]["seq"]
    known = working(client, known_seq=seq)["data"]
    assert known["unchanged"] and known["places"] == []
    place(runtime, dog, boat, reason="5")
    assert working(client, known_seq=seq)["data"]["history"][0]["reason"] == "5"


def test_an_unknown_cube_is_an_empty_one(client: TestClient) -> None:
    """Nothing stands in the working memory of a cube that is not there."""
    answer = client.get("/product/working_memory/history?mem_cube_id=nowhere").json()
    assert answer["data"]["places"] == answer["data"]["history"] == [] and answer["next_before"] is None


def test_me_and_cubes_follow_the_key(client: TestClient, runtime: Runtime) -> None:
    """Without keys everybody is an admin; a key says its role and scope, and lists its own cubes."""
    for user in ("a", "u", "z"):
        add(client, "A fact.", user)
    assert client.get("/product/me").json()["data"] == {
        "role": "admin",
        "name": "",
        "users": None,
        "cubes": None,
        "may_write": True,
    }
    page = client.get("/product/cubes?limit=2").json()
    assert [row["cube_id"] for row in page["data"]] == ["a", "u"] and page["total"] == 3
    rest = client.get("/product/cubes?limit=2&after=u").json()
    assert [row["cube_id"] for row in rest["data"]] == ["z"] and rest["data"][0]["sizes"]["long_term"] == 1
    made, text = KeyFile(runtime.settings.keys_path).create(
        "k", role=Role.READ_ONLY, users=("u",), cubes=("team",)
    )
    headers = {"authorization": f"Bearer {text}"}
    me = client.get("/product/me", headers=headers).json()["data"]
    assert me == {
        "role": "read-only",
        "name": made.id,
        "users": ["u"],
        "cubes": ["team", "u"],
        "may_write": False,
    }
    own = client.get("/product/cubes", headers=headers).json()
    assert [row["cube_id"] for row in own["data"]] == ["u"] and own["total"] == 1


def test_the_load_counts_without_names(client: TestClient, runtime: Runtime) -> None:
    """Workers, queue and caches are counted; no user and no cube is named."""
    add(client, "A fact.", "somebody")
    load = client.get("/product/load").json()["data"]
    assert load["workers"] == {
        "running": False,
        "threads": runtime.scheduler.config.workers,
        "calls": 0,
        "instances": 0,
    }
    assert load["queue_held"] == runtime.queue.depth().remaining == 1
    assert load["store_bytes"] > 0 and "somebody" not in str(load)
