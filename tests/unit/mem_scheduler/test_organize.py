"""`mem_organize`, by the rows of the store before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.mem_scheduler.derived import WordEmbedder, said, stated
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message
from tests.unit.mem_scheduler.test_handlers import logs

from memos.clock import utc
from memos.errors import VersionConflict
from memos.mem_scheduler.handlers import mem_organize
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.memory.indexer import Indexer
from memos.memory.item import Capacities, ItemStatus, MemoryItem, Source, WorkingEntry
from memos.memory.slots import Fact, fact_fields
from memos.memory.store import ItemFilter, ReplaceWorking, UpdateItem
from memos.testing import ManualClock


@pytest.fixture
def words(tmp_path: Path, clock: ManualClock) -> Iterator[Parts]:
    """With vectors of words, so that rewordings can be told from other facts."""
    embedder = WordEmbedder()
    with assembled(tmp_path, clock=clock, indexer=Indexer(embedder)) as made:
        made.store.bind_embedder(embedder.fingerprint, embedder.dim)
        yield made


def organize(parts: Parts, content: str = '{"scope": "cube"}', **fields: object) -> None:
    parts.clock.advance(1.0)  # type: ignore[attr-defined]
    parts.scheduler.submit_messages(message("mem_organize", content, **fields))
    parts.drain()


def statuses(parts: Parts, *ids: str) -> list[str]:
    """The status of each row itself, whatever its id stands for."""
    found = {item.id: item for item in parts.store.find(ItemFilter(statuses=tuple(ItemStatus))).items}
    return [str(found[one].status) for one in ids]


def row(parts: Parts, item_id: str) -> MemoryItem:
    (found,) = parts.store.find(ItemFilter(statuses=tuple(ItemStatus), ids=(item_id,))).items
    return found


def test_near_duplicates_become_one_and_their_ids_stand_for_it(words: Parts) -> None:
    """Two rewordings are merged: sources united, one row live, the other archived, its id the kept one's."""
    stated(
        words, "a", "Mia adopted a golden retriever.", sources=(Source("item", item_id="r1"),), use_count=2
    )
    stated(words, "b", "Mia has adopted the golden retriever.", sources=(Source("item", item_id="r2"),))
    organize(words, json.dumps(["a", "b"]), task_id="T")
    assert statuses(words, "a", "b") == ["activated", "archived"]
    kept = row(words, "a")
    assert {one.item_id for one in kept.sources} == {"r1", "r2"}
    assert kept.extra["merged_from"] == ["b"]
    assert words.store.get(["b"])[0].id == "a"
    (told,) = logs(words, "mergeMemory")
    assert [one["ref_id"] for one in told.memcube_log_content or []] == ["b", "a"]
    assert (told.memory_len, told.memory_delta) == (1, -1)
    assert told.current_memory_sizes["long_term_memory_size"] == words.store.sizes(CUBE).long_term == 1
    ops = {(one.op, one.item_id) for one in words.store.journal(task_id="T")}
    assert {("update", "a"), ("archive", "b"), ("alias", "b")} <= ops


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Mia is allergic to nuts.", "Mia is not allergic to nuts."),
        ("The flight leaves at 9:40.", "The flight leaves at 9:45."),
        ("The code word is zq0x1.", "The code word is zq0x2."),
        ("米娅对坚果过敏。", "米娅对坚果不过敏。"),
    ],
)
def test_what_only_looks_alike_stays_two(words: Parts, one: str, other: str) -> None:
    """Negations, numbers and rare words keep facts apart, in English and Chinese."""
    stated(words, "a", one)
    stated(words, "b", other)
    organize(words)
    assert statuses(words, "a", "b") == ["activated", "activated"]
    assert logs(words, "mergeMemory") == []


def test_raw_turns_are_never_touched(words: Parts) -> None:
    """The same words said twice stay two raw turns, and naming them in the message changes nothing."""
    ids = words.remember("I adopted a dog.", "I adopted a dog.")
    before = words.store.get(ids)
    organize(words, json.dumps(ids))
    organize(words)
    assert words.store.get(ids) == before
    assert words.store.sizes(CUBE).archived == 0


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("I live in Paris.", "I live in Berlin.", "Berlin"), ("我住在北京。", "我住在上海。", "上海")],
)
def test_a_contradicted_fact_is_superseded_with_its_times(
    words: Parts, clock: ManualClock, old: str, new: str, value: str
) -> None:
    """The older value gets the moment from which the newer one holds, keeps when it was learned, leaves
    recall and working memory; its place there passes on; both turns stay as they were said, the older one
    behind what holds."""
    said(words, old, ids=["r1", "d1"])
    learned = row(words, "d1").created_at
    words.store.apply([ReplaceWorking(CUBE, (WorkingEntry("d1", 0.9),), None, "test")])
    clock.advance(86_400)
    said(words, new, ids=["r2", "d2"])
    organize(words, json.dumps(["d2"]))
    assert statuses(words, "r1", "d1", "r2", "d2") == ["activated", "archived", "activated", "activated"]
    gone = row(words, "d1")
    assert (gone.created_at, gone.valid_until) == (learned, row(words, "d2").happened_at)
    assert gone.extra["superseded_by"] == "d2"
    assert value in row(words, "d2").memory and row(words, "d2").valid_until is None
    assert [item.id for item in words.store.working(CUBE).items] == ["d2"]
    assert row(words, "r1").extra == {"corrected_by": ["d2"]} and row(words, "r2").extra == {}
    assert (row(words, "r1").memory, row(words, "r1").version) == (old, 2)
    found = [item.id for item in words.scheduler.search(old, USER, CUBE, top_k=10)]
    assert found[0] in ("d2", "r2") and "r1" in found[1:]
    assert words.store.get(["d1"])[0].id == "d1"  # history, readable under its own id
    (told,) = logs(words, "archiveMemory")
    assert (told.memory_len, told.memory_delta) == (words.store.sizes(CUBE).user, -1)
    assert words.scheduler.search(gone.memory, USER, CUBE, top_k=10) != []
    assert "d1" not in {one.id for one in words.scheduler.search(gone.memory, USER, CUBE, top_k=10)}


def test_what_is_learned_late_about_the_past_displaces_nothing(words: Parts, clock: ManualClock) -> None:
    """The fact that became true last stays, whatever order they were learned in."""
    said(words, "I live in Berlin.", ids=["r2", "d2"])
    said(words, "I live in Paris.", ids=["r1", "d1"], at_s=-400 * 86_400)
    organize(words)
    assert statuses(words, "d1", "d2") == ["archived", "activated"]
    assert row(words, "d1").valid_until == row(words, "d2").happened_at


def test_an_end_that_is_still_to_come_is_only_noted(words: Parts, clock: ManualClock) -> None:
    """A value that a future one will displace is live until then."""
    now = utc(clock.now())
    later = utc(clock.now() + 30 * 86_400)
    paris, rome = (fact_fields(Fact("Mia", "lives_in", city)) for city in ("Paris", "Rome"))
    stated(words, "a", "Mia lives in Paris.", extra=paris, tags=("slot:lives_in",), happened_at=now)
    stated(words, "b", "Mia lives in Rome.", extra=rome, tags=("slot:lives_in",), happened_at=later)
    organize(words)
    assert statuses(words, "a", "b") == ["activated", "activated"]
    assert row(words, "a").valid_until == later
    version = row(words, "a").version
    organize(words)
    assert row(words, "a").version == version, "organising again changes nothing"


def test_one_users_facts_do_not_touch_anothers(words: Parts) -> None:
    """Facts of two users of a cube, and of two cubes, stand side by side."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    said(words, "I live in Berlin.", ids=["r2", "d2"], user_id="user_2")
    said(words, "I live in Rome.", ids=["r3", "d3"], cube_id="cube_2")
    organize(words)
    organize(words, mem_cube_id="cube_2")
    assert statuses(words, "d1", "d2", "d3") == ["activated"] * 3


def test_organising_is_done_after_one_time(words: Parts) -> None:
    """A second run over the same cube changes no row and tells nothing."""
    stated(words, "a", "Mia adopted a golden retriever.")
    stated(words, "b", "Mia has adopted the golden retriever.")
    organize(words)
    before, told = words.store.find(ItemFilter(statuses=tuple(ItemStatus))).items, len(words.store.web_logs())
    organize(words)
    assert words.store.find(ItemFilter(statuses=tuple(ItemStatus))).items == before
    assert len(words.store.web_logs()) == told


def test_a_whole_cube_is_looked_over_page_by_page(words: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a large cube is chained; duplicates that lie on different pages meet all the same."""
    monkeypatch.setattr(mem_organize, "PAGE_ITEMS", 3)
    stated(words, "first", "Mia adopted a golden retriever.")
    for number in range(8):
        words.clock.advance(1.0)  # type: ignore[attr-defined]
        stated(words, f"n{number}", f"Mia counted {number} birds on day {number}.")
    stated(words, "last", "Mia has adopted the golden retriever.")
    organize(words, item_id="o1")
    runs = [one for one in words.queue.statuses() if one.label == "mem_organize"]
    assert len(runs) == 4 and {one.state for one in runs} == {TaskState.COMPLETED}
    assert sorted(statuses(words, "first", "last")) == ["activated", "archived"]
    assert words.store.sizes(CUBE).long_term == 9


def test_many_changes_are_made_in_several_messages(words: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """No message changes more than its bound; the rest follows until all is done."""
    monkeypatch.setattr(mem_organize, "CHANGES_MAX", 2)
    for number in range(5):
        stated(words, f"a{number}", f"Mia bought {number} red apples.")
        stated(words, f"b{number}", f"Mia has bought the {number} red apples.")
    organize(words)
    assert words.store.sizes(CUBE).long_term == 5
    by_message: dict[str, int] = {}
    for one in words.store.journal(limit=500):
        if one.op == "archive":
            by_message[one.cause.message_key] = by_message.get(one.cause.message_key, 0) + 1
    assert sum(by_message.values()) == 5 and max(by_message.values()) <= 2


def test_what_is_over_capacity_is_archived_least_retained_first(tmp_path: Path, clock: ManualClock) -> None:
    """After the capacity was lowered, used and working memories stay, and a log tells what went."""
    with assembled(tmp_path, clock=clock) as parts:
        ids = []
        for number in range(6):
            clock.advance(86_400)
            ids += parts.remember(f"Note number {number}.", use_count=9 if number == 0 else 0)
        parts.store.apply([ReplaceWorking(CUBE, (WorkingEntry(ids[1]),), None, "test")])
    with assembled(tmp_path, clock=clock, capacities=Capacities(long_term=3)) as parts:
        organize(parts)
        assert statuses(parts, *ids) == [
            "activated", "activated", "archived", "archived", "archived", "activated"
        ]  # fmt: skip
        (told,) = logs(parts, "archiveMemory")
        assert {one["ref_id"] for one in told.memcube_log_content or []} == set(ids[2:5])
        assert (told.memory_len, told.memory_delta) == (3, -3)
        assert {one.reason for one in parts.store.journal() if one.op == "archive"} == {"capacity"}


@pytest.mark.parametrize("content", ["everything", '{"scope": "moon"}', "[1]", '{"ids": ["a"]}', "3"])
def test_a_content_that_asks_for_nothing_known_is_dead_lettered(still: Parts, content: str) -> None:
    """What no retry can mend goes to the dead letters at once, and says what may stand there."""
    still.scheduler.submit_messages(message("mem_organize", content))
    still.drain()
    (letter,) = still.queue.dead.list()
    assert letter.attempts == 0 and "cube" in letter.error


def test_ids_that_are_gone_or_of_another_cube_are_left_out(words: Parts) -> None:
    """Unknown, deleted and foreign ids change nothing and fail nothing."""
    stated(words, "x", "Mia adopted a dog.", cube_id="cube_2")
    stated(words, "y", "Mia adopted a dog.", cube_id="cube_2")
    organize(words, json.dumps(["nope", "x", "y"]), item_id="o")
    assert statuses(words, "x", "y") == ["activated", "activated"]
    assert [one.state for one in words.queue.statuses(item_id="o")] == [TaskState.COMPLETED]


def test_a_crash_after_the_commit_repeats_nothing(words: Parts) -> None:
    """The message runs again, its effects do not; what it chained still runs."""
    stated(words, "a", "Mia adopted a golden retriever.")
    stated(words, "b", "Mia has adopted the golden retriever.")
    built_in = words.scheduler.handlers["mem_organize"]
    runs: list[int] = []

    def crashing(batch: list[object]) -> None:
        built_in(batch)  # type: ignore[arg-type]
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("killed between commit and finish")

    words.scheduler.register_handlers({"mem_organize": crashing})
    organize(words, '["a"]')
    before = words.store.journal(limit=500)
    words.clock.advance(60.0)  # type: ignore[attr-defined]
    words.drain()
    assert len(runs) == 2
    assert words.store.journal(limit=500) == before
    assert len(logs(words, "mergeMemory")) == 1


def test_a_race_with_an_edit_is_decided_again(words: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that was reworded meanwhile is not merged on its old words."""
    stated(words, "a", "Mia adopted a golden retriever.")
    stated(words, "b", "Mia has adopted the golden retriever.")
    original = words.store.apply_once
    tries: list[int] = []

    def raced(*args: object, **kwargs: object) -> object:
        tries.append(1)
        if len(tries) == 1:
            (item,) = words.store.get(["b"])
            changed = words.services.indexer.index([replace(item, memory="Mia adopted a grey cat.")])
            words.store.apply([UpdateItem(changed[0], None, "edited")])
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(words.store, "apply_once", raced)
    organize(words, '["a", "b"]')
    assert len(tries) == 2
    assert statuses(words, "a", "b") == ["activated", "activated"]


def test_a_race_lost_too_often_is_left_to_the_queue(words: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three lost races the message is retried later."""
    stated(words, "a", "Mia adopted a dog.")
    tries: list[int] = []

    def raced(*args: object, **kwargs: object) -> object:
        tries.append(1)
        raise VersionConflict("somebody was faster")

    monkeypatch.setattr(words.store, "apply_once", raced)
    organize(words, '["a"]', item_id="o")
    assert len(tries) == 3
    assert [one.state for one in words.queue.statuses(item_id="o")] == [TaskState.RETRYING]


def test_the_documented_method_acts_when_called_directly(words: Parts) -> None:
    """`_mem_reorganize_message_consumer` works outside the queue too."""
    stated(words, "a", "Mia adopted a golden retriever.")
    stated(words, "b", "Mia has adopted the golden retriever.")
    words.scheduler._mem_reorganize_message_consumer([message("mem_organize", "cube")])
    assert statuses(words, "a", "b").count(str(ItemStatus.ARCHIVED)) == 1
