"""Every move between kinds: the row, the journal and the log; and when activation memory is due."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kept_in_memory import KeptInMemory
from tests.unit.mem_scheduler.derived import stated
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message
from tests.unit.mem_scheduler.test_handlers import PETS, ask, logs

from memos.configs.mem_scheduler import GeneralSchedulerConfig
from memos.errors import ConfigError, InvalidInput, ItemNotFound
from memos.mem_scheduler.monitors.activation import ActivationMonitor
from memos.memory.item import Capacities, MemoryKind, WorkingEntry
from memos.memory.store import ReplaceWorking
from memos.testing import ManualClock


@pytest.mark.parametrize("to_kind", ["UserMemory", "PreferenceMemory"])
def test_a_move_changes_the_row_and_is_journaled_and_told(still: Parts, to_kind: str) -> None:
    """The kind, the sizes, the journal (`convert`) and a `scheduleMemory` log with both kinds agree."""
    stated(still, "a", "Mia lives in Rome.")
    moved = still.scheduler.move_memory("a", to_kind, "it is a fact about her", USER)
    assert (moved.kind, moved.version) == (MemoryKind(to_kind), 2)
    sizes = still.store.sizes(CUBE)
    assert (sizes.long_term, sizes.user + sizes.preference) == (0, 1)
    (row,) = still.store.journal(item_id="a", limit=1)
    assert (row.op, row.reason) == ("convert", "it is a fact about her")
    (told,) = logs(still, "scheduleMemory")
    assert (told.from_memory_type, told.to_memory_type) == ("LongTermMemory", to_kind)
    assert (told.memory_len, told.memory_delta) == (1, 1)
    assert told.current_memory_sizes["long_term_memory_size"] == 0
    assert still.sink.labels() == ["scheduleMemory"]


@pytest.mark.parametrize(
    ("to_kind", "error"),
    [("LongTermMemory", "already"), ("ActivationMemory", "no move"), ("Moon", "no area")],
)
def test_a_move_that_is_not_allowed_changes_nothing(still: Parts, to_kind: str, error: str) -> None:
    """What leads nowhere is refused by name."""
    item = stated(still, "a", "Mia lives in Rome.")
    with pytest.raises(InvalidInput, match=error):
        still.scheduler.move_memory("a", to_kind, "why not")
    with pytest.raises(ItemNotFound):
        still.scheduler.move_memory("nope", "UserMemory", "why not")
    assert still.store.get(["a"])[0].kind is item.kind
    assert still.store.web_logs() == []


def test_entering_and_leaving_working_memory_tell_both_kinds(tmp_path: Path, clock: ManualClock) -> None:
    """Each row of the log says from which kind an item came in and to which it went home; one that was
    written to working memory alone becomes a long-term memory, with its reason in the journal."""
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=1)) as parts:
        parts.remember(PETS[1], kind=MemoryKind.USER)
        stated(parts, "w", "Only for now: a lamp.", kind=MemoryKind.WORKING, raw=True)
        parts.store.apply([ReplaceWorking(CUBE, (WorkingEntry("w"),), None, "test")])
        ask(parts, "What treats does Max love? peanut butter")
        (told,) = logs(parts, "scheduleMemory")
        moves = {
            row["type"]: (row["from_memory_type"], row["to_memory_type"])
            for row in told.memcube_log_content or []
        }
        assert moves == {
            "added": ("UserMemory", "WorkingMemory"),
            "removed": ("WorkingMemory", "LongTermMemory"),
        }
        assert parts.store.get(["w"])[0].kind is MemoryKind.LONG_TERM
        (row,) = [one for one in parts.store.journal(item_id="w") if one.op == "convert"]
        assert row.reason == "does not bear on the query"
        assert parts.store.get([f"{CUBE}-0"])[0].kind is MemoryKind.USER
        assert told.current_memory_sizes["long_term_memory_size"] == parts.store.sizes(CUBE).long_term == 1


def update(parts: Parts, text: str, cube_id: str = CUBE) -> None:
    parts.clock.advance(1.0)  # type: ignore[attr-defined]
    parts.scheduler.submit_messages(message("mem_update", text, mem_cube_id=cube_id))
    parts.drain()


def marks(parts: Parts, cube_id: str = CUBE) -> int:
    return ActivationMonitor(0).read(parts.store, cube_id).marks


def test_activation_is_due_once_an_interval_for_each_cube(tmp_path: Path, clock: ManualClock) -> None:
    """A refresh is marked when working memory changed and the interval is over: each cube by its own
    clock, and known after a restart."""
    config = GeneralSchedulerConfig(act_mem_update_interval=100.0, enable_activation_memory=True)
    with assembled(tmp_path, clock=clock, config=config, backend=KeptInMemory()) as parts:
        for cube_id in (CUBE, "cube_2"):
            parts.remember(*PETS, cube_id=cube_id)
        update(parts, "golden retriever Max")
        assert (marks(parts), marks(parts, "cube_2")) == (1, 0)
        update(parts, "Who is allergic to nuts?")
        assert marks(parts) == 2, "the next refresh is marked for when the interval is over"
        update(parts, "Who walks with Priya?")
        assert marks(parts) == 2, "one refresh is on its way"
        update(parts, "golden retriever Max", "cube_2")
        assert marks(parts, "cube_2") == 1, "a busy cube puts off no other"
    with assembled(tmp_path, clock=clock, config=config, backend=KeptInMemory()) as parts:
        update(parts, "Does Elena feed the puppy on Tuesdays?")
        assert marks(parts) == 2, "known after a restart"
        clock.advance(200.0)
        update(parts, "peanut butter treats for Max and Elena")
        assert marks(parts) == 3
        state = ActivationMonitor(0).read(parts.store, CUBE)
        assert (state.marked_at, state.working_version) == (clock.now(), parts.store.working(CUBE).version)


def test_an_unchanged_working_memory_is_not_due(tmp_path: Path, clock: ManualClock) -> None:
    """However long ago the last refresh is, the same sources need none."""
    config = GeneralSchedulerConfig(act_mem_update_interval=0.0, enable_activation_memory=True)
    with assembled(tmp_path, clock=clock, config=config, backend=KeptInMemory()) as parts:
        parts.remember(*PETS)
        update(parts, "Who feeds him, and when?")
        clock.advance(1_000.0)
        update(parts, "Who feeds him, and when?")
        assert marks(parts) == 1


def test_without_activation_memory_nothing_is_marked(still: Parts) -> None:
    """By default there is no activation memory and no state of it."""
    still.remember(*PETS)
    update(still, "golden retriever Max")
    assert still.store.state(CUBE, "activation") is None


def test_an_impossible_interval_is_refused() -> None:
    """A negative interval names itself."""
    with pytest.raises(ConfigError, match="act_mem_update_interval=-1"):
        ActivationMonitor(-1)
