"""Effects once: marks, followups and web logs, in the transaction of the change."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from memos.errors import InvalidInput, ItemNotFound, LeaseLost
from memos.memory.item import ItemStatus
from memos.memory.store import Applied, Cause, Followup, ItemFilter, MemoryStore, SetStatus, TouchItems


def chained(make: Any, *keys: str, parent: str = "P") -> list[Followup]:
    return [Followup(key, parent, make.message(item_id=key), delay_s=float(n)) for n, key in enumerate(keys)]


def keys(followups: Any) -> list[str]:
    return [followup.key for followup in followups]


def test_a_repeat_changes_nothing(store: MemoryStore, make: Any) -> None:
    """The second call with one key keeps data, logs, journal and seq, and says it is not fresh."""
    first = store.apply_once("P", [make.add("a"), TouchItems(("a",), "used")], logs=[make.log()])
    assert first == Applied(fresh=True, seqs={"cube": 1})
    before = (store.get(["a"]), store.journal(), store.web_logs(), store.seq("cube"))
    again = store.apply_once("P", [make.add("a"), TouchItems(("a",), "used")], logs=[make.log()])
    assert again == Applied(fresh=False)
    assert (store.get(["a"]), store.journal(), store.web_logs(), store.seq("cube")) == before
    assert store.was_applied("P")
    assert not store.was_applied("Q")


def test_a_guard_that_refuses_leaves_nothing(store: MemoryStore, make: Any) -> None:
    """What the guard raises comes out, no change and no mark stays, and a later call is fresh."""

    def refuse() -> None:
        raise LeaseLost("too late")

    with pytest.raises(LeaseLost):
        store.apply_once("P", [make.add("a")], followups=chained(make, "F"), logs=[make.log()], guard=refuse)
    assert not store.was_applied("P")
    assert (store.pending_followups(), store.web_logs(), store.seq("cube")) == ([], [], 0)
    assert store.apply_once("P", [make.add("a")]).fresh


def test_a_failed_call_leaves_no_mark(store: MemoryStore, make: Any) -> None:
    """When a change fails, mark, followups and logs are gone with it, and the call may be repeated."""
    with pytest.raises(ItemNotFound):
        store.apply_once(
            "P",
            [make.add("a"), TouchItems(("nope",), "r")],
            followups=chained(make, "F"),
            logs=[make.log()],
        )
    assert not store.was_applied("P")
    assert store.pending_followups() == []
    assert store.web_logs() == []
    assert store.find(ItemFilter()).total == 0
    assert store.apply_once("P", [make.add("a")]).fresh


def test_followups_come_back_until_they_are_ticked(store: MemoryStore, make: Any) -> None:
    """A repeat returns the followups that have not run, as they were given, in their order."""
    given = chained(make, "F1", "F2", "F3")
    assert store.apply_once("P", [], followups=given).followups == tuple(given)
    assert store.apply_once("P", []).followups == tuple(given)
    assert store.apply_once("F2", [], parent_key="P").fresh
    assert keys(store.apply_once("P", []).followups) == ["F1", "F3"]
    store.tick(["F1"])
    assert keys(store.apply_once("P", []).followups) == ["F3"]
    assert keys(store.pending_followups("P")) == ["F3"]
    store.tick(["F3", "unknown"])
    assert store.pending_followups() == []


def test_a_followup_keeps_every_field_of_its_message(store: MemoryStore, make: Any) -> None:
    """Text, history, context and times of a chained message survive the outbox."""
    message = make.message(
        session_id="s",
        user_name="Ann 狗",
        info={"n": 1, "nested": {"a": [True, None]}},
        task_id="T",
        api_path="/product/add",
        chat_history=[{"role": "user", "content": "hi"}],
        user_context={"user_id": "ann", "readable_cube_ids": ["a"]},
    )
    store.apply_once("P", [], followups=[Followup("F", "P", message, 1.5)])
    assert store.pending_followups() == [Followup("F", "P", message, 1.5)]


def test_a_failing_followup_does_not_tick(store: MemoryStore, make: Any) -> None:
    """The tick of a followup is undone with the rest of its transaction."""
    store.apply_once("P", [], followups=chained(make, "F"))
    with pytest.raises(ItemNotFound):
        store.apply_once("F", [TouchItems(("nope",), "r")], parent_key="P")
    assert keys(store.pending_followups("P")) == ["F"]


def test_a_followup_must_name_its_parent(store: MemoryStore, make: Any) -> None:
    """A followup of another parent, or with an impossible delay, is refused with everything else."""
    for followup in (
        Followup("F", "other", make.message()),
        Followup("F", "P", make.message(), -1.0),
        Followup("F", "P", make.message(), float("nan")),
    ):
        with pytest.raises(InvalidInput, match="'F'"):
            store.apply_once("P", [make.add("a")], followups=[followup])
    with pytest.raises(InvalidInput, match="message_key"):
        store.apply_once("", [make.add("a")])
    assert store.find(ItemFilter()).total == 0


def test_all_pending_followups_are_listed_at_start(store: MemoryStore, open_store: Any, make: Any) -> None:
    """Another process sees the open followups of all parents, oldest first."""
    store.apply_once("P", [], followups=chained(make, "F1", "F2"))
    store.apply_once("Q", [], followups=chained(make, "G1", parent="Q"))
    store.tick(["F1"])
    assert keys(open_store().pending_followups()) == ["F2", "G1"]


def test_sweeping_removes_settled_marks_and_ticked_rows(store: MemoryStore, make: Any) -> None:
    """A sweep takes marks and ticked outbox rows of the named keys and counts the marks."""
    store.apply_once("P", [], followups=chained(make, "F", "G"))
    store.apply_once("F", [], parent_key="P")
    assert store.marks(limit=10) == [("P", ""), ("F", "P")]
    assert store.marks(limit=1) == [("P", "")]
    assert store.sweep(["F", "unknown"]) == 1
    assert store.marks(limit=10) == [("P", "")]
    assert store.sweep(["P", "G"]) == 1
    assert keys(store.pending_followups()) == ["G"]  # not ticked: it still has to run
    assert store.sweep([]) == 0


def test_many_keys_in_one_sweep(store: MemoryStore) -> None:
    """Hundreds of marks are swept in one call."""
    names = [f"K{n}" for n in range(602)]
    for name in names:
        store.apply_once(name, [])
    assert store.sweep(names) == len(names)
    assert store.marks(limit=1) == []


def test_racing_deliveries_take_effect_once(store: MemoryStore, open_store: Any, make: Any) -> None:
    """Of many threads and processes that apply one key exactly one is fresh."""
    store.apply([make.add("a")])
    stores = [store, open_store(), open_store()]
    fresh: list[bool] = []
    barrier = threading.Barrier(9)

    def deliver(n: int) -> None:
        barrier.wait()
        fresh.append(stores[n % 3].apply_once("P", [TouchItems(("a",), "used")]).fresh)

    threads = [threading.Thread(target=deliver, args=(n,)) for n in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fresh) == [False] * 8 + [True]
    assert store.get(["a"])[0].use_count == 1


def test_web_logs_are_kept_newest_first_and_found(store: MemoryStore, make: Any) -> None:
    """Logs come back as given, newest first, by cube, user, label and trace, page by page."""
    first = make.log("addMemory", trace_id="t1", memory_len=3, memory_delta=1, metadata=[{"a": [1]}])
    second = make.log("updateMemory", user_id="bob", trace_id="t2")
    third = make.log("addMemory", mem_cube_id="other", trace_id="t2")
    store.apply([make.add("a")], logs=[first, second])
    store.apply_once("P", [], logs=[third])
    assert [log for _, log in store.web_logs()] == [third, second, first]
    assert [log for _, log in store.web_logs(cube_id="cube")] == [second, first]
    assert [log for _, log in store.web_logs(user_id="ann")] == [third, first]
    assert [log for _, log in store.web_logs(label="addMemory")] == [third, first]
    assert [log for _, log in store.web_logs(trace_id="t2", user_id="bob")] == [second]
    ((number, newest),) = store.web_logs(limit=1)
    assert newest == third
    assert [log for _, log in store.web_logs(before=number)] == [second, first]


def test_web_logs_are_bounded(open_store: Any, make: Any) -> None:
    """Over the bound the oldest logs leave."""
    store = open_store(web_logs_max=3)
    for n in range(5):
        store.apply([], logs=[make.log(log_content=str(n))])
    store.apply([], logs=[make.log(log_content=str(n)) for n in range(5, 7)])
    assert [log.log_content for _, log in store.web_logs()] == ["6", "5", "4"]


def test_the_cause_stands_in_every_journal_row(store: MemoryStore, make: Any) -> None:
    """Journal rows name message, task, label, trace and user, and are found by them."""
    cause = Cause("P", "T", "add", "trace", "ann")
    store.apply_once("P", [make.add("a", "b")], cause=cause)
    store.apply([SetStatus(("a",), ItemStatus.ARCHIVED, "r")], cause=Cause(task_id="U"))
    store.apply_once("Q", [TouchItems(("b",), "r")])
    assert [row.cause for row in store.journal(message_key="P")] == [cause, cause]
    assert [row.item_id for row in store.journal(task_id="T")] == ["b", "a"]
    assert [row.op for row in store.journal(task_id="U")] == ["archive"]
    assert [row.op for row in store.journal(message_key="Q")] == ["touch"]
