"""The documented routes beside add, search and chat: their shapes, and what they change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from memos.api.app import create_app
from memos.memory.item import ItemStatus
from memos.runtime import Runtime, build
from memos.testing import run_until_idle

from .conftest import settings_in


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def add(client: TestClient, text: str, user: str = "u", **fields: object) -> str:
    body = {"user_id": user, "messages": [{"role": "user", "content": text}], **fields}
    answer = client.post("/product/add", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["memory_id"])


def ask(client: TestClient, route: str, body: object) -> dict[str, Any]:
    answer = client.post(f"/product/{route}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["code"] == 200
    return dict(answer.json())


def found(client: TestClient, query: str, user: str = "u") -> list[str]:
    body = ask(client, "search", {"user_id": user, "query": query, "relativity": 0})
    return [one["memory"] for cube in body["data"]["text_mem"] for one in cube["memories"]]


def test_memories_by_ids_take_the_documented_list(client: TestClient) -> None:
    """A bare list and an object are both taken; what is not there is left out and named."""
    first, second = add(client, "My boat is called Petrel."), add(client, "I live in Lisbon.")
    for body in ([second, "nowhere", first], {"memory_ids": [second, "nowhere", first]}):
        answer = ask(client, "get_memory_by_ids", body)
        assert [one["id"] for one in answer["data"]["memories"]] == [second, first]
        assert "nowhere" in answer["message"]


def test_a_listing_without_a_page_is_everything(client: TestClient) -> None:
    """Without page and size all memories come, with them the page and the whole number."""
    for number in range(7):
        add(client, f"Fact number {number} about my boat.")
    [everything] = ask(client, "get_memory", {"mem_cube_id": "u"})["data"]["text_mem"]
    assert len(everything["memories"]) == everything["total_nodes"] == 7
    [page] = ask(client, "get_memory", {"mem_cube_id": "u", "page": 2, "page_size": 3})["data"]["text_mem"]
    assert (len(page["memories"]), page["total_nodes"]) == (3, 7)


def test_the_dashboard_lists_every_cube_of_a_user(client: TestClient) -> None:
    """Without a cube each cube in which the user has memories is one bucket."""
    add(client, "In my own cube.")
    add(client, "In the team's cube.", writable_cube_ids=["team"])
    add(client, "Somebody else's.", user="v")
    data = ask(client, "get_memory_dashboard", {"user_id": "u"})["data"]
    assert {bucket["cube_id"] for bucket in data["text_mem"]} == {"u", "team"}
    assert "Somebody" not in str(data)


def test_get_all_is_a_graph_with_a_tree(client: TestClient, runtime: Runtime) -> None:
    """Nodes are the memories, edges lead to sources and to the turn before, the tree holds each node once."""
    add(client, "I live in Lisbon.", session_id="s")
    add(client, "My boat is called Petrel.", session_id="s")
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    [cube] = ask(client, "get_all", {"user_id": "u", "memory_type": "text_mem"})["data"]
    [graph] = cube["memories"]
    ids = [node["id"] for node in graph["nodes"]]
    assert cube["cube_id"] == "u" and sum(cube["memory_statistics"].values()) == len(ids) >= 2
    kinds = {edge["type"] for edge in graph["edges"]}
    assert "FOLLOWS" in kinds and {edge["source"] for edge in graph["edges"]} <= set(ids)

    def walk(node: dict[str, Any]) -> list[str]:
        return [node["id"], *(one for child in node["children"] for one in walk(child))]

    in_tree = walk(graph["tree_structure"])
    assert sorted(one for one in in_tree if one in ids) == sorted(ids)
    [fitting] = ask(client, "get_all", {"user_id": "u", "search_query": "boat called"})["data"]
    assert "Petrel" in str(fitting) and "act_mem" not in str(fitting)
    assert ask(client, "get_all", {"user_id": "u", "memory_type": "act_mem"})["data"] == []


def test_feedback_over_http_changes_the_memory(client: TestClient) -> None:
    """A correction carried out at once is what the next search finds."""
    add(client, "I live in Lisbon.")
    body = {
        "user_id": "u",
        "feedback_content": "No, I live in Porto.",
        "history": [
            {"role": "user", "content": "Where do I live?"},
            {"role": "assistant", "content": "You live in Lisbon."},
        ],
        "async_mode": "sync",
    }
    [row] = ask(client, "feedback", body)["data"]
    assert row["status"] == "completed" and row["changed"]
    assert any("Porto" in text for text in found(client, "where do I live"))


def test_a_cube_can_be_made_before_its_first_memory(client: TestClient) -> None:
    """Made once, there afterwards; a second time it stays as it is; a path is refused."""
    assert ask(client, "exist_mem_cube_id", {"mem_cube_id": "boats"})["data"] == {"boats": False}
    made = ask(client, "create_cube", {"cube_name": "boats", "owner_id": "u"})["data"]
    assert made == {"cube_id": "boats", "cube_name": "boats", "owner_id": "u", "created": True}
    assert ask(client, "exist_mem_cube_id", {"mem_cube_id": "boats"})["data"] == {"boats": True}
    again = ask(client, "register_cube", {"mem_cube_name_or_path": "boats", "user_id": "v"})["data"]
    assert (again["created"], again["owner_id"]) == (False, "u")
    for route, body in (
        ("create_cube", {"cube_name": "c", "owner_id": "u", "cube_path": "/etc"}),
        ("register_cube", {"mem_cube_name_or_path": "../../etc/passwd"}),
        ("add", {"user_id": "u", "messages": "x", "doc_path": "/etc/passwd"}),
    ):
        refused = client.post(f"/product/{route}", json=body)
        assert refused.status_code == 422, refused.text


def test_the_cube_of_each_memory_is_told(client: TestClient) -> None:
    """Known ids give their cube, unknown and deleted ones null."""
    kept, gone = add(client, "Kept.", writable_cube_ids=["team"]), add(client, "Gone.")
    ask(client, "delete_memory", {"memory_ids": [gone]})
    names = ask(client, "get_user_names_by_memory_ids", {"memory_ids": [kept, gone, "never"]})["data"]
    assert names == {kept: "team", gone: None, "never": None}


def test_a_cube_set_aside_comes_back_whole(client: TestClient, runtime: Runtime) -> None:
    """Set aside, nothing is recalled and everything is kept; recovered, the same is recalled as before."""
    first = add(client, "My boat is called Petrel.")
    done = ask(client, "delete_memory_by_record_id", {"mem_cube_id": "u", "record_id": "r"})["data"]
    assert done == {"status": "success", "count": 1}
    assert found(client, "boat") == []
    assert runtime.store.get([first])[0].status is ItemStatus.ARCHIVED
    later = add(client, "A new boat.")
    back = ask(client, "recover_memory_by_record_id", {"mem_cube_id": "u", "delete_record_id": "r"})["data"]
    assert back == {"status": "success", "count": 1}
    assert sorted(found(client, "boat")) == ["A new boat.", "My boat is called Petrel."]
    again = ask(client, "recover_memory_by_record_id", {"mem_cube_id": "u", "delete_record_id": "r"})["data"]
    assert again["count"] == 0 and later


def test_a_hard_delete_leaves_nothing(client: TestClient) -> None:
    """What was set aside and then deleted for good can neither be recovered nor read."""
    first = add(client, "My boat is called Petrel.")
    for hard in (False, True):
        body = {"mem_cube_id": "u", "record_id": "r", "hard_delete": hard}
        assert ask(client, "delete_memory_by_record_id", body)["data"]["count"] == 1
    back = ask(client, "recover_memory_by_record_id", {"mem_cube_id": "u", "delete_record_id": "r"})["data"]
    assert back["count"] == 0
    assert client.get(f"/product/get_memory/{first}").json()["data"] is None


def test_asking_for_records_of_an_unknown_cube_makes_none(client: TestClient, runtime: Runtime) -> None:
    """Nothing to move is no error and no change."""
    ask(client, "delete_memory_by_record_id", {"mem_cube_id": "never", "record_id": "r"})
    assert runtime.store.cubes() == []


def test_suggestions_ask_about_what_the_cube_knows(client: TestClient) -> None:
    """Questions name entities of the memories, in the language asked for, and not what was just said."""
    add(client, "Yesterday I sailed to Porto with Maria.")
    body = {"user_id": "u", "mem_cube_id": "u", "language": "en"}
    questions = ask(client, "suggestions", body)["data"]["query"]
    assert any("Porto" in one or "Maria" in one for one in questions)
    said = [{"role": "user", "content": "Tell me about Porto and Maria."}]
    assert ask(client, "suggestions", {**body, "message": said})["data"]["query"] == []
    chinese = ask(client, "suggestions", {"user_id": "u", "mem_cube_id": "u"})["data"]["query"]
    assert all("什么" in one for one in chinese) and chinese


def test_the_business_chat_opens_with_its_key_only(tmp_path: Path) -> None:
    """Without a configured key nobody gets in; with one, who carries it; `need_search` false recalls nothing."""
    with build(settings_in(tmp_path / "closed"), start=False) as built:
        body = {"user_id": "u", "query": "boat?", "business_key": ""}
        assert (
            TestClient(create_app(built)).post("/product/chat/stream/business_user", json=body).status_code
            == 403
        )
    keyed = settings_in(tmp_path / "open", business_chat_keys=("a-business-key",))
    keyed = type(keyed)(
        home=keyed.home,
        models=keyed.models,
        api=dict(keyed.api) | {"business_chat_keys": ("a-business-key",)},
    )
    with build(keyed, start=False) as built:
        client = TestClient(create_app(built))
        add(client, "My boat is called Petrel.")
        question = {"user_id": "u", "query": "What is my boat called?", "business_key": "a-business-key"}
        assert "Petrel" in client.post("/product/chat/stream/business_user", json=question).text
        blind = client.post("/product/chat/stream/business_user", json={**question, "need_search": False})
        assert blind.status_code == 200 and "Petrel" not in blind.text
        wrong = client.post("/product/chat/stream/business_user", json={**question, "business_key": "x"})
        assert wrong.status_code == 403


def test_a_search_at_a_time_takes_its_moments_in_the_body(client: TestClient) -> None:
    """`valid_at` and `known_at` leave out what was said later, `reference_time` dates words such as yesterday."""
    for text, when in (("We met at the harbour.", "2024-05-07"), ("We met at the mill.", "2024-06-20")):
        turn = {"role": "user", "content": text, "chat_time": f"{when}T10:00:00+00:00"}
        answer = client.post(
            "/product/add",
            json={"user_id": "u", "session_id": when, "messages": [turn], "async_mode": "sync"},
        )
        assert answer.status_code == 200, answer.text

    def told(query: str, **moments: str) -> list[str]:
        asked = {"user_id": "u", "query": query, "relativity": 0, "dedup": "no", **moments}
        [cube] = ask(client, "search", asked)["data"]["text_mem"]
        return [one["memory"] for one in cube["memories"]]

    harbour, mill = "We met at the harbour.", "We met at the mill."
    assert set(told("harbour or mill")) == {harbour, mill}
    assert told("harbour or mill", valid_at="2024-06-01T00:00:00+00:00") == [harbour]
    assert told("harbour or mill", valid_at="2024-01-01") == []
    assert set(told("harbour or mill", known_at="2124-01-01")) == {harbour, mill}
    assert told("harbour or mill", known_at="2024-01-01") == []
    assert told("harbour or mill yesterday", reference_time="2024-05-08T12:00:00+00:00")[0] == harbour
    assert told("harbour or mill yesterday", reference_time="2024-06-21T12:00:00+00:00")[0] == mill
    for name in ("valid_at", "known_at", "reference_time"):
        refused = client.post("/product/search", json={"user_id": "u", "query": "where", name: "soon"})
        assert refused.status_code == 400 and f"{name}='soon'" in refused.json()["message"]
