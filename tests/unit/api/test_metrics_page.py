"""/metrics: what happened and what is there, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from memos import metrics
from memos.api.app import create_app
from memos.errors import Discard, RetryLater, StoreUnavailable
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import Runtime
from memos.testing import run_until_idle

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def samples(client: TestClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_every_metric_of_the_table_is_on_the_page(client: TestClient) -> None:
    """Names and kinds are on the page before anything was counted."""
    text = client.get("/metrics").text
    assert [name for name in metrics.table() if f"# TYPE {name} " not in text] == []


def test_what_happens_is_counted(client: TestClient, runtime: Runtime) -> None:
    """One add, one search and their tasks change exactly the counts they should."""
    before = samples(client)
    client.post("/product/add", json={"user_id": "u", "messages": [{"role": "user", "content": "I sail."}]})
    client.post("/product/search", json={"user_id": "u", "query": "sail"})
    waiting = samples(client)
    assert sum(value for (name, labels), value in waiting.items() if name == "memos_queue_messages") == 1, (
        waiting
    )
    assert waiting[key("memos_queue_lag_seconds", label="mem_read")] >= 0
    assert waiting[key("memos_queue_instances")] == 0
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    runtime.scheduler.stop()  # what the queue settled is counted right after
    after = samples(client)

    def grown(name: str, **labels: str) -> float:
        return after.get(key(name, **labels), 0) - before.get(key(name, **labels), 0)

    assert grown("memos_tasks_submitted_total", label="mem_read") == 1
    assert grown("memos_tasks_settled_total", label="mem_read", state="completed") == 1
    assert grown("memos_task_waiting_seconds_count", label="mem_read") == 1
    assert grown("memos_task_running_seconds_count", label="mem_read", outcome="ok") == 1
    assert grown("memos_http_requests_total", method="POST", route="/product/add", status="200") == 1
    assert grown("memos_recall_seconds_count", stage="total") >= 1
    assert after.get(key("memos_queue_messages", label="mem_read", state="queued"), 0) == 0
    assert key("memos_queue_lag_seconds", label="mem_read") not in after
    assert after[key("memos_queue_instances")] == 1


def test_sizes_stand_against_capacities(client: TestClient, runtime: Runtime) -> None:
    """Live memories, what a cube may hold, and how full the fullest one is."""
    for user in ("u", "v"):
        client.post("/product/add", json={"user_id": user, "messages": "I sail a boat called Petrel."})
    found = samples(client)
    capacity = runtime.store.capacities.long_term
    assert found[key("memos_cubes")] == 2
    assert found[key("memos_memories", area="long_term")] == 2
    assert found[key("memos_memory_capacity", area="long_term")] == capacity
    assert found[key("memos_memory_fill_ratio_max", area="long_term")] == pytest.approx(1 / capacity)
    assert found[key("memos_store_bytes")] > 0


def test_retries_and_dead_letters_are_counted(client: TestClient, runtime: Runtime) -> None:
    """A run to be repeated is a retry, a message given up is dead, both under the message's label."""
    calls: list[int] = []

    def stumbles(messages: list[ScheduleMessageItem]) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RetryLater(0.0)
        raise Discard("never works")

    def value(name: str) -> float:
        counter = metrics.table()[name]
        assert isinstance(counter, metrics.Counter)
        return counter.value(label="stumbling")

    before = (value("memos_task_retries_total"), value("memos_tasks_dead_total"))
    runtime.scheduler.register_handlers({"stumbling": stumbles})
    runtime.scheduler.submit_messages(
        ScheduleMessageItem(user_id="u", mem_cube_id="u", label="stumbling", content="c")
    )
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    runtime.scheduler.stop()  # what the queue settled is counted right after
    assert value("memos_task_retries_total") - before[0] == 1
    assert value("memos_tasks_dead_total") - before[1] == 1
    assert samples(client)[key("memos_dead_letters")] == 1


def test_a_locked_store_takes_its_own_levels_only(
    client: TestClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store cannot be read, the page still answers with everything else."""

    def locked(self: object, *_: object) -> list[str]:
        raise StoreUnavailable("locked")

    monkeypatch.setattr(type(runtime.store), "cubes", locked)
    found = samples(client)
    assert key("memos_cubes") not in found
    assert found[key("memos_queue_capacity_messages")] == runtime.queue.messages_max


def test_unknown_methods_and_paths_make_no_series_of_their_own(client: TestClient) -> None:
    """Whatever a client invents is counted under one name."""
    client.request("BREW", "/nowhere/at-all")
    found = samples(client)
    assert found[key("memos_http_requests_total", method="(other)", route="(none)", status="404")] >= 1
    assert not any("at-all" in value for _, labels in found for _, value in labels)
