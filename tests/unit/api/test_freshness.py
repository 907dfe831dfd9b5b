"""How fresh a search is: the sequence number it was read at, waiting for one, and what is still queued."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from memos.api.app import create_app
from memos.runtime import Runtime
from memos.testing import run_until_idle


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def search(client: TestClient, **fields: object) -> dict[str, object]:
    answer = client.post("/product/search", json={"user_id": "u", "query": "boat", **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_search_is_as_fresh_as_the_add_before_it(client: TestClient, runtime: Runtime) -> None:
    """`add` tells the cube's number, a search for at least that one is fresh at once and says what is queued."""
    seq = client.post("/product/add", json={"user_id": "u", "messages": "My boat is called Petrel."}).json()[
        "seqs"
    ]["u"]
    state = search(client, min_seq=seq)["freshness"]["u"]  # type: ignore[index]
    assert (state["seq"], state["fresh"], state["unread"]) == (seq, True, 1)
    assert state["queued"] == {"mem_read": 1}
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    state = search(client, min_seq=seq)["freshness"]["u"]  # type: ignore[index]
    assert (state["unread"], state["queued"]) == (0, {}) and state["seq"] > seq


def test_a_number_that_is_not_reached_is_said(client: TestClient) -> None:
    """When the wait is over the answer comes all the same and says that it is not fresh."""
    state = search(client, min_seq={"u": 7}, wait_ms=30)["freshness"]["u"]  # type: ignore[index]
    assert (state["seq"], state["fresh"]) == (0, False) and state["waited_ms"] >= 30


def test_a_search_waits_for_a_write_that_comes_later(client: TestClient) -> None:
    """A search that waits sees what somebody else stores meanwhile."""
    writer = threading.Timer(
        0.05, lambda: client.post("/product/add", json={"user_id": "u", "messages": "My boat is Petrel."})
    )
    writer.start()
    body = search(client, min_seq=1, wait_ms=20_000)
    writer.join()
    assert body["freshness"]["u"]["fresh"] and "Petrel" in str(body["data"])  # type: ignore[index]


def test_min_seq_names_only_cubes_that_are_read(client: TestClient) -> None:
    """A number for a cube that the search does not read is refused."""
    answer = client.post("/product/search", json={"user_id": "u", "query": "q", "min_seq": {"other": 1}})
    assert answer.status_code == 400 and "other" in answer.json()["message"]
