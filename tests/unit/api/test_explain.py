"""Why and why not: one test a gate, and the answer always agrees with the search itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from memos.api.app import create_app
from memos.cli.main import app as command_line
from memos.errors import Discard
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.item import ItemStatus
from memos.memory.store import ItemFilter, SetStatus
from memos.runtime import Runtime
from memos.testing import run_until_idle


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def add(client: TestClient, text: str, **fields: object) -> str:
    body = {"user_id": "u", "messages": [{"role": "user", "content": text}], **fields}
    return str(client.post("/product/add", json=body).json()["data"][0]["memory_id"])


def why(client: TestClient, query: str = "What is my boat called?", **fields: object) -> dict[str, Any]:
    answer = client.post("/product/explain", json={"user_id": "u", "query": query, **fields})
    assert answer.status_code == 200, answer.text
    told = dict(answer.json()["data"])
    assert [gate["passed"] for gate in told["gates"][:-1]] == [True] * (len(told["gates"]) - 1)
    return told


def test_a_found_memory_passes_every_gate(client: TestClient) -> None:
    """The place is that of the search, with the rank in each channel; text and id name the same memory."""
    item_id = add(client, "My boat is called Petrel.")
    add(client, "I had soup for lunch.")
    told = why(client, memory_id=item_id)
    assert (told["verdict"], told["place"]) == ("found", 1)
    assert told["channels"]["lexical"]["rank"] == 1 and told["relativity"] > 0.45
    for text in ("my boat is called petrel.", "The boat is called Petrel"):
        assert why(client, expected=text)["memory"]["id"] == item_id


def test_what_was_never_written(client: TestClient) -> None:
    """An unknown id and a text that nobody said were never written."""
    assert why(client, memory_id="nowhere")["verdict"] == "never_written"
    assert why(client, expected="The moon is made of cheese.")["verdict"] == "never_written"


def test_what_is_still_queued_and_what_failed(client: TestClient, runtime: Runtime) -> None:
    """A text in a waiting task is queued, with its place in the lane; in a dead letter it failed, and why."""
    text = "The harbour master is Ines Duarte."
    for content in ("first", text):
        runtime.scheduler.submit_messages(
            ScheduleMessageItem(user_id="u", mem_cube_id="u", label="mine", content=content)
        )
    told = why(client, expected=text)
    assert (told["verdict"], told["tasks"][0]["ahead"]) == ("queued", 1)

    def refuse(messages: list[ScheduleMessageItem]) -> None:
        raise Discard("cannot be read")

    runtime.scheduler.register_handlers({"mine": refuse})
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    told = why(client, expected=text)
    assert told["verdict"] == "failed" and "cannot be read" in told["explanation"]


def test_a_turn_that_is_not_read_yet_says_so(client: TestClient) -> None:
    """The turn is found at once, its reading is named as a task that waits."""
    told = why(client, memory_id=add(client, "My boat is called Petrel."))
    assert told["verdict"] == "found" and "no facts were read" in told["explanation"]
    assert [(task["label"], task["ahead"]) for task in told["tasks"]] == [("mem_read", 0)]


def test_a_deleted_memory(client: TestClient) -> None:
    """Deleted is not never written."""
    item_id = add(client, "My boat is called Petrel.")
    client.post("/product/delete_memory", json={"memory_ids": [item_id]})
    assert why(client, memory_id=item_id)["verdict"] == "deleted"


def test_a_memory_of_another_cube(client: TestClient) -> None:
    """The cube it is in is named, also when only its text is known."""
    item_id = add(client, "My boat is called Petrel.", writable_cube_ids=["team"])
    for asked in ({"memory_id": item_id}, {"expected": "My boat is called Petrel."}):
        told = why(client, **asked)
        assert told["verdict"] == "other_cube" and "'team'" in told["explanation"]


def test_quarantined_archived_and_superseded(client: TestClient, runtime: Runtime) -> None:
    """Each says the reason that the journal keeps."""
    held = "my api key is sk-abcdefghijklmnopqrstuvwxyz123456"
    client.post("/product/add", json={"user_id": "u", "messages": [{"role": "user", "content": held}]})
    told = why(client, expected=held)
    assert told["verdict"] == "quarantined" and "secret" in told["explanation"]
    item_id = add(client, "My boat is called Petrel.")
    runtime.store.apply([SetStatus((item_id,), ItemStatus.ARCHIVED, "put away by hand")])
    for asked in ({"memory_id": item_id}, {"expected": "My boat is called Petrel."}):
        told = why(client, **asked)
        assert told["verdict"] == "archived" and "put away by hand" in told["explanation"]
    runtime.scheduler.start()
    for text in ("I live in Lisbon.", "I live in Porto now."):
        add(client, text)
        run_until_idle(runtime.scheduler)
    wanted = ItemFilter(cube_ids=("u",), statuses=(ItemStatus.ARCHIVED,), raw=False)
    [old] = [item for item in runtime.store.find(wanted).items if "Lisbon" in item.memory]
    assert why(client, "Where do I live?", memory_id=old.id)["verdict"] == "superseded"


def test_filtered_unmatched_and_too_far(client: TestClient) -> None:
    """A filter, a query without any word of it, and one that it fits too little."""
    item_id = add(client, "My boat is called Petrel.", session_id="s")
    assert why(client, memory_id=item_id, filter={"session_id": "other"})["verdict"] == "filtered"
    assert why(client, "quantum chromodynamics", memory_id=item_id)["verdict"] == "not_matched"
    far = why(client, "boat engine repair manual for old diesel machines", memory_id=item_id, relativity=0.9)
    assert far["verdict"] == "below_relativity" and "0.90" in far["explanation"]


def test_repeated_and_over_budget(client: TestClient) -> None:
    """What a better hit says already is named with it; what comes after top_k with its place."""
    ids = [add(client, text) for text in ("My boat is called Petrel.", "my boat is called Petrel!")]
    verdicts = {why(client, memory_id=one)["verdict"] for one in ids}
    assert verdicts == {"found", "repeated"}
    for name in ("Kestrel", "Heron", "Tern"):
        add(client, f"My other boat is called {name}.")
    told = [why(client, memory_id=one, top_k=1) for one in ids]
    other = why(client, expected="My other boat is called Heron.", top_k=1, relativity=0)
    assert other["verdict"] == "over_budget" and other["place"] > 1
    assert sum(one["verdict"] == "found" for one in told) <= 1


def test_a_merged_memory_stands_for_its_alias(client: TestClient, runtime: Runtime) -> None:
    """An id that became part of another memory is explained as that one, and says so."""
    from memos.memory.store import AddAlias

    kept, gone = add(client, "My boat is called Petrel."), add(client, "The boat: Petrel.")
    runtime.store.apply([SetStatus((gone,), ItemStatus.ARCHIVED, "merged"), AddAlias(gone, kept, "merged")])
    told = why(client, memory_id=gone)
    shown = told["memory"]["id"]
    assert shown == kept and any(gate["gate"] == "merged" for gate in told["gates"])


def test_an_expectation_is_given_in_one_way(client: TestClient) -> None:
    """Neither and both are refused."""
    for fields in ({}, {"memory_id": "x", "expected": "y"}):
        answer = client.post("/product/explain", json={"user_id": "u", "query": "q", **fields})
        assert answer.status_code == 422 and "exactly one way" in answer.json()["message"]


def test_the_command_line_explains(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`memos explain` tells what the API tells."""
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    runner = CliRunner()
    assert runner.invoke(command_line, ["add", "My boat is called Petrel."]).exit_code == 0
    done = runner.invoke(
        command_line, ["explain", "boat called", "--text", "My boat is called Petrel.", "--json"]
    )
    assert done.exit_code == 0 and json.loads(done.output)["verdict"] == "found"
    shown = runner.invoke(command_line, ["explain", "boat called", "--id", "nowhere"])
    assert "never written" in shown.output


def test_the_score_of_each_stage_is_told_and_adds_up(client: TestClient) -> None:
    """`stages` holds each stage's share; a stage that the call switches off is not among them."""
    item_id = add(client, "My boat is called Petrel.")
    told = why(client, memory_id=item_id)
    assert told["stages"]["lexical"] > 0.0 and told["stages"]["episode"] > 0.0
    assert {"stage": "lexical"} in told["found_by"]
    without = why(client, memory_id=item_id, stages=["-episode", "-again"])
    assert {"episode", "again"}.isdisjoint(without["stages"]) and "lexical" in without["stages"]
    assert sum(without["stages"].values()) < sum(told["stages"].values())


def test_each_hit_says_by_which_way_it_was_found(client: TestClient) -> None:
    """A memory that only a name leads to says from which one, and by which name."""
    first = add(client, "On Mondays the vet of Max is called Doctor Lee.")
    add(client, "Last summer Doctor Lee went sailing on the Petrel.")
    body = {"user_id": "u", "query": "Who is the vet of Max?", "stages": ["lexical", "walk"], "relativity": 0}
    found = client.post("/product/search", json=body).json()["data"]["text_mem"][0]["memories"]
    ways = {one["memory"].split()[0]: one["metadata"]["found_by"] for one in found}
    assert {"stage": "lexical"} in ways["On"]
    assert {"stage": "walk", "from": first, "by": "doctor lee"} in ways["Last"]


@pytest.mark.parametrize("stages", [["reranking"], ["-lexical", "-dense", "-links"], ["time"]])
def test_an_unknown_stage_is_refused_over_http(client: TestClient, stages: list[str]) -> None:
    """The refusal lists the stages that there are."""
    for path, more in (("search", {}), ("explain", {"expected": "x"})):
        body = {"user_id": "u", "query": "boat", "stages": stages, **more}
        answer = client.post(f"/product/{path}", json=body)
        assert answer.status_code in (400, 422)
        assert "lexical" in answer.text
