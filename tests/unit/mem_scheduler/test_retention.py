"""Forgetting by the housekeeper and `mem_organize`, under a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.mem_scheduler.derived import stated
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message
from tests.unit.mem_scheduler.test_handlers import logs

from memos.clock import utc
from memos.errors import ConfigError
from memos.mem_scheduler.handlers import forget
from memos.mem_scheduler.monitors.retention import RetentionRules
from memos.memory.item import ItemStatus, MemoryKind, ReadState, WorkingEntry
from memos.memory.store import ItemFilter, ReplaceWorking
from memos.testing import ManualClock

DAY_S = 86_400.0
FADING = RetentionRules(threshold=0.05)


def archived(parts: Parts) -> set[str]:
    return {
        item.id for item in parts.store.find(ItemFilter(statuses=(ItemStatus.ARCHIVED,)), limit=500).items
    }


def look(parts: Parts) -> None:
    parts.scheduler.submit_messages(message("mem_organize", '{"scope": "forget"}'))
    parts.drain()


def test_what_fades_is_archived_with_journal_and_log(tmp_path: Path, clock: ManualClock) -> None:
    """After a year, unused episodes are archived; used ones, facts, allergies, what stands in working
    memory and what waits to be read stay; nothing is deleted and each goes with its record."""
    with assembled(tmp_path, clock=clock, retention=FADING) as parts:
        unused, used, working, due = (
            parts.remember("Saw a heron.", extra={}),
            parts.remember("Met Ann.", use_count=9),
            parts.remember("Bought a lamp."),
            parts.remember("Said a lot.", read=ReadState.DUE),
        )
        stated(parts, "home", "Mia lives in Rome.", kind=MemoryKind.USER)
        stated(parts, "nuts", "Mia is allergic to nuts.", tags=("allergy",))
        parts.store.apply([ReplaceWorking(CUBE, (WorkingEntry(working[0]),), None, "test")])
        clock.advance(200 * DAY_S)
        look(parts)
        assert archived(parts) == set()
        clock.advance(165 * DAY_S)
        look(parts)
        assert archived(parts) == set(unused)
        live = {item.id for item in parts.store.find(ItemFilter()).items}
        assert live == {*used, *working, *due, "home", "nuts"}
        (row,) = [one for one in parts.store.journal(item_id=unused[0]) if one.op == "archive"]
        assert row.reason.startswith("decay: retention 0.017") and row.cause.label == "mem_organize"
        (told,) = logs(parts, "archiveMemory")
        assert [one["ref_id"] for one in told.memcube_log_content or []] == unused
        assert (told.memory_len, told.memory_delta) == (parts.store.sizes(CUBE).long_term, -1)
        assert parts.store.get(unused)[0].memory == "Saw a heron."


def test_a_use_begins_the_time_anew(tmp_path: Path, clock: ManualClock) -> None:
    """A memory that an answer used is kept for longer than one that nobody used."""
    with assembled(tmp_path, clock=clock, retention=FADING) as parts:
        one, other = parts.remember("Saw a heron.", "Saw a stork.")
        clock.advance(250 * DAY_S)
        parts.scheduler.submit_messages(message("answer", "A heron.", info={"memory_ids": [one]}))
        parts.drain()
        clock.advance(250 * DAY_S)
        look(parts)
        assert archived(parts) == {other}


def test_what_is_too_old_goes_whatever_its_use(tmp_path: Path, clock: ManualClock) -> None:
    """With a time to live, age alone decides."""
    with assembled(tmp_path, clock=clock, retention=RetentionRules(ttl_days=30)) as parts:
        (old,) = parts.remember("Saw a heron.", use_count=50)
        clock.advance(20 * DAY_S)
        (new,) = parts.remember("Saw a stork.")
        clock.advance(15 * DAY_S)
        look(parts)
        assert archived(parts) == {old}
        assert parts.store.get([new])[0].live
        (row,) = [one for one in parts.store.journal() if one.op == "archive"]
        assert row.reason == "ttl: learned 35 days ago, kept for 30"


def test_a_fact_whose_end_has_come_is_archived(tmp_path: Path, clock: ManualClock) -> None:
    """A derived fact goes when the time until which it held is over, not before."""
    with assembled(tmp_path, clock=clock, retention=FADING) as parts:
        until = utc(clock.now() + 10 * DAY_S)
        stated(parts, "a", "Mia lives in Rome.", kind=MemoryKind.USER, valid_until=until)
        clock.advance(9 * DAY_S)
        look(parts)
        assert archived(parts) == set()
        clock.advance(2 * DAY_S)
        look(parts)
        assert archived(parts) == {"a"}


def test_by_default_nothing_is_ever_forgotten(still: Parts, clock: ManualClock) -> None:
    """Without rules no look is asked for, and one asked for by hand archives nothing, however old."""
    still.remember("Saw a heron.")
    clock.advance(100 * 365 * DAY_S)
    still.scheduler.keep_house()
    assert still.drain() == 0
    look(still)
    assert archived(still) == set()


def test_the_housekeeper_asks_once_an_interval_for_each_cube(tmp_path: Path, clock: ManualClock) -> None:
    """A look comes when the interval is over and not before, for every cube, also after a restart."""
    rules = RetentionRules(threshold=0.05, interval_s=3_600.0)
    with assembled(tmp_path, clock=clock, retention=rules) as parts:
        parts.remember("Saw a heron.")
        parts.remember("Saw a stork.", cube_id="cube_2", user_id="user_2")
        looked = []
        for _ in range(7):
            parts.scheduler.keep_house()
            looked.append(parts.drain())
            clock.advance(1_200.0)
        assert looked == [2, 0, 0, 2, 0, 0, 2]
        asked = [one for one in parts.queue.statuses() if one.label == "mem_organize"]
        assert {(one.user_id, one.mem_cube_id) for one in asked} == {(USER, CUBE), ("user_2", "cube_2")}
    with assembled(tmp_path, clock=clock, retention=rules) as parts:
        parts.scheduler.keep_house()
        assert parts.drain() == 0, "the last look is 20 minutes ago, and the store knows it"
        clock.advance(2_400.0)
        parts.scheduler.keep_house()
        assert parts.drain() == 2


def test_a_large_cube_is_looked_over_page_by_page(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message looks at a page; together they see everything, and the look is recorded at the end."""
    monkeypatch.setattr(forget, "PAGE_ITEMS", 4)
    with assembled(tmp_path, clock=clock, retention=RetentionRules(ttl_days=1)) as parts:
        ids = []
        for number in range(10):
            clock.advance(1.0)
            ids += parts.remember(f"Note {number}.")
        clock.advance(2 * DAY_S)
        parts.scheduler.keep_house()
        assert parts.scheduler.run_once() == 1
        assert parts.store.state(CUBE, "retention") is None
        assert len(archived(parts)) == 4
        parts.drain()
        assert archived(parts) == set(ids)
        assert parts.store.state(CUBE, "retention") == {"looked_at": clock.now()}


def test_a_crash_after_the_commit_repeats_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """A look that runs twice archives and tells once."""
    with assembled(tmp_path, clock=clock, retention=RetentionRules(ttl_days=1)) as parts:
        parts.remember("Saw a heron.")
        clock.advance(2 * DAY_S)
        built_in = parts.scheduler.handlers["mem_organize"]
        runs: list[int] = []

        def crashing(batch: list[object]) -> None:
            built_in(batch)  # type: ignore[arg-type]
            runs.append(1)
            if len(runs) == 1:
                raise RuntimeError("killed between commit and finish")

        parts.scheduler.register_handlers({"mem_organize": crashing})
        look(parts)
        rows = parts.store.journal()
        clock.advance(60.0)
        parts.drain()
        assert (len(runs), parts.store.journal()) == (2, rows)
        assert len(logs(parts, "archiveMemory")) == 1


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.0}, {"threshold": -0.1}, {"ttl_days": -1.0}, {"interval_s": 0.0}]
)
def test_impossible_rules_are_refused_by_name(wrong: dict[str, float]) -> None:
    """A rule that cannot hold names itself and its value."""
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"retention_{name}"):
        RetentionRules(**wrong)
