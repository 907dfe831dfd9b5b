"""The handlers: what a call leaves in the store and the queue, and what it answers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from memos.api.handlers import Handlers, handlers_of
from memos.api.handlers.add import AddHandler
from memos.api.handlers.base_handler import HandlerDependencies
from memos.api.product_models import (
    APIADDRequest,
    APIChatCompleteRequest,
    APIFeedbackRequest,
    APISearchRequest,
    ChatPlaygroundRequest,
    DeleteMemoryRequest,
    GetMemoryRequest,
)
from memos.errors import InvalidInput, ItemGone, ItemNotFound, QueueFull
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind
from memos.memory.store import AddItems, ItemFilter, SetStatus
from memos.runtime import Runtime
from memos.testing import run_until_idle

DOCUMENTED_KEYS = {
    "graph_db mem_reader llm chat_llms playground_chat_llms embedder reranker internet_retriever memory_manager "
    "default_cube_config mem_scheduler naive_mem_cube searcher api_module text_mem online_bot feedback_server "
    "redis_client deepsearch_agent"
}


def added(handlers: Handlers, *texts: str, cube: str = "c", user: str = "u", **fields: object) -> list[str]:
    request = APIADDRequest(
        user_id=user,
        writable_cube_ids=[cube],
        messages=[{"role": "user", "content": text} for text in texts],
        **fields,
    )
    return [row["memory_id"] for row in handlers.add.handle_add_memories(request).data or []]


def found(handlers: Handlers, query: str, cube: str = "c", **fields: object) -> list[str]:
    request = APISearchRequest(user_id="u", query=query, readable_cube_ids=[cube], relativity=0, **fields)
    data = handlers.search.handle_search_memories(request).data or {}
    return [memory["memory"] for memory in data["text_mem"][0]["memories"]]


def queued(runtime: Runtime) -> list[ScheduleMessageItem]:
    keys = [status.key for status in runtime.queue.statuses()]
    return [delivery.message for delivery in runtime.queue.get(keys)]


def test_components_are_the_documented_ones(handlers: Handlers, runtime: Runtime) -> None:
    """`init_server()` has exactly the documented keys, as views of one runtime."""
    [names] = DOCUMENTED_KEYS
    assert set(handlers.components) == set(names.split())
    assert handlers.components["mem_scheduler"] is runtime.scheduler
    assert handlers.components["graph_db"] is runtime.store
    assert handlers.components["redis_client"] is None
    assert handlers.components["text_mem"] is handlers.components["naive_mem_cube"].text_mem
    assert handlers_of(runtime) is handlers


def test_dependencies_are_attributes_and_a_missing_one_is_named() -> None:
    """Named and unknown parts are attributes; a handler lists what it lacks."""
    deps = HandlerDependencies.from_init_server({"mem_reader": 1, "something_new": 2})
    assert (deps.mem_reader, vars(deps)["something_new"], deps.llm) == (1, 2, None)
    with pytest.raises(ValueError, match="AddHandler needs mem_scheduler, memory_manager"):
        AddHandler(deps)


@pytest.mark.parametrize(("mode", "label", "read"), [("sync", "add", "none"), ("async", "mem_read", "due")])
def test_what_is_added_is_found_at_once_and_announced(
    handlers: Handlers, runtime: Runtime, mode: str, label: str, read: str
) -> None:
    """When add returns, every turn can be recalled and one task a cube waits in the queue: reading them is
    due after an async add, a sync one is told of."""
    response = handlers.add.handle_add_memories(
        APIADDRequest(
            user_id="u",
            session_id="s",
            task_id="job-1",
            writable_cube_ids=["c", "d"],
            messages=[
                {"role": "user", "content": "My boat is called Petrel."},
                {"role": "assistant", "content": "A fine name."},
            ],
            async_mode=mode,
            info={"app": "phone"},
            custom_tags=["boats"],
        )
    )
    rows = response.data or []
    assert [(row["cube_id"], row["memory"]) for row in rows] == [
        (cube, text) for cube in "cd" for text in ("My boat is called Petrel.", "A fine name.")
    ]
    assert response.seqs == {"c": 1, "d": 1}
    stored = runtime.store.get([row["memory_id"] for row in rows])
    assert {(i.session_id, i.tags, i.extra["app"], i.read) for i in stored} == {
        ("s", ("boats",), "phone", read)
    }
    assert found(handlers, "Petrel boat", "d")[0] == "My boat is called Petrel."
    tasks = sorted(queued(runtime), key=lambda task: task.mem_cube_id)
    assert [(task.label, task.mem_cube_id, task.task_id) for task in tasks] == [
        (label, "c", "job-1"),
        (label, "d", "job-1"),
    ]
    assert json.loads(tasks[0].content) == [row["memory_id"] for row in rows if row["cube_id"] == "c"]


def test_without_cubes_the_user_is_the_cube(handlers: Handlers) -> None:
    """No cube ids: the cube named like the user; the old single field still counts."""
    rows = handlers.add.handle_add_memories(APIADDRequest(user_id="ann", messages="x y z")).data or []
    assert rows[0]["cube_id"] == "ann"
    old = APIADDRequest(user_id="ann", mem_cube_id="old", memory_content="legacy text")
    assert (handlers.add.handle_add_memories(old).data or [])[0]["cube_id"] == "old"


def test_places_in_a_session_go_on_where_they_stopped(handlers: Handlers, runtime: Runtime) -> None:
    """A second call to the same session numbers its turns after those of the first, archived ones included."""
    ids = added(handlers, "one", "two", session_id="s")
    runtime.store.apply([SetStatus((ids[1],), ItemStatus.ARCHIVED, "test")])
    ids += added(handlers, "three", session_id="s") + added(handlers, "other", session_id="t")
    positions = {item.memory: item.position for item in runtime.store.get(ids)}
    assert positions == {"one": 0, "two": 1, "three": 2, "other": 0}


def test_writers_at_the_same_time_get_different_places(handlers: Handlers, runtime: Runtime) -> None:
    """Eight threads that write to one session leave every place taken once, without gaps."""
    with ThreadPoolExecutor(8) as pool:
        ids = [
            one
            for added_ids in pool.map(lambda n: added(handlers, f"turn {n}", session_id="s"), range(24))
            for one in added_ids
        ]
    assert sorted(item.position for item in runtime.store.get(ids)) == list(range(24))


def test_preferences_have_their_own_bucket(handlers: Handlers, runtime: Runtime) -> None:
    """A preference is recalled in pref_mem and not in text_mem, and left out when it is not wanted."""
    added(handlers, "The tea is in the cupboard.")
    item = MemoryItem(
        id="p1", cube_id="c", user_id="u", memory="Prefers green tea.", kind=MemoryKind.PREFERENCE
    )
    runtime.store.apply([AddItems(tuple(runtime.indexer.index([item])))])

    def buckets(**fields: object) -> tuple[list[str], list[str]]:
        asked = APISearchRequest(user_id="u", query="tea", readable_cube_ids=["c"], relativity=0, **fields)
        data = handlers.search.handle_search_memories(asked).data or {}
        text, preferences = data["text_mem"][0], data["pref_mem"][0]
        return [m["id"] for m in text["memories"]], [m["id"] for m in preferences["memories"]]

    text_ids, preference_ids = buckets()
    assert preference_ids == ["p1"] and "p1" not in text_ids and len(text_ids) == 1
    assert buckets(include_preference=False)[1] == []
    assert len(buckets(top_k=1)[0]) == 1, "preferences take no place among the texts"


def test_the_exact_time_of_a_reference_is_read(handlers: Handlers) -> None:
    """A reference time is understood, and a bad one refused by name."""
    added(handlers, "We met at the harbour.")
    assert found(handlers, "harbour", reference_time="8 May 2023") == ["We met at the harbour."]
    with pytest.raises(InvalidInput, match="reference_time='soon'"):
        found(handlers, "harbour", reference_time="soon")


def test_feedback_has_its_own_time(handlers: Handlers, runtime: Runtime) -> None:
    """The time of feedback is when what it says became true; one that is none is refused by name."""
    asked = APIFeedbackRequest(
        user_id="u",
        feedback_content="My locker code is 4711.",
        feedback_time="2024-01-02T03:04:05Z",
        async_mode="sync",
    )
    [row] = handlers.feedback.handle_feedback_memories(asked).data or []
    [item] = runtime.store.get([row["record"]["add"][0]["memory_id"]])
    assert item.happened_at is not None and item.happened_at.isoformat() == "2024-01-02T03:04:05+00:00"
    with pytest.raises(InvalidInput, match="feedback_time='soon'"):
        handlers.feedback.handle_feedback_memories(asked.model_copy(update={"feedback_time": "soon"}))


def test_what_a_search_does_not_do_is_told(handlers: Handlers) -> None:
    """A mode or source that makes no difference here is named in the answer."""
    asked = APISearchRequest(user_id="u", query="q", mode="fine", internet_search=True)
    degraded = " ".join(handlers.search.handle_search_memories(asked).degraded)
    assert "'fine'" in degraded and "internet search" in degraded


def test_nothing_is_skipped_in_silence(handlers: Handlers) -> None:
    """The response lists each message that held no text."""
    response = handlers.add.handle_add_memories(
        APIADDRequest(
            user_id="u",
            messages=[
                {"role": "user", "content": "A lamp."},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            ],
        )
    )
    assert {skip["message"] for skip in response.skipped} == {1}
    assert "skipped" in response.message


def test_sync_fine_reads_within_the_call(handlers: Handlers, runtime: Runtime) -> None:
    """When the call returns, facts are stored beside the turns, all told of by one `add` task."""
    response = handlers.add.handle_add_memories(
        APIADDRequest(user_id="u", messages="I live in Paris. I love sushi.", async_mode="sync", mode="fine")
    )
    rows = [(row["memory_type"], row["memory"]) for row in response.data or []]
    assert rows == [
        ("LongTermMemory", "I live in Paris. I love sushi."),
        ("UserMemory", "The user lives in Paris."),
        ("PreferenceMemory", "The user likes sushi."),
    ]
    raw, *facts = runtime.store.get([row["memory_id"] for row in response.data or []])
    assert raw.raw and raw.read == "done"
    assert {fact.sources[0].item_id for fact in facts} == {raw.id}
    (task,) = queued(runtime)
    assert (task.label, json.loads(task.content)) == ("add", [raw.id, *(fact.id for fact in facts)])
    assert response.seqs == {"u": 1}


def test_preferences_are_found_when_the_add_returns(handlers: Handlers) -> None:
    """A stated taste is in the preference bucket of the next search, and nowhere when it is not asked for."""
    handlers.add.handle_add_memories(
        APIADDRequest(user_id="u", messages="I love sushi.", async_mode="sync", mode="fine")
    )
    asked = APISearchRequest(user_id="u", query="sushi", relativity=0.0)
    (bucket,) = (handlers.search.handle_search_memories(asked).data or {})["pref_mem"]
    assert [memory["memory"] for memory in bucket["memories"]] == ["The user likes sushi."]
    without = asked.model_copy(update={"include_preference": False})
    data = handlers.search.handle_search_memories(without).data or {}
    assert [memory for bucket in data["pref_mem"] for memory in bucket["memories"]] == []


@pytest.mark.parametrize(
    ("said", "texts"),
    [
        ("I love sushi.", []),
        ("I love sushi. My boat is called Petrel.", ["I love sushi. My boat is called Petrel."]),
    ],
)
def test_a_fact_is_a_text_or_a_preference_not_both(handlers: Handlers, said: str, texts: list[str]) -> None:
    """The turn behind a preference of the answer is left out, unless it says more, or nothing is to be."""
    handlers.add.handle_add_memories(
        APIADDRequest(user_id="u", writable_cube_ids=["c"], messages=said, async_mode="sync", mode="fine")
    )
    assert found(handlers, "sushi") == texts
    assert found(handlers, "sushi", dedup="no") == [said]
    assert found(handlers, "sushi", include_preference=False) == [said]


def test_a_full_queue_costs_the_task_and_not_the_memory(
    handlers: Handlers, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the queue refuses the follow-up the memory is stored, and the response says what is missing."""

    def refuse(*_: object, **__: object) -> list[str]:
        raise QueueFull("200000 messages wait")

    monkeypatch.setattr(runtime.scheduler, "submit_messages", refuse)
    response = handlers.add.handle_add_memories(APIADDRequest(user_id="u", messages="The key is blue."))
    assert "not queued: 200000 messages wait" in response.message
    assert runtime.store.sizes("u").long_term == 1


def test_search_answers_in_the_documented_buckets(handlers: Handlers) -> None:
    """Every bucket is there; each readable cube has its own list; a memory has id, ref_id and metadata."""
    [first] = added(handlers, "The spare key is under the blue pot.")
    response = handlers.search.handle_search_memories(
        APISearchRequest(user_id="u", query="where is the spare key", readable_cube_ids=["c", "empty"])
    )
    data = response.data or {}
    assert set(data) == {
        *("text_mem", "act_mem", "para_mem", "pref_mem", "tool_mem", "skill_mem", "pref_note", "pref_string")
    }
    assert [bucket["cube_id"] for bucket in data["text_mem"]] == ["c", "empty"]
    assert data["text_mem"][1]["memories"] == []
    [memory] = data["text_mem"][0]["memories"]
    assert (memory["id"], memory["ref_id"]) == (first, f"[{first[:8]}]")
    assert 0.45 <= memory["metadata"]["relativity"] <= 1
    assert memory["metadata"]["memory_type"] == "LongTermMemory"
    assert response.seqs == {"c": 1, "empty": 0}
    assert any("no embedder" in why for why in response.degraded)


def test_search_filters_and_kinds_restrict(handlers: Handlers, runtime: Runtime) -> None:
    """A filter and a memory type leave out what does not match; an unknown type is refused."""
    added(handlers, "A tent for the lake.", session_id="trip")
    added(handlers, "A tent for the garden.", session_id="home")
    assert found(handlers, "tent", filter={"session_id": "trip"}) == ["A tent for the lake."]
    assert found(handlers, "tent", search_memory_type="UserMemory") == []
    assert found(handlers, "tent", search_memory_type="WorkingMemory") == []
    with pytest.raises(InvalidInput, match="search_memory_type 'Everything'"):
        found(handlers, "tent", search_memory_type="Everything")
    with pytest.raises(InvalidInput):
        found(handlers, "tent", filter={"no_such_field": 1})
    cube = handlers.components["naive_mem_cube"]
    assert cube.text_mem.get_all() == []


def test_an_edit_changes_text_index_and_version(handlers: Handlers, runtime: Runtime) -> None:
    """After an edit only the new text is found, under the same id and the next version."""
    [item_id] = added(handlers, "The meeting is on Monday.")
    edited = handlers.memory.edit(item_id, "The meeting is on Friday.")
    assert (edited.id, edited.version, edited.memory) == (item_id, 2, "The meeting is on Friday.")
    assert found(handlers, "friday meeting") == ["The meeting is on Friday."]
    assert found(handlers, "monday") == []
    with pytest.raises(InvalidInput):
        handlers.memory.edit(item_id, "  ")


def test_a_deletion_is_complete_and_can_be_repeated(handlers: Handlers, runtime: Runtime) -> None:
    """A deleted memory is found nowhere; deleting it again is no error; an unknown id deletes nothing."""
    keep, drop = added(handlers, "Keep the red book.", "Drop the green book.")
    assert handlers.memory.delete([drop]) == 1
    assert handlers.memory.delete([drop]) == 0
    assert found(handlers, "book") == ["Keep the red book."]
    with pytest.raises(ItemGone):
        runtime.store.get([drop])
    with pytest.raises(ItemNotFound):
        handlers.memory.delete([keep, "no-such-id"])
    with pytest.raises(ItemNotFound, match="in cube other"):
        handlers.memory.delete([keep], cube_ids=["other"])
    assert found(handlers, "book") == ["Keep the red book."]


def test_deletion_by_match_stays_inside_its_bounds(handlers: Handlers, runtime: Runtime) -> None:
    """Deleting a user's session touches no other user, cube or session; without bounds it is refused."""
    added(handlers, "mine in s", session_id="s")
    added(handlers, "mine in t", session_id="t")
    added(handlers, "theirs in s", session_id="s", user="v")
    delete = handlers.memory.handle_delete_memories
    response = delete(DeleteMemoryRequest(user_id="u", session_id="s"))
    assert response.data == {"status": "success", "deleted": 1}
    left = {item.memory for item in runtime.store.find(ItemFilter()).items}
    assert left == {"mine in t", "theirs in s"}
    with pytest.raises(InvalidInput, match="writable_cube_ids or user_id"):
        delete(DeleteMemoryRequest(session_id="s"))
    by_filter = DeleteMemoryRequest(writable_cube_ids=["c"], filter={"memory": {"like": "%theirs%"}})
    assert delete(by_filter).data == {"status": "success", "deleted": 1}
    assert {item.memory for item in runtime.store.find(ItemFilter()).items} == {"mine in t"}


def test_memories_are_listed_page_by_page(handlers: Handlers) -> None:
    """Pages cover every memory of the cube once, newest first, with the true total."""
    added(handlers, *(f"note number {n}" for n in range(7)))
    seen: list[str] = []
    for page in (1, 2, 3, 4):
        data = handlers.memory.handle_get_memories(
            GetMemoryRequest(mem_cube_id="c", page=page, page_size=3)
        ).data or {"text_mem": []}
        [bucket] = data["text_mem"]
        assert bucket["total_nodes"] == 7
        seen += [memory["memory"] for memory in bucket["memories"]]
    assert seen == [f"note number {n}" for n in reversed(range(7))]
    some = GetMemoryRequest(mem_cube_id="c", filter={"memory": {"contains": "number 3"}})
    data = handlers.memory.handle_get_memories(some).data or {}
    assert [memory["memory"] for memory in data["text_mem"][0]["memories"]] == ["note number 3"]


def test_one_memory_by_id_tells_unknown_from_deleted(handlers: Handlers) -> None:
    """An unknown and a deleted id both have no data, and the message says which it is."""
    [item_id] = added(handlers, "A short note.")
    assert (handlers.memory.handle_get_memory(item_id).data or {})["memory"] == "A short note."
    handlers.memory.delete([item_id])
    gone, unknown = handlers.memory.handle_get_memory(item_id), handlers.memory.handle_get_memory("nope")
    assert gone.data is None and "was deleted" in gone.message
    assert unknown.data is None and "no memory has the id" in unknown.message


def test_sync_feedback_tells_what_it_did(handlers: Handlers, runtime: Runtime) -> None:
    """The answer names what was added, with the feedback as its source, and what was left unchanged."""
    asked = APIFeedbackRequest(
        user_id="u", feedback_content="No, the key is red.", retrieved_memory_ids=["a"], async_mode="sync"
    )
    response = handlers.feedback.handle_feedback_memories(asked)
    [row] = response.data or []
    assert (row["cube_id"], row["status"], row["changed"]) == ("u", "completed", True)
    [item] = runtime.store.get([row["record"]["add"][0]["memory_id"]])
    assert (item.memory, item.sources[0].type) == ("The key is red.", "feedback")
    vague = APIFeedbackRequest(user_id="u", feedback_content="Wrong.", async_mode="sync")
    response = handlers.feedback.handle_feedback_memories(vague)
    [row] = response.data or []
    assert not row["changed"] and row["remarks"] and "unchanged" in response.message


def test_async_feedback_is_a_task_that_can_be_asked_for(handlers: Handlers, runtime: Runtime) -> None:
    """The answer promises a task a cube and claims nothing else; when it has run, the memories changed."""
    [item_id] = added(handlers, "I live in Paris.")
    asked = APIFeedbackRequest(
        user_id="u",
        task_id="fb-1",
        feedback_content="No, I live in Berlin.",
        retrieved_memory_ids=[item_id],
        writable_cube_ids=["c", "d"],
    )
    response = handlers.feedback.handle_feedback_memories(asked)
    rows = response.data or []
    assert [(row["cube_id"], row["status"], row["changed"]) for row in rows] == [
        ("c", "waiting", False),
        ("d", "waiting", False),
    ]
    assert runtime.store.get([item_id])[0].extra.get("corrected_by") is None
    states = handlers.tasks.task_states("u", "fb-1")
    assert states is not None and states.data == [{"task_id": "fb-1", "status": "in_progress"}]
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    states = handlers.tasks.task_states("u", "fb-1")
    assert states is not None and states.data == [{"task_id": "fb-1", "status": "completed"}]
    [correction] = runtime.store.get([item_id])[0].extra["corrected_by"]
    assert "Berlin" in runtime.store.get([correction])[0].memory
    assert found(handlers, "Do I live in Paris?")[0] == runtime.store.get([correction])[0].memory


def test_cubes_come_into_being_with_their_first_memory(handlers: Handlers) -> None:
    """A cube exists from its first memory on, and is listed for the users who have memories in it."""
    assert not handlers.cube.exists("c")
    added(handlers, "x")
    assert handlers.cube.exists("c")
    assert handlers.cube.cubes() == handlers.cube.cubes("u") == ["c"]
    assert handlers.cube.cubes("v") == []


def test_the_add_task_runs_to_completion(handlers: Handlers, runtime: Runtime) -> None:
    """The announced task finishes, its business task is completed and its log names the memories."""
    runtime.scheduler.start()
    added(handlers, "The lamp is broken.", task_id="job-7", async_mode="sync")
    run_until_idle(runtime.scheduler)
    states = handlers.tasks.task_states("u", "job-7")
    assert states is not None and states.data == [{"task_id": "job-7", "status": "completed"}]
    assert handlers.tasks.task_states("u", "job-8") is None
    assert handlers.tasks.task_states("v", "job-7") is None
    logs = [log for _, log in runtime.store.web_logs(cube_id="c", label="addMemory")]
    assert len(logs) == 1


def test_a_mixture_search_answers_now_and_prepares_the_next(handlers: Handlers, runtime: Runtime) -> None:
    """Mode mixture gives what fast gives, queues its fine recall, and follow-ups profit from it."""
    added(handlers, "The red bicycle costs 900 euros in the shop.")
    added(handlers, "The blue bicycle costs 300 euros in the shop.")

    def search(query: str) -> list[str]:
        asked = APISearchRequest(
            user_id="u", query=query, mode="mixture", session_id="s", readable_cube_ids=["c"], relativity=0.1
        )
        response = handlers.search.handle_search_memories(asked)
        assert not any("mixture" in remark for remark in response.degraded)
        return [one["memory"] for one in (response.data or {})["text_mem"][0]["memories"]]

    assert search("Are there cheaper ones?") == []
    first = search("What does a bicycle in the shop cost?")
    assert first == found(handlers, "What does a bicycle in the shop cost?", session_id="s")
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    assert set(search("Are there cheaper ones?")) == set(first)


def test_preferences_are_those_of_who_asks(runtime: Runtime, handlers: Handlers) -> None:
    """In a cube that two users share, neither search nor chat takes one user's preference for the other's."""
    at = datetime(2024, 1, 1, tzinfo=UTC)
    wishes = {"ann": "The user prefers green tea", "ben": "The user prefers strong coffee"}
    items = [
        MemoryItem(
            id=user,
            cube_id="flat",
            user_id=user,
            memory=text,
            kind=MemoryKind.PREFERENCE,
            raw=False,
            created_at=at,
            updated_at=at,
        )
        for user, text in wishes.items()
    ]
    runtime.store.apply([AddItems(tuple(runtime.indexer.index(items, participants=frozenset())))])
    query = "what does the user prefer, tea or coffee"
    for user, text in wishes.items():
        asked = APISearchRequest(user_id=user, readable_cube_ids=["flat"], query=query, relativity=0)
        data = handlers.search.handle_search_memories(asked).data or {}
        assert [memory["memory"] for bucket in data["pref_mem"] for memory in bucket["memories"]] == [text]
        assert handlers.chat is not None
        chat = ChatPlaygroundRequest(user_id=user, readable_cube_ids=["flat"], query=query)
        frames = [json.loads(f[6:]) for f in handlers.chat.handle_chat_stream(chat, kind="playground")]
        (shown,) = [frame["data"] for frame in frames if frame["type"] == "pref_md_string"]
        assert text in shown
        assert not [other for other in wishes.values() if other != text and other in shown]


def test_chat_says_who_said_it_in_a_shared_cube(handlers: Handlers) -> None:
    """What another user of the cube said is quoted under that user's name, one's own as one's own."""
    added(handlers, "The spare key lies under the blue flowerpot.", cube="flat", user="ann")
    assert handlers.chat is not None
    told = {
        user: handlers.chat.handle_chat_complete(
            APIChatCompleteRequest(
                user_id=user,
                readable_cube_ids=["flat"],
                query="Where does the spare key lie?",
                add_message_on_answer=False,
            )
        ).data
        for user in ("ann", "ben")
    }
    assert "(you said on" in (told["ann"] or {})["response"]
    assert "(ann said on" in (told["ben"] or {})["response"]
