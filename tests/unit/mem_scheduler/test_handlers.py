"""The built-in handlers, by the rows they leave in the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message

from memos.configs.mem_scheduler import GeneralSchedulerConfig
from memos.errors import ModelUnavailable, VersionConflict
from memos.mem_scheduler.handlers import HANDLERS
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.item import Capacities, ItemStatus, MemoryKind, WorkingEntry
from memos.memory.store import ItemFilter, ReplaceWorking, SetStatus
from memos.testing import ManualClock

PETS = (
    "I just adopted a golden retriever puppy named Max.",
    "Max loves peanut butter treats.",
    "I am allergic to nuts.",
    "My sister Elena feeds the puppy on Tuesdays.",
)


def logs(parts: Parts, label: str) -> list[ScheduleLogForWebItem]:
    """The stored logs of a category, oldest first."""
    return [entry for _, entry in reversed(parts.store.web_logs(label=label))]


def ask(parts: Parts, text: str, **fields: object) -> None:
    """Update working memory for a query, a second after whatever was before."""
    parts.clock.advance(1.0)  # type: ignore[attr-defined]
    parts.scheduler.submit_messages(message("mem_update", text, **fields))
    parts.drain()


def test_every_row_of_the_table_is_registered(still: Parts) -> None:
    """A new scheduler serves exactly the labels of the table."""
    assert set(still.scheduler.handlers) == set(HANDLERS)


def test_query_tells_and_chains(still: Parts) -> None:
    """A query leaves an addMessage log and a mem_update with its own id and everything else the same."""
    still.remember(*PETS)
    sent = message(
        "query",
        "What is the puppy called?",
        item_id="q1",
        session_id="s",
        task_id="T",
        info={"turn_id": "t1"},
    )
    still.scheduler.submit_messages(sent)
    assert still.scheduler.run_once() == 1
    (told,) = logs(still, "addMessage")
    assert (told.from_memory_type, told.to_memory_type) == ("UserInput", "NotApplicable")
    assert told.memcube_log_content == [
        {"content": "[User] What is the puppy called?", "ref_id": "q1", "role": "user"}
    ]
    assert told.current_memory_sizes["long_term_memory_size"] == 4
    assert told.memory_capacities["working_memory_capacity"] == 20
    assert (told.trace_id, told.task_id) == (sent.trace_id, "T")
    (waiting,) = [one for one in still.queue.statuses() if one.state is TaskState.WAITING]
    (chained,) = still.queue.get([waiting.key])
    child = chained.message
    assert chained.parent_key
    assert (child.label, child.content, child.session_id) == ("mem_update", sent.content, "s")
    assert (child.task_id, child.trace_id, child.info) == ("T", sent.trace_id, {"turn_id": "t1"})
    assert child.item_id != "q1"


def test_answer_tells(still: Parts) -> None:
    """An answer leaves an addMessage log in the assistant's role."""
    still.scheduler.submit_messages(message("answer", "His name is Max.", item_id="a1"))
    still.drain()
    (told,) = logs(still, "addMessage")
    assert told.memcube_log_content == [
        {"content": "[Assistant] His name is Max.", "ref_id": "a1", "role": "assistant"}
    ]
    assert still.sink.labels() == ["addMessage"]


def test_add_tells_what_was_added_and_what_was_updated(still: Parts) -> None:
    """Local programs get addMemory for new items and updateMemory for those that replaced others."""
    old, new = still.remember("Max is 9 weeks old.", "Max is from a shelter.")
    (merged,) = still.remember("Max is 10 weeks old.", extra={"merged_from": [old]})
    still.scheduler.submit_messages(message("add", json.dumps([new, merged, "unknown-id"])))
    still.drain()
    (added,) = logs(still, "addMemory")
    (updated,) = logs(still, "updateMemory")
    assert added.memcube_log_content == [{"content": "Max is from a shelter.", "ref_id": new}]
    assert (added.memory_len, added.memory_delta, added.to_memory_type) == (3, 1, "LongTermMemory")
    assert added.metadata is not None
    assert (added.metadata[0]["id"], added.metadata[0]["status"]) == (new, "activated")
    assert updated.memcube_log_content == [
        {"content": "Max is 10 weeks old.", "original_content": "Max is 9 weeks old.", "ref_id": merged}
    ]
    assert (updated.memory_len, updated.memory_delta) == (3, 0)
    assert logs(still, "knowledgeBaseUpdate") == []


def test_add_through_the_api_is_one_knowledge_base_update(still: Parts) -> None:
    """Any API path but the playground's gets one log with an operation for each item."""
    ids = still.remember("One.", "Two.", kind=MemoryKind.USER)
    still.scheduler.submit_messages(
        [
            message("add", json.dumps(ids), api_path="/product/add"),
            message("add", json.dumps(ids), api_path="/product/chat/stream/playground"),
        ]
    )
    still.drain()
    (update,) = logs(still, "knowledgeBaseUpdate")
    assert update.memcube_log_content is not None
    assert [(row["operation"], row["memory_id"]) for row in update.memcube_log_content] == [
        ("ADD", one) for one in ids
    ]
    assert {row["trigger_source"] for row in update.memcube_log_content} == {"Messages"}
    assert update.to_memory_type == "UserMemory"
    assert len(logs(still, "addMemory")) == 1


def test_add_of_nothing_left_tells_nothing(still: Parts) -> None:
    """Items that were deleted meanwhile are left out; without any there is no log and no failure."""
    (gone,) = still.remember("Forget this.")
    still.store.apply([SetStatus((gone,), ItemStatus.DELETED, "asked to")])
    still.scheduler.submit_messages([message("add", json.dumps([gone])), message("add", "[]")])
    still.drain()
    assert still.store.web_logs() == []
    assert {one.state for one in still.queue.statuses()} == {TaskState.COMPLETED}


@pytest.mark.parametrize("content", ["not json", '{"ids": []}', "[1, 2]"])
def test_add_with_an_unreadable_content_is_dead_lettered_at_once(still: Parts, content: str) -> None:
    """What no retry can mend goes to the dead letters after one run."""
    still.scheduler.submit_messages(message("add", content))
    still.drain()
    (letter,) = still.queue.dead.list()
    assert (letter.attempts, letter.error.startswith("Discard")) == (0, True)


def test_mem_update_fills_an_empty_working_memory(still: Parts) -> None:
    """From empty, what fits the query stands in working memory, best first, each with a reason."""
    still.remember(*PETS)
    ask(still, "What is the name of my golden retriever puppy?", item_id="u1")
    working = still.store.working(CUBE)
    assert working.version == 1
    assert working.items[0].memory == PETS[0]
    assert [one.score for one in working.entries] == sorted(
        (one.score for one in working.entries), reverse=True
    )
    assert all(one.reason.startswith("recalled: fits the query") for one in working.entries)
    (told,) = logs(still, "scheduleMemory")
    assert (told.from_memory_type, told.to_memory_type) == ("TextMemory", "WorkingMemory")
    assert told.memcube_log_content is not None
    assert [row["ref_id"] for row in told.memcube_log_content] == [item.id for item in working.items]
    assert {row["type"] for row in told.memcube_log_content} == {"added"}
    assert (told.memory_len, told.memory_delta) == (len(working.items), len(working.items))
    assert told.current_memory_sizes["working_memory_size"] == still.store.sizes(CUBE).working
    rows = still.store.journal(cube_id=CUBE)
    (row,) = [one for one in rows if one.op == "replace_working"]
    assert (row.cause.label, row.cause.user_id) == ("mem_update", USER)


def test_mem_update_keeps_adds_and_removes_by_score(tmp_path: Path, clock: ManualClock) -> None:
    """With few places, the next query's memories push out what fits it less; log and rows agree."""
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=2)) as parts:
        parts.remember(*PETS, "The weather was fine in Oslo.")
        ask(parts, "golden retriever puppy Max")
        before = {item.memory for item in parts.store.working(CUBE).items}
        assert PETS[0] in before
        ask(parts, "Who is allergic to nuts, and does Max get peanut butter?")
        after = parts.store.working(CUBE)
        assert {item.memory for item in after.items} == {PETS[1], PETS[2]}
        told = logs(parts, "scheduleMemory")[-1]
        assert told.memcube_log_content is not None
        changes: dict[str, set[str]] = {}
        for row in told.memcube_log_content:
            changes.setdefault(row["type"], set()).add(row["content"])
        assert changes.get("added", set()) == {PETS[1], PETS[2]} - before
        assert changes.get("kept", set()) == {PETS[1], PETS[2]} & before
        assert changes["removed"] == before - {PETS[1], PETS[2]}
        assert told.memory_len == 2
        assert told.memory_delta == len(changes.get("added", ())) - len(changes["removed"])


def test_mem_update_leaves_a_sufficient_working_memory_alone(still: Parts) -> None:
    """When one working memory speaks of everything asked, nothing is replaced, and the log says why."""
    still.remember(*PETS)
    ask(still, "golden retriever puppy")
    version = still.store.working(CUBE).version
    ask(still, "my golden retriever puppy named Max")
    assert still.store.working(CUBE).version == version
    told = logs(still, "scheduleMemory")[-1]
    assert told.log_content.startswith(
        "Working memory unchanged: working memory cube_1-0 speaks of everything"
    )
    assert (told.memory_len, told.memory_delta) == (still.store.sizes(CUBE).working, 0)
    state = still.services.activity.read(still.store, CUBE, USER)
    assert [(one.text, one.recalled) for one in state.queries] == [
        ("golden retriever puppy", True),
        ("my golden retriever puppy named Max", False),
    ]


def test_a_repeated_query_recalls_only_when_there_is_news(still: Parts, clock: ManualClock) -> None:
    """The same query again recalls nothing, until something new was stored."""
    still.remember(*PETS)
    ask(still, "Who feeds him, and when?")
    version = still.store.working(CUBE).version
    clock.advance(1.0)
    ask(still, "Who feeds him and when")
    assert still.store.working(CUBE).version == version
    clock.advance(1.0)
    still.remember("Nina feeds him on Fridays.")
    ask(still, "Who feeds him, and when?")
    working = still.store.working(CUBE)
    assert working.version == version + 1
    assert "Nina feeds him on Fridays." in {item.memory for item in working.items}


def test_the_trigger_interval_forces_a_recall_and_its_time_moves_on(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A recall comes at the latest after query_trigger_interval, counted from the last one each time."""
    config = GeneralSchedulerConfig(query_trigger_interval=60.0)
    with assembled(tmp_path, clock=clock, config=config) as parts:
        parts.remember(*PETS)
        recalled = []
        for _ in range(7):
            ask(parts, "Who feeds him, and when?")
            recalled.append("unchanged" not in logs(parts, "scheduleMemory")[-1].log_content)
            clock.advance(30.0)
        assert recalled == [True, False, True, False, True, False, True]


def test_what_the_turn_itself_wrote_is_not_recalled(still: Parts) -> None:
    """Items that carry the message's turn id take no place; those of other turns do."""
    still.remember("What is the name of the puppy?", turn_id="t2")
    still.remember("What was the name of the puppy?", turn_id="t1")
    ask(still, "What is the name of the puppy?", info={"turn_id": "t2"})
    assert [item.turn_id for item in still.store.working(CUBE).items] == ["t1"]


def test_a_lost_race_is_decided_again(still: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody replaces the set in between, the update starts over on what is there now."""
    ids = still.remember(*PETS)
    original = still.store.apply_once
    tries: list[int] = []

    def raced(*args: object, **kwargs: object) -> object:
        tries.append(1)
        if len(tries) <= 2:
            still.store.apply([ReplaceWorking(CUBE, (WorkingEntry(ids[2]),), None, "somebody else")])
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(still.store, "apply_once", raced)
    ask(still, "golden retriever puppy Max", item_id="x")
    assert len(tries) == 3
    assert still.store.working(CUBE).items[0].memory == PETS[0]
    assert [one.state for one in still.queue.statuses(item_id="x")] == [TaskState.COMPLETED]


def test_a_race_lost_too_often_is_left_to_the_queue(
    still: Parts, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three lost races the message is retried later, not run for ever."""
    still.remember(*PETS)
    original = still.store.apply_once
    tries: list[int] = []

    def raced(*args: object, **kwargs: object) -> object:
        tries.append(1)
        if len(tries) <= 3:
            raise VersionConflict("somebody was faster")
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(still.store, "apply_once", raced)
    ask(still, "golden retriever", item_id="x")
    assert len(tries) == 3
    assert [one.state for one in still.queue.statuses(item_id="x")] == [TaskState.RETRYING]
    clock.advance(2.0)
    still.drain()
    assert [one.state for one in still.queue.statuses(item_id="x")] == [TaskState.COMPLETED]


def test_effects_once_for_a_message_that_runs_twice(still: Parts) -> None:
    """A redelivered message whose effects are committed does nothing and passes its followups on."""
    still.remember(*PETS)
    scheduler = still.scheduler
    batch = [message("query", "the puppy's name?", item_id="q")]
    scheduler.submit_messages(batch)
    runs: list[int] = []
    built_in = scheduler.handlers["query"]

    def twice(messages: list[object]) -> None:
        built_in(messages)  # type: ignore[arg-type]
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("after the commit")

    scheduler.register_handlers({"query": twice})
    still.drain()
    still.clock.advance(2.0)  # type: ignore[attr-defined]
    still.drain()
    assert len(runs) == 2
    assert len(logs(still, "addMessage")) == 1
    assert len(logs(still, "scheduleMemory")) == 1
    assert [one.label for one in still.queue.statuses()].count("mem_update") == 1


def test_consumer_methods_can_be_called_directly(still: Parts) -> None:
    """A documented method called by a program acts once and queues what it chains."""
    still.remember(*PETS)
    still.scheduler._query_message_consumer([message("query", "puppy?")])
    assert len(logs(still, "addMessage")) == 1
    still.drain()
    assert still.store.working(CUBE).items[0].memory in PETS
    still.scheduler._query_message_consumer([])
    still.scheduler._answer_message_consume([message("answer", "Max")])
    still.scheduler._add_message_consumer([message("add", "[]")])
    assert len(logs(still, "addMessage")) == 2


def test_consumer_methods_inside_a_custom_handler_act_once(still: Parts, clock: ManualClock) -> None:
    """A custom handler that calls built-in methods for its message and a relabelled copy, and then
    fails, repeats neither effect when it runs again."""
    still.remember(*PETS)
    scheduler = still.scheduler
    runs: list[int] = []

    def custom(batch: list[object]) -> None:
        scheduler._query_message_consumer(batch)  # type: ignore[arg-type]
        copies = [one.model_copy(update={"label": "mem_update"}) for one in batch]  # type: ignore[attr-defined]
        scheduler._memory_update_consumer(copies)
        runs.append(1)
        if len(runs) < 3:
            raise RuntimeError("later")

    scheduler.register_handlers({"query": custom})
    scheduler.submit_messages(message("query", "golden retriever puppy Max"))
    for _ in range(3):
        still.drain()
        clock.advance(5.0)
    assert len(runs) == 3
    assert len(logs(still, "addMessage")) == 1
    rows = [one for one in still.store.journal(cube_id=CUBE) if one.op == "replace_working"]
    assert len(rows) == len(
        [one for one in logs(still, "scheduleMemory") if "unchanged" not in one.log_content]
    )
    assert len(logs(still, "scheduleMemory")) == 2  # the direct call, and the chained message


def test_the_documented_steps_of_a_turn(still: Parts) -> None:
    """process_session_turn shows what a recall would bring and changes nothing; replace_working_memory
    puts the best of old and new into working memory."""
    still.remember(*PETS)
    old, new = still.scheduler.process_session_turn("Who feeds the puppy?", USER, CUBE)
    assert old == []
    assert PETS[3] in {item.memory for item in new}
    assert still.store.working(CUBE).version == 0
    now = still.scheduler.replace_working_memory(USER, CUBE, None, old, new, query="Who feeds the puppy?")
    assert [item.id for item in now] == [item.id for item in still.store.working(CUBE).items]
    assert {item.id for item in now} <= {item.id for item in new}
    old, new = still.scheduler.process_session_turn(["Who?", "sister Elena feeds the puppy"], USER, CUBE)
    assert (len(old), new) == (len(now), [])
    assert still.scheduler.replace_working_memory(USER, CUBE) == list(still.store.working(CUBE).items)


def test_the_documented_search(still: Parts) -> None:
    """`scheduler.search` and `scheduler.retriever.search` give the same memories."""
    still.remember(*PETS)
    found = still.scheduler.search("allergic to nuts", USER, CUBE, top_k=2)
    again = still.scheduler.retriever.search(
        query="allergic to nuts",
        user_id=USER,
        mem_cube_id=CUBE,
        mem_cube=still.scheduler.current_mem_cube,
        top_k=2,
        method=still.scheduler.search_method,
        search_args={},
    )
    assert [one.id for one in found] == [one.id for one in again]
    assert found[0].memory == PETS[2]


def test_activation_memory_says_that_it_is_not_configured(still: Parts) -> None:
    """Without an activation backend the call changes no memory, does not fail, and says so in a web log."""
    still.remember(*PETS)
    before = still.store.find(ItemFilter()).items
    still.scheduler.update_activation_memory(["a"], label="query", user_id=USER, mem_cube_id=CUBE)
    assert still.store.find(ItemFilter()).items == before
    [(_, log)] = still.store.web_logs()
    assert log.status == "failed" and "unsupported" in log.log_content


def test_web_logs_of_the_process_are_taken_out_as_documented_mappings(still: Parts) -> None:
    """get_web_log_messages empties the buffer; the store keeps every log."""
    still.scheduler.submit_messages([message("query", "hello there"), message("answer", "hello")])
    still.drain()
    taken = still.scheduler.get_web_log_messages()
    assert {entry["label"] for entry in taken} == {"addMessage", "scheduleMemory"}
    assert all(entry["mem_cube_id"] == CUBE and isinstance(entry["timestamp"], str) for entry in taken)
    assert still.scheduler.get_web_log_messages() == []
    assert len(still.store.web_logs()) == len(taken)


def test_a_very_long_query_is_cut_not_refused(still: Parts) -> None:
    """A query longer than recall takes still updates working memory."""
    still.remember(*PETS)
    ask(still, "golden retriever " * 4_000, item_id="x")
    assert [one.state for one in still.queue.statuses(item_id="x")] == [TaskState.COMPLETED]
    assert still.store.working(CUBE).items[0].memory == PETS[0]


def test_activity_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """Query window, keyword counts and the last recall are there again when the store is opened again."""
    with assembled(tmp_path, clock=clock) as parts:
        parts.remember(*PETS)
        ask(parts, "golden retriever")
        before = parts.services.activity.read(parts.store, CUBE, USER)
    with assembled(tmp_path, clock=clock) as parts:
        after = parts.services.activity.read(parts.store, CUBE, USER)
        version = parts.store.working(CUBE).version
        ask(parts, "golden retriever")
        assert parts.store.working(CUBE).version == version  # the repeat is known as one
    assert after == before
    assert after.keyword_counts == {"golden": 1, "retriever": 1}


def test_an_item_of_working_memory_alone_moves_to_long_term(tmp_path: Path, clock: ManualClock) -> None:
    """What was written to working memory only becomes a long-term memory when it loses its place; the
    log's sizes are those of after."""
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=1)) as parts:
        (note,) = parts.remember("Reminder about a golden hamster.", kind=MemoryKind.WORKING)
        parts.store.apply([ReplaceWorking(CUBE, (WorkingEntry(note),), 0, "written")])
        parts.remember("I am allergic to nuts.")
        ask(parts, "allergic to nuts")
        assert [item.memory for item in parts.store.working(CUBE).items] == ["I am allergic to nuts."]
        assert parts.store.get([note])[0].kind is MemoryKind.LONG_TERM
        told = logs(parts, "scheduleMemory")[-1]
        sizes = parts.store.sizes(CUBE)
        assert told.current_memory_sizes["long_term_memory_size"] == sizes.long_term == 2
        assert told.current_memory_sizes["working_memory_size"] == sizes.working == 1


def test_a_query_that_nothing_fits_leaves_an_empty_set(still: Parts) -> None:
    """In an empty cube no set is written; the log says that nothing fits."""
    ask(still, "golden retriever")
    assert still.store.working(CUBE).version == 0
    (told,) = logs(still, "scheduleMemory")
    assert "nothing in memory fits" in told.log_content


class _Reranker:
    """Prefers short texts; fails when told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def rerank(self, query: str, texts: list[str]) -> list[float]:
        if self.error is not None:
            raise self.error
        return [-float(len(text)) for text in texts]


def test_a_reranker_decides_the_places(tmp_path: Path, clock: ManualClock) -> None:
    """With a reranker its scores rank the pool; when it fails, recall's own do, and the log says so."""
    texts = ("A puppy, brown and rather long in its description.", "A puppy.")
    with assembled(tmp_path, clock=clock, reranker=_Reranker()) as parts:
        parts.remember(*texts)
        ask(parts, "brown puppy description")
        assert [item.memory for item in parts.store.working(CUBE).items] == [texts[1], texts[0]]
    (tmp_path / "2").mkdir()
    with assembled(tmp_path / "2", clock=clock, reranker=_Reranker(ModelUnavailable("down"))) as parts:
        parts.remember(*texts)
        ask(parts, "brown puppy description")
        assert parts.store.working(CUBE).items[0].memory == texts[0]
        assert "not reranked: ModelUnavailable" in logs(parts, "scheduleMemory")[-1].log_content
