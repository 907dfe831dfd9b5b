"""The queue and its dead letters over HTTP: numbers, scopes, retry and purge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from memos.api.access import Role
from memos.api.app import create_app
from memos.api.handlers.queue import LANES_MAX, STEPS, latencies
from memos.api.keys import KeyFile
from memos.mem_scheduler.queues.base import TaskStatus
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.runtime import Runtime

from .letters import claimed, give_up, message, run_one


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def key(runtime: Runtime, *, role: Role = Role.USER, users: tuple[str, ...] = ("u",)) -> dict[str, str]:
    _, text = KeyFile(runtime.settings.keys_path).create("k", role=role, users=users, cubes=())
    return {"authorization": f"Bearer {text}"}


def seen(client: TestClient, path: str, headers: dict[str, str] | None = None) -> Any:
    answer = client.get(f"/product/scheduler/{path}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_the_numbers_are_those_of_the_queue(client: TestClient, runtime: Runtime) -> None:
    """Queued, running, delayed and dead messages are counted by label, by lane and in all."""
    runtime.queue.submit([message("walk"), message("walk"), message("walk", user="v")])
    runtime.queue.submit([message("feed")], delay_s=3_600)
    give_up(runtime, user="v")
    claimed(runtime, "walk")
    picture = seen(client, "queue")
    depth = runtime.queue.depth()
    totals = picture["totals"]
    assert (totals["remaining"], totals["running"], totals["dead"]) == (
        depth.remaining,
        depth.running,
        depth.dead,
    )
    assert (totals["queued"], totals["delayed"], totals["parked"]) == (2, 1, 0)
    labels = {row["label"]: row for row in picture["labels"]}
    assert [labels["walk"][name] for name in ("queued", "running", "delayed", "dead")] == [2, 1, 0, 0]
    assert [labels["feed"][name] for name in ("queued", "running", "delayed", "dead")] == [0, 0, 1, 0]
    assert labels["bad"]["dead"] == 1
    lanes = {(row["user_id"], row["label"]): row for row in picture["lanes"]}
    assert lanes["v", "walk"]["queued"] + lanes["v", "walk"]["running"] == 1
    assert lanes["v", "bad"]["dead"] == 1 and lanes["v", "bad"]["queued"] == 0
    [lease] = picture["leases"]
    assert lease["labels"] == {"walk": 1} and picture["capacity"] == runtime.queue.messages_max


def test_a_key_sees_its_own_lanes(client: TestClient, runtime: Runtime) -> None:
    """Lanes, letters, sums and times of other users are left out, and processes are for admins."""
    runtime.queue.submit([message("walk"), message("walk", user="v")])
    run_one(runtime, "old", user="v")
    give_up(runtime, user="v")
    everything = seen(client, "queue")
    assert everything["instances"] and everything["totals"]["dead"] == 1
    headers = key(runtime)
    own = seen(client, "queue", headers)
    assert {row["user_id"] for row in own["lanes"]} == {"u"}
    assert own["totals"] == {"remaining": 1, "queued": 0, "delayed": 0, "parked": 1, "running": 0, "dead": 0}
    assert own["instances"] == [] and [row["label"] for row in own["labels"]] == ["walk"]
    assert seen(client, "latency", headers)["labels"] == []
    assert seen(client, "dead", headers) == []
    assert client.get("/product/scheduler/queue?user_id=v", headers=headers).status_code == 403


def test_a_picture_is_bounded(client: TestClient, runtime: Runtime) -> None:
    """Of very many lanes some are shown and the others counted; the sums are of all."""
    runtime.queue.submit([message("walk", user=f"u{number}") for number in range(LANES_MAX + 7)])
    picture = seen(client, "queue")
    assert len(picture["lanes"]) == LANES_MAX and picture["lanes_left_out"] == 7
    assert picture["labels"][0]["queued"] + picture["labels"][0]["parked"] == LANES_MAX + 7


def test_latencies_come_step_by_step(client: TestClient, runtime: Runtime) -> None:
    """What just finished stands in the last step of its label, and a failed one is counted."""
    run_one(runtime, "walk")
    run_one(runtime, "walk")
    give_up(runtime)
    answer = seen(client, "latency?minutes=5")
    rows = {row["label"]: row for row in answer["labels"]}
    assert answer["complete"] and answer["step_s"] == pytest.approx(5.0)
    assert rows["walk"]["counts"] == [0] * (STEPS - 1) + [2]
    assert rows["walk"]["finished"] == 2 and rows["walk"]["failed"] == 0 and rows["bad"]["failed"] == 1
    for time in ("waiting", "running"):
        assert rows["walk"][time]["p50"][:-1] == [None] * (STEPS - 1)
        assert 0 <= rows["walk"][time]["p50"][-1] <= rows["walk"][time]["p95"][-1]
    assert client.get("/product/scheduler/latency?minutes=0").status_code == 422


def test_percentiles_are_those_of_the_tasks() -> None:
    """p50 and p95 of waiting and running are taken over the tasks of each step."""

    def task(number: int, finished: float) -> TaskStatus:
        ran = number / 10
        return TaskStatus(
            f"k{number}",
            "i",
            "",
            "u",
            "u",
            "walk",
            TaskState.COMPLETED,
            finished - ran - number,
            finished - ran,
            finished,
        )

    early, late = [task(n, 100.0) for n in range(10)], [task(n, 5_900.0) for n in range(20)]
    [row] = latencies([*early, *late], since=0.0, until=6_000.0)
    assert (row["counts"][1], row["counts"][59]) == (10, 20)
    assert (row["waiting"]["p50"][1], row["waiting"]["p95"][1]) == (5.0, 9.0)
    assert (row["running"]["p50"][59], row["running"]["p95"][59]) == (1.0, 1.9)
    assert row["waiting"]["all_p95"] == 18.0 and row["finished"] == 30


def test_a_letter_says_what_it_was(client: TestClient, runtime: Runtime) -> None:
    """Content, error, budgets and times are shown; a long content is cut and its length told."""
    short = give_up(runtime, content="invoice 7", cube="bills")
    give_up(runtime, content="long " * 2_000, user="v", label="other")
    other, one = seen(client, "dead")
    assert (one["key"], one["content"], one["error"]) == (short, "invoice 7", "ValueError: no total")
    assert (one["user_id"], one["mem_cube_id"], one["label"]) == ("u", "bills", "bad")
    assert one["submitted_at"] <= one["died_at"]
    assert other["content_chars"] == 10_000 and len(other["content"]) == 4_000
    assert [row["key"] for row in seen(client, "dead?mem_cube_id=bills")] == [short]
    assert [row["label"] for row in seen(client, "dead?label=other")] == ["other"]
    assert client.get("/product/scheduler/dead?limit=1").json()["total"] == 2


def test_retry_queues_again_and_purge_drops(client: TestClient, runtime: Runtime) -> None:
    """A retried letter waits again with fresh budgets; a purged one is nowhere; unknown keys are named."""
    again, gone = give_up(runtime), give_up(runtime)
    body = {"keys": [again, "no-such-letter"]}
    answer = client.post("/product/scheduler/dead/retry", json=body).json()
    assert answer["data"] == {"handled": 1, "unknown": ["no-such-letter"]}
    [delivery] = runtime.queue.get([again])
    assert delivery.attempts == 0 and runtime.queue.depth().queued == 1
    answer = client.post("/product/scheduler/dead/purge", json={"keys": [gone]}).json()
    assert answer["data"]["handled"] == 1
    assert runtime.queue.dead.list() == [] and runtime.queue.live([gone]) == set()
    assert client.post("/product/scheduler/dead/purge", json={"keys": []}).status_code == 422


def test_a_user_handles_its_own_letters(client: TestClient, runtime: Runtime) -> None:
    """Within the scope a writing key retries; another's letter stays where it is."""
    mine, theirs = give_up(runtime), give_up(runtime, user="v")
    headers = key(runtime)
    body = {"keys": [mine, theirs]}
    answer = client.post("/product/scheduler/dead/retry", json=body, headers=headers).json()
    assert answer["data"] == {"handled": 1, "unknown": [theirs]}
    assert [letter.key for letter in runtime.queue.dead.list()] == [theirs]


def test_more_tasks_than_are_looked_at_are_said(
    client: TestClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the look does not reach is not passed over in silence; a key's users are read one by one."""
    monkeypatch.setattr("memos.api.handlers.queue.TASKS_LOOKED_AT", 4)
    for _ in range(3):
        run_one(runtime, "walk")
        run_one(runtime, "walk", user="v")
    answer = seen(client, "latency")
    assert answer["tasks"] == 4 and not answer["complete"]
    own = seen(client, "latency", key(runtime))
    assert own["complete"] and own["labels"][0]["finished"] == 3
