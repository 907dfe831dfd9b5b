"""Promotion: from working memory to a prefix that the model need not read again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.kept_in_memory import KeptInMemory
from tests.postgres import BOUNDS, schemas_of
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message

from memos.configs.mem_scheduler import GeneralSchedulerConfig
from memos.errors import ActivationMiss, ActivationUnsupported, LeaseLost, ModelUnavailable
from memos.mem_scheduler.monitors.activation import ActivationMonitor
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.memory.activation.block import Prepared
from memos.memory.activation.index import Block, ChatReuse, KeptPrefix
from memos.memory.activation.keeper import PrefixKeeper
from memos.memory.activation.promotion import PromotionRules, expected_queries
from memos.memory.item import ItemStatus, WorkingEntry
from memos.memory.postgres import PostgresStore
from memos.memory.store import IndexedItem, ReplaceWorking, SetStatus, TouchItems, UpdateItem
from memos.retrieval.keywords import analyse
from memos.testing import ManualClock

FACTS = [
    f"Fact {n}: " + f"the harbour of town {n} has a long quay with many old boats. " * 3 for n in range(12)
]
CONFIG = GeneralSchedulerConfig(
    act_mem_update_interval=0.0, enable_activation_memory=True, thread_pool_max_workers=2
)


@pytest.fixture
def backend() -> KeptInMemory:
    return KeptInMemory()


@pytest.fixture(params=["sqlite", "postgres"])
def parts(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, backend: KeptInMemory
) -> Iterator[Parts]:
    with ExitStack() as opened:
        store = None
        if request.param == "postgres":
            address = opened.enter_context(schemas_of("postgres").lent())
            store = PostgresStore(address, clock=clock, bounds=BOUNDS)
        made = opened.enter_context(
            assembled(tmp_path, clock=clock, config=CONFIG, backend=backend, store=store)
        )
        made.remember(*FACTS)
        yield made


def keeper(parts: Parts) -> PrefixKeeper:
    found = parts.services.activation
    assert found is not None
    return found


def work(parts: Parts, *numbers: int, cube_id: str = CUBE) -> None:
    entries = tuple(WorkingEntry(f"{cube_id}-{n}") for n in numbers)
    parts.store.apply([ReplaceWorking(cube_id, entries, None, "test")])


def chat(parts: Parts, times: int = 3, *, user_id: str = USER, cube_id: str = CUBE) -> Prepared:
    """What a chat does with the block."""
    for _ in range(times):
        items = parts.store.working(cube_id).items
        prepared = keeper(parts).blocks.prepare(user_id, (cube_id,), items, language="en", system_prompt="")
        parts.store.note_chat(prepared.layout.namespace, ChatReuse(0, 0))
    return prepared


def promote(parts: Parts, cube_id: str = CUBE) -> None:
    parts.scheduler.submit_messages(message("mem_activate", "go", mem_cube_id=cube_id))
    parts.drain()


def kept(parts: Parts) -> list[KeptPrefix]:
    return parts.store.prefixes()


def told(parts: Parts) -> list[tuple[str | None, str]]:
    found = [log for _, log in parts.store.web_logs() if log.to_memory_type == "ActivationMemory"]
    return [(log.status, log.log_content) for log in found]


def test_working_memory_becomes_a_prefix_and_the_log_says_so(parts: Parts, backend: KeptInMemory) -> None:
    """The prefix holds the block byte for byte; record, log and mark are there together."""
    work(parts, 1, 2, 3, 4)
    shown = chat(parts)
    promote(parts)
    [prefix] = kept(parts)
    assert backend.kept[prefix.id] == shown.layout.text
    assert prefix.item_ids == tuple(f"{CUBE}-{n}" for n in (1, 2, 3, 4)) and prefix.is_sound
    assert [status for status, _ in told(parts)] == ["completed"] and "4 memories built" in told(parts)[0][1]
    [(_, log)] = [one for one in parts.store.web_logs() if one[1].to_memory_type == "ActivationMemory"]
    assert log.from_memory_type == "WorkingMemory" and log.memory_len == 4


@pytest.mark.parametrize(
    ("numbers", "chats", "reason"), [((1,), 3, "short"), ((1, 2, 3, 4), 1, "rare"), ((), 3, "none")]
)
def test_what_is_not_worth_it_is_not_built(
    parts: Parts, backend: KeptInMemory, numbers: tuple[int, ...], chats: int, reason: str
) -> None:
    """Short, rarely asked and empty blocks cost nothing; a rarely asked one is looked at again."""
    rules = PromotionRules(prefix_tokens_min=300)
    object.__setattr__(keeper(parts), "_rules", rules)
    work(parts, *numbers)
    chat(parts, chats)
    promote(parts)
    assert kept(parts) == [] and backend.calls == []
    settled = parts.store.state(CUBE, "activation_done")
    assert settled is not None and settled["settled"] is (reason != "rare")


def test_the_same_sources_are_not_prepared_twice(parts: Parts, backend: KeptInMemory) -> None:
    """Neither a second round nor a use of a memory makes anything anew."""
    work(parts, 1, 2, 3, 4)
    chat(parts)
    promote(parts)
    parts.store.apply([TouchItems((f"{CUBE}-1",), "used")])
    promote(parts)
    assert backend.calls.count("prepare") == 1 and "extend" not in backend.calls


def test_a_changed_block_is_extended_and_the_old_prefix_removed(parts: Parts, backend: KeptInMemory) -> None:
    """A newcomer extends what is there; the replaced prefix goes from the record and from the runtime."""
    work(parts, 1, 2, 3, 4)
    chat(parts)
    promote(parts)
    old = kept(parts)[0].id
    work(parts, 5, 1, 2, 3, 4)
    shown = chat(parts)
    promote(parts)
    [new] = kept(parts)
    assert "extend" in backend.calls and backend.dropped == [old]
    assert backend.kept == {new.id: shown.layout.text}
    assert parts.store.prefixes(doomed=True) == []


def test_little_left_of_a_prefix_is_built_anew(parts: Parts, backend: KeptInMemory) -> None:
    """Below the share that makes extending pay, the prefix is built from the beginning."""
    work(parts, 1, 2, 3, 4, 5, 6, 7, 8)
    chat(parts)
    promote(parts)
    parts.store.apply([SetStatus((f"{CUBE}-1",), ItemStatus.ARCHIVED, "t")])
    chat(parts)
    promote(parts)
    assert backend.calls.count("prepare") == 2 and "extend" not in backend.calls


def test_a_query_makes_promotion_due_and_it_runs_behind_it(parts: Parts, backend: KeptInMemory) -> None:
    """mem_update chains the task with the working set; nothing of it happens in the chat."""
    work(parts, 1, 2, 3, 4)
    chat(parts, 6)
    backend.calls.clear()
    parts.clock.advance(1.0)  # type: ignore[attr-defined]
    parts.scheduler.submit_messages(message("mem_update", "What about the harbour of town 7 and its quay?"))
    parts.drain()
    assert "prepare" in backend.calls and kept(parts)


def test_each_reader_has_a_prefix(parts: Parts, backend: KeptInMemory) -> None:
    """One task looks after all readers of its cube; nobody's prefix stands for another's."""
    work(parts, 1, 2, 3, 4)
    chat(parts)
    chat(parts, user_id="other")
    promote(parts)
    assert len({one.namespace for one in kept(parts)}) == len(kept(parts)) == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelUnavailable("no such host"), "unreachable"),
        (ActivationUnsupported("sliding window"), "unsupported"),
        (ActivationMiss("damaged", "bad"), "damaged"),
    ],
)
def test_a_failure_is_told_and_the_task_is_done(
    parts: Parts, backend: KeptInMemory, error: Exception, reason: str
) -> None:
    """Web log and metric say why; the task is completed, nothing is on record, and the next round mends it."""

    def fail(name: str) -> None:
        if name == "prepare":
            raise error

    work(parts, 1, 2, 3, 4)
    chat(parts)
    backend.before = fail
    parts.scheduler.submit_messages(message("mem_activate", "go", item_id="x"))
    parts.drain()
    assert [one.state for one in parts.queue.statuses(item_id="x")] == [TaskState.COMPLETED]
    assert kept(parts) == [] and told(parts)[0][0] == "failed" and reason in told(parts)[0][1]
    backend.before = lambda name: None
    promote(parts)
    assert len(kept(parts)) == 1


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["prepare", "made", "commit", "drop"])
def test_a_crash_inside_a_step_leaves_one_sound_prefix(
    tmp_path: Path, clock: ManualClock, backend: KeptInMemory, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step is cut off, the repeat ends with one record, one prefix in the runtime and one log."""
    with assembled(tmp_path, clock=clock, config=CONFIG, backend=backend) as parts:
        parts.remember(*FACTS)
        work(parts, 1, 2, 3, 4)
        chat(parts)
        promote(parts)
        work(parts, 5, 1, 2, 3, 4)
        chat(parts)
        armed = [True]

        def die(name: str) -> None:
            at = {"prepare": "extend", "drop": "drop"}.get(step)
            if name == at and armed:
                armed.clear()
                raise Killed

        def dying(*args: object, **kwargs: object) -> object:
            if armed:
                armed.clear()
                raise LeaseLost("the process stopped here")
            return apply_once(*args, **kwargs)  # type: ignore[arg-type]

        backend.before = die
        apply_once = parts.store.apply_once
        if step in ("made", "commit"):
            monkeypatch.setattr(parts.store, "apply_once", dying)
        task = message("mem_activate", "go", redis_message_id="1-1")
        with contextlib.suppress(Killed, LeaseLost):
            parts.scheduler._activation_memory_consumer([task])
        assert not armed
    with assembled(tmp_path, clock=clock, config=CONFIG, backend=backend) as parts:
        promote(parts)
        [prefix] = kept(parts)
        assert len(prefix.item_ids) == 5 and prefix.is_sound
        assert set(backend.kept) == {prefix.id}
        assert parts.store.prefixes(doomed=True) == []
        assert sum("5 memories" in text for _, text in told(parts)) == 1


def test_a_repeat_of_the_task_does_nothing_twice(parts: Parts, backend: KeptInMemory) -> None:
    """The mark of the message holds: a second delivery prepares nothing and writes no log."""
    work(parts, 1, 2, 3, 4)
    chat(parts)
    promote(parts)
    calls, logs = len(backend.calls), len(told(parts))
    promote(parts)
    assert (len([c for c in backend.calls if c != "drop"]), len(told(parts))) == (calls, logs)


ONE = f"{CUBE}-2"


def _edit(parts: Parts, **changes: object) -> None:
    item = replace(parts.store.get([ONE])[0], **changes)  # type: ignore[arg-type]
    parts.store.apply([UpdateItem(IndexedItem(item, analyse(item.memory)), None, "test")])


CHANGES: dict[str, Callable[[Parts], object]] = {
    "edit": lambda p: _edit(p, memory="Another text."),
    "correction": lambda p: _edit(p, extra={"corrected_by": ["x"]}),
    "archive": lambda p: p.store.apply([SetStatus((ONE,), ItemStatus.ARCHIVED, "t")]),
    "quarantine": lambda p: p.store.apply([SetStatus((ONE,), ItemStatus.QUARANTINED, "t")]),
    "delete": lambda p: p.store.apply([SetStatus((ONE,), ItemStatus.DELETED, "t")]),
    "erase": lambda p: p.store.erase(USER),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_ends_exactly_the_prefixes_that_hold_the_memory(
    parts: Parts, backend: KeptInMemory, change: str
) -> None:
    """In the transaction of the change: the prefix with the memory holds only up to it; others stay sound."""
    parts.remember(*FACTS, cube_id="cube_2", user_id="other")
    work(parts, 1, 2, 3, 4)
    work(parts, 1, 2, 3, 4, cube_id="cube_2")
    chat(parts)
    chat(parts, user_id="other", cube_id="cube_2")
    promote(parts)
    promote(parts, "cube_2")
    CHANGES[change](parts)
    mine = [one for one in (*kept(parts), *parts.store.prefixes(doomed=True)) if ONE in one.item_ids]
    theirs = [one for one in kept(parts) if ONE not in one.item_ids]
    assert len(mine) == 1 and len(theirs) == 1 and theirs[0].is_sound
    assert mine[0].sound <= 1 and not mine[0].is_sound and bool(mine[0].doomed) is (change == "erase")
    keeper(parts).sweep()
    gone = change in ("quarantine", "delete", "erase")
    assert (mine[0].id in backend.kept) is not gone, "what holds deleted text leaves the runtime at once"
    assert theirs[0].id in backend.kept


def test_a_memory_that_changes_while_its_prefix_is_made_is_not_used(
    parts: Parts, backend: KeptInMemory
) -> None:
    """The record is unsound from that memory on, though the change came before it was written."""

    def change(name: str) -> None:
        if name == "prepare":
            _edit(parts, memory="Edited meanwhile.")

    work(parts, 1, 2, 3, 4)
    chat(parts)
    backend.before = change
    promote(parts)
    [prefix] = kept(parts)
    assert prefix.sound == 1 and not prefix.is_sound


def test_the_documented_method_promotes_now(parts: Parts, backend: KeptInMemory) -> None:
    """update_activation_memory takes items, ids and texts of the cube, leaves out what is none of its memories,
    and does not ask whether it is worth it."""
    item = parts.store.get([f"{CUBE}-7"])[0]
    parts.scheduler.update_activation_memory(
        new_memories=[item, f"{CUBE}-8", FACTS[9], FACTS[10], FACTS[11], "a text of nobody"],
        label="query",
        user_id=USER,
        mem_cube_id=CUBE,
        mem_cube=None,
    )
    [prefix] = kept(parts)
    assert prefix.item_ids == tuple(f"{CUBE}-{n}" for n in (7, 8, 9, 10, 11))


def test_another_model_is_not_given_the_old_prefix(parts: Parts, backend: KeptInMemory) -> None:
    """After a change of the model the next round builds anew and the old one goes."""
    work(parts, 1, 2, 3, 4)
    chat(parts)
    promote(parts)
    backend.model = "two"
    promote(parts)
    [prefix] = kept(parts)
    assert prefix.fingerprint == "two"


def test_expected_queries_follow_what_was_seen() -> None:
    """As many chats as came between changes, at least those since the last."""
    block = Block("n", "u", ("c",), "en", chats=12, changes=3, chats_since_change=1)
    assert expected_queries(block) == 3.0
    assert expected_queries(replace(block, chats_since_change=7)) == 7.0


def test_a_change_within_the_interval_is_put_off_not_lost(tmp_path: Path, clock: ManualClock) -> None:
    """The refresh is marked for when the interval ends, once."""
    config = GeneralSchedulerConfig(act_mem_update_interval=100.0, enable_activation_memory=True)
    with assembled(tmp_path, clock=clock, config=config, backend=KeptInMemory()) as parts:
        monitor = ActivationMonitor(100.0)
        first = monitor.mark(parts.store, CUBE, working_version=1, at=1_000.0)
        assert first is not None and first.delay_s == 0
        parts.store.apply([first.change])
        second = monitor.mark(parts.store, CUBE, working_version=2, at=1_030.0)
        assert second is not None and second.delay_s == 70.0
        parts.store.apply([second.change])
        assert monitor.mark(parts.store, CUBE, working_version=3, at=1_040.0) is None
        assert monitor.mark(parts.store, CUBE, working_version=3, at=1_101.0) is not None
