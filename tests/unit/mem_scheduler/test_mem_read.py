"""`mem_read` by the rows it leaves: what is derived, confirmed, superseded, and what stays as it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message

from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.extract import Derivation, derive
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, ReadState, WorkingEntry
from memos.memory.slots import fact_of
from memos.memory.store import ItemFilter, ReplaceWorking, SetStatus
from memos.testing import ManualClock

ALL = tuple(ItemStatus)
MAY = datetime(2022, 5, 1, tzinfo=UTC)


def say(parts: Parts, *texts: str, cube_id: str = CUBE, **fields: Any) -> list[str]:
    """Store turns whose reading is due and queue the message that asks for it."""
    given = {"read": ReadState.DUE, "role": "user", **fields}
    ids = parts.remember(*texts, cube_id=cube_id, **given)
    user_id = given.get("user_id", USER)
    parts.scheduler.submit_messages(
        message("mem_read", json.dumps(ids), mem_cube_id=cube_id, user_id=user_id)
    )
    return ids


def read(parts: Parts, *texts: str, **fields: Any) -> list[str]:
    """Store turns and read them, a minute after whatever was before."""
    parts.clock.advance(60.0)  # type: ignore[attr-defined]
    ids = say(parts, *texts, **fields)
    parts.drain()
    return ids


def derived(parts: Parts, cube_id: str = CUBE, *statuses: ItemStatus) -> list[MemoryItem]:
    """The derived items, in the order of their texts."""
    wanted = ItemFilter(cube_ids=(cube_id,), raw=False, statuses=statuses or ALL)
    return sorted(parts.store.find(wanted, limit=500).items, key=lambda item: item.memory)


def texts(items: Sequence[MemoryItem]) -> list[str]:
    return [item.memory for item in items]


def logs(parts: Parts, label: str) -> list[ScheduleLogForWebItem]:
    return [entry for _, entry in reversed(parts.store.web_logs(label=label, limit=500))]


# -- what is derived ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kind", "text", "slot"),
    [
        ("I live in Paris.", MemoryKind.USER, "The user lives in Paris.", "lives_in"),
        ("我住在上海。", MemoryKind.USER, "用户住在上海。", "lives_in"),
        ("I love sushi.", MemoryKind.PREFERENCE, "The user likes sushi.", "taste:sushi"),
        ("我喜欢爬山。", MemoryKind.PREFERENCE, "用户喜欢爬山。", "taste:爬山"),
        ("I'm allergic to peanuts.", MemoryKind.USER, "The user is allergic to peanuts.", "allergy:peanut"),
        ("我对花生过敏。", MemoryKind.USER, "用户对花生过敏。", "allergy:花生"),
    ],
)
def test_a_turn_becomes_a_fact_beside_it(
    still: Parts, said: str, kind: MemoryKind, text: str, slot: str
) -> None:
    """The fact stands in its area with its source; the turn is as it was but for its reading state."""
    (before,) = still.store.get(say(still, said, happened_at=MAY))
    assert before.read is ReadState.DUE
    assert derived(still) == []
    still.drain()
    (after,) = still.store.get([before.id])
    assert after == replace(before, read=ReadState.DONE, version=2, updated_at=after.updated_at)
    (fact,) = derived(still)
    assert (fact.memory, fact.kind, fact.raw, fact.read) == (text, kind, False, ReadState.NONE)
    assert fact.created_at == before.created_at and fact.happened_at == MAY
    assert [source.item_id for source in fact.sources] == [before.id]
    held = fact_of(fact)
    assert held is not None and held.slot == slot
    sizes = still.store.sizes(CUBE)
    assert (sizes.long_term, sizes.user, sizes.preference) == (
        1,
        int(kind is MemoryKind.USER),
        int(kind is MemoryKind.PREFERENCE),
    )
    assert still.store.verify() == []


def test_an_event_goes_to_long_term_memory(still: Parts) -> None:
    """Events carry the day they name, not the day they were told."""
    read(
        still,
        "I adopted a puppy yesterday.",
        participants=("Anna",),
        happened_at=datetime(2024, 5, 8, tzinfo=UTC),
    )
    (event,) = derived(still)
    assert event.kind is MemoryKind.LONG_TERM and event.participants == ("Anna",)
    assert "Anna" in event.memory and "2024" in event.memory and "yesterday" not in event.memory
    assert event.happened_at is not None and event.happened_at.date().isoformat() == "2024-05-07"


@pytest.mark.parametrize("said", ["Hello there!", "What is the time?", "谢谢！"])
def test_a_turn_that_states_nothing_is_read_with_the_reason(still: Parts, said: str) -> None:
    """Nothing derived: the turn is marked, the journal says why, the log tells the turn alone."""
    (item_id,) = read(still, said)
    (item,) = still.store.get([item_id])
    assert item.read is ReadState.DONE and item.live
    assert derived(still) == []
    row = still.store.journal(item_id=item_id)[0]
    assert row.op == "read" and row.reason.startswith("nothing derived: ")
    assert row.cause.label == "mem_read"
    (told,) = logs(still, "addMemory")
    assert [row["ref_id"] for row in told.memcube_log_content or ()] == [item_id]


def test_the_turn_stays_recallable_and_is_one_hit_with_its_fact(still: Parts) -> None:
    """After reading, a search gives the fact or its turn, once."""
    (item_id,) = read(still, "I live in Paris.")
    found = still.services.searcher.search("live in Paris", USER, CUBE, top_k=10)
    assert len(found) == 1
    assert found[0].id == item_id or [s["item_id"] for s in found[0].metadata.sources] == [item_id]
    (kept,) = still.store.get([item_id])
    assert kept.live


# -- repeats ------------------------------------------------------------------------------------------


def test_what_is_said_again_confirms_the_fact(still: Parts) -> None:
    """The same fact in the same or other words gains a source and a use, and no second row."""
    (first,) = read(still, "I live in Paris.")
    (before,) = derived(still)
    second, third = read(still, "I live in Paris.", "i am living in paris now")
    again = derived(still)
    assert next(item.id for item in again if item.live) == before.id
    (after,) = [item for item in again if item.id == before.id]
    assert {first, second} <= {source.item_id for source in after.sources}
    assert after.use_count == before.use_count + 1
    assert after.created_at == before.created_at
    assert len([item for item in again if item.content_hash == before.content_hash]) == 1
    assert {item.read for item in still.store.get([first, second, third])} == {ReadState.DONE}
    (told,) = logs(still, "updateMemory")
    assert [row["ref_id"] for row in told.memcube_log_content or ()] == [before.id]


def test_one_fact_said_twice_in_one_add_is_stored_once(still: Parts) -> None:
    """Both turns are its sources."""
    ids = read(still, "I love sushi.", "Yes, I really love sushi!")
    (fact,) = derived(still)
    assert {source.item_id for source in fact.sources} == set(ids)


def test_a_text_and_a_preference_of_one_fact_are_one(still: Parts) -> None:
    """What `pref_add` keeps and what `mem_read` derives from the same words is one memory."""
    still.scheduler.submit_messages(message("pref_add", "I'm allergic to peanuts. I love sushi."))
    still.drain()
    before = derived(still)
    assert {item.kind for item in before} == {MemoryKind.PREFERENCE}
    read(still, "I'm allergic to peanuts. I love sushi.")
    after = derived(still)
    assert [item.id for item in after] == [item.id for item in before]
    assert [item.use_count for item in after] == [1, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I'm allergic to nuts.", "I'm allergic to milk."),
        ("I have a dog called Rex.", "I have a cat called Rex."),
    ],
)
def test_different_facts_stay_apart(still: Parts, one: str, other: str) -> None:
    """Alike is not the same."""
    read(still, one)
    read(still, other)
    assert len(derived(still, CUBE, ItemStatus.ACTIVATED)) == 2


# -- contradictions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "gone", "holds"),
    [
        ("I live in Paris.", "I moved to Berlin.", "The user lives in Paris.", "The user lives in Berlin."),
        ("我住在北京。", "我搬到上海了。", "用户住在北京。", "用户住在上海。"),
        ("I live in Paris.", "我现在住在上海。", "The user lives in Paris.", "用户住在上海。"),
        ("I love sushi.", "I hate sushi.", "The user likes sushi.", "The user does not like sushi."),
    ],
)
def test_a_contradicted_fact_is_history(still: Parts, old: str, new: str, gone: str, holds: str) -> None:
    """The old fact gets its end and leaves recall and working memory, the new one takes its place there;
    both turns stay."""
    first = read(still, old, happened_at=MAY)
    (before,) = derived(still)
    still.store.apply([ReplaceWorking(CUBE, (WorkingEntry(before.id, 0.7),), None, "test")])
    second = read(still, new, happened_at=MAY + timedelta(days=30))
    facts = {item.memory: item for item in derived(still)}
    assert set(facts) == {gone, holds}
    old_fact, new_fact = facts[gone], facts[holds]
    assert old_fact.id == before.id
    assert (old_fact.status, new_fact.status) == (ItemStatus.ARCHIVED, ItemStatus.ACTIVATED)
    assert old_fact.valid_until == MAY + timedelta(days=30)
    assert (old_fact.happened_at, old_fact.created_at) == (MAY, before.created_at)  # true from, learned
    assert still.store.journal(item_id=before.id)[0].reason.startswith(f"superseded by {new_fact.id}")
    assert [entry.item_id for entry in still.store.working(CUBE).entries] == [new_fact.id]
    assert all(item.live for item in still.store.get([*first, *second]))
    found = still.services.searcher.search(gone, USER, CUBE, top_k=10)
    assert before.id not in [item.id for item in found]
    (told,) = logs(still, "updateMemory")
    row = (told.memcube_log_content or [{}])[0]
    assert (row["content"], row["original_content"]) == (holds, gone)
    (archived,) = logs(still, "archiveMemory")
    assert [row["ref_id"] for row in archived.memcube_log_content or ()] == [before.id]
    assert still.store.verify() == []


def marks(parts: Parts) -> dict[str, list[str]]:
    """Turn -> the texts of the facts that it is marked with."""
    every = {item.id: item for item in parts.store.find(ItemFilter(statuses=ALL), limit=500).items}
    return {
        item.memory: [every[one].memory for one in item.extra.get("corrected_by", ())]
        for item in every.values()
        if item.raw
    }


@pytest.mark.parametrize(
    ("old", "new", "holds", "question"),
    [
        ("I live in Paris.", "I moved to Lyon.", "The user lives in Lyon.", "Do I live in Paris?"),
        ("我住在巴黎。", "我搬到里昂了。", "用户住在里昂。", "我住在巴黎吗？"),
    ],
)
def test_the_turn_behind_a_displaced_fact_is_recalled_behind_what_holds(
    still: Parts, old: str, new: str, holds: str, question: str
) -> None:
    """It stays live and as it was said, is marked once in the transaction of the reading, and recall puts
    the newer fact before it, even where the turn fits the question better."""
    (first,) = read(still, old)
    before = still.store.get([first])[0]
    seq = still.store.seq(CUBE)
    (second,) = read(still, new)
    assert still.store.seq(CUBE) == seq + 2, "the turn, and the reading"
    (after,) = still.store.get([first])
    assert marks(still) == {old: [holds], new: []}
    assert after == replace(
        before, extra=after.extra, version=before.version + 1, updated_at=after.updated_at
    )
    assert [row.op for row in still.store.journal(item_id=first)] == ["update", "read", "add"]
    assert [row.op for row in still.store.journal(item_id=second)] == ["read", "add"]
    found = [item.memory for item in still.services.searcher.search(question, USER, CUBE, top_k=10)]
    assert found[0] in (holds, new) and old in found[1:]
    assert still.store.verify() == []


def test_a_line_of_values_marks_every_turn_but_the_last(still: Parts) -> None:
    """Each earlier turn names what holds now; one that says the same value again is not put behind it."""
    for turn in ("I live in Paris.", "I moved to Lyon.", "I moved to Rome."):
        read(still, turn)
    paris, lyon, rome = "I live in Paris.", "I moved to Lyon.", "I moved to Rome."
    assert {turn: names[-1:] for turn, names in marks(still).items()} == {
        paris: ["The user lives in Rome."],
        lyon: ["The user lives in Rome."],
        rome: [],
    }
    read(still, "I moved back to Paris.")
    assert "The user lives in Paris." not in marks(still)[paris]
    assert marks(still)[rome] == marks(still)[lyon][-1:] == ["The user lives in Paris."]


def test_a_turn_that_is_outdated_as_it_is_read_is_read_and_marked(still: Parts) -> None:
    """What is learned late about the past: its own turn takes the mark and the reading state at once."""
    read(still, "I live in Berlin.", happened_at=MAY)
    (late,) = read(still, "I live in Paris.", happened_at=MAY - timedelta(days=300))
    (turn,) = still.store.get([late])
    assert (turn.read, turn.live) == (ReadState.DONE, True)
    assert marks(still) == {"I live in Berlin.": [], "I live in Paris.": ["The user lives in Berlin."]}
    assert [row.op for row in still.store.journal(item_id=late)] == ["read", "update", "add"]


def test_two_values_in_one_reading_mark_the_earlier_turn(still: Parts) -> None:
    """Turns that are read together are told apart; other people's turns are not touched."""
    read(still, "I live in Oslo.", user_id="bob")
    read(still, "I live in Paris.", "I moved to Berlin.", "I moved to Rome.")
    assert marks(still) == {
        "I live in Oslo.": [],
        "I live in Paris.": ["The user lives in Rome."],
        "I moved to Berlin.": ["The user lives in Rome."],
        "I moved to Rome.": [],
    }


def test_what_is_learned_late_about_the_past_displaces_nothing(still: Parts) -> None:
    """An older fact that is read after the newer one goes straight into history."""
    read(still, "I live in Berlin.", happened_at=MAY)
    read(still, "I live in Paris.", happened_at=MAY - timedelta(days=300))
    paris, berlin = sorted(derived(still), key=lambda item: item.memory, reverse=True)
    assert (berlin.status, paris.status) == (ItemStatus.ACTIVATED, ItemStatus.ARCHIVED)
    assert paris.valid_until == MAY
    assert paris.extra["superseded_by"] == berlin.id


def test_of_two_values_in_one_add_the_later_holds(still: Parts) -> None:
    """The order of the turns decides where no time does."""
    read(still, "I live in Paris.", "I moved to Berlin.")
    assert texts(derived(still, CUBE, ItemStatus.ACTIVATED)) == ["The user lives in Berlin."]
    assert texts(derived(still, CUBE, ItemStatus.ARCHIVED)) == ["The user lives in Paris."]


def test_facts_of_other_people_and_cubes_are_not_touched(still: Parts) -> None:
    """Interleaved cubes, users and speakers: each keeps its own facts."""
    for cube in ("a", "b"):
        read(still, "I live in Paris.", cube_id=cube)
    read(still, "I live in Rome.", cube_id="a", user_id="bob")
    read(still, "I live in Oslo.", cube_id="a", participants=("Anna",))
    read(still, "I moved to Berlin.", cube_id="b")
    assert texts(derived(still, "a", ItemStatus.ACTIVATED)) == [
        "Anna lives in Oslo.",
        "The user lives in Paris.",
        "The user lives in Rome.",
    ]
    assert texts(derived(still, "b", ItemStatus.ACTIVATED)) == ["The user lives in Berlin."]


# -- echoes and quarantine ----------------------------------------------------------------------------


def test_what_an_assistant_repeats_is_not_learned(still: Parts) -> None:
    """Words of memory that come back from the assistant become no fact and confirm none."""
    read(still, "I volunteer at the animal shelter every Saturday morning.", participants=("Anna",))
    before = derived(still)
    assert before
    (echo,) = read(
        still,
        "I volunteer at the animal shelter every Saturday morning.",
        role="assistant",
        participants=("Bot",),
    )
    assert derived(still) == before
    (item,) = still.store.get([echo])
    assert item.live and item.read is ReadState.DONE
    assert "repeats what is known" in still.store.journal(item_id=echo)[0].reason


def test_a_fact_that_is_dangerous_is_held(tmp_path: Path, clock: ManualClock) -> None:
    """What the extractor brings goes through the same gate as what people write."""
    secret = "The user's key is sk-abcdefghijklmnopqrstuvwxyz123456."

    def extract(items: Sequence[MemoryItem]) -> Derivation:
        found = derive(items)
        return Derivation(tuple(replace(one, text=secret, fact=None) for one in found.derived))

    with assembled(tmp_path, clock=clock, extract=extract) as parts:
        read(parts, "I live in Paris.")
        (held,) = derived(parts)
        assert (held.memory, held.status) == (secret, ItemStatus.QUARANTINED)
        assert parts.store.journal(item_id=held.id)[0].reason.startswith("quarantined: secret")
        assert secret not in str([entry.model_dump() for _, entry in parts.store.web_logs()])


# -- what is left alone -------------------------------------------------------------------------------


def test_items_that_are_gone_or_read_or_elsewhere_are_passed_over(still: Parts) -> None:
    """Deleted, unknown, quarantined, already read and foreign ids neither fail nor teach."""
    gone, held, done, here = still.remember(
        "I live in Paris.", "I live in Rome.", "I live in Oslo.", "I live in Bern.", role="user"
    )
    (foreign,) = still.remember("I live in Kyiv.", cube_id="other", role="user")
    still.scheduler.submit_messages(message("mem_read", json.dumps([done])))
    still.drain()
    still.store.apply(
        [
            SetStatus((gone,), ItemStatus.DELETED, "test"),
            SetStatus((held,), ItemStatus.QUARANTINED, "test"),
        ]
    )
    still.scheduler.submit_messages(
        message("mem_read", json.dumps([gone, "unknown", held, done, foreign, here]))
    )
    still.drain()
    assert texts(derived(still, CUBE, ItemStatus.ACTIVATED)) == ["The user lives in Bern."]
    assert derived(still, "other") == []
    assert {one.state for one in still.queue.statuses()} == {TaskState.COMPLETED}
    (read_once,) = [row for row in still.store.journal(item_id=done) if row.op == "read"]
    assert read_once.reason == "read: 1 derived, 0 confirmed"


@pytest.mark.parametrize("content", ["not json", '{"a": 1}', "[1]"])
def test_content_that_is_no_list_of_ids_is_given_up(still: Parts, content: str) -> None:
    """No retry can mend it: the letter is dead at once and says why."""
    still.scheduler.submit_messages(message("mem_read", content))
    still.drain()
    (letter,) = still.queue.dead.list()
    assert "JSON" in letter.error


def test_a_failing_extractor_leaves_everything_due(tmp_path: Path, clock: ManualClock) -> None:
    """It is tried again; nothing is marked or stored before it succeeds, everything once when it does."""
    failures = 2

    def extract(items: Sequence[MemoryItem]) -> Derivation:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("the model is down")
        return derive(items)

    with assembled(tmp_path, clock=clock, extract=extract) as parts:
        (item_id,) = say(parts, "I live in Paris.")
        parts.drain()
        (waiting,) = parts.queue.statuses()
        assert waiting.state is TaskState.RETRYING
        assert parts.store.get([item_id])[0].read is ReadState.DUE
        assert derived(parts) == []
        for _ in range(3):
            clock.advance(30.0)
            parts.drain()
        assert parts.store.get([item_id])[0].read is ReadState.DONE
        assert texts(derived(parts)) == ["The user lives in Paris."]
        assert len(logs(parts, "addMemory")) == 1


def test_an_api_call_is_told_of_as_a_knowledge_base_update(still: Parts) -> None:
    """One log with the turn and its facts, sizes and capacities of after it."""
    (item_id,) = still.remember("I live in Paris.", read=ReadState.DUE, role="user")
    still.scheduler.submit_messages(message("mem_read", json.dumps([item_id]), api_path="/product/add"))
    still.drain()
    (told,) = logs(still, "knowledgeBaseUpdate")
    rows = told.memcube_log_content or []
    assert [(row["operation"], row["trigger_source"]) for row in rows] == [("ADD", "Messages")] * 2
    assert rows[0]["memory_id"] == item_id and rows[1]["content"] == "The user lives in Paris."
    assert told.current_memory_sizes["user_memory_size"] == still.store.sizes(CUBE).user == 1
    assert logs(still, "addMemory") == []


def test_a_direct_call_reads_too(still: Parts) -> None:
    """The documented method does what the queue does, once a message."""
    (item_id,) = still.remember("I live in Paris.", role="user")
    still.scheduler._mem_read_message_consumer([message("mem_read", json.dumps([item_id]))])
    still.scheduler._pref_add_message_consumer([message("pref_add", "I love tea.")])
    assert texts(derived(still)) == ["The user likes tea.", "The user lives in Paris."]


@pytest.mark.parametrize(
    ("before", "now", "holds"),
    [
        ("I live in Paris.", "No - I've moved to Lyon.", "The user lives in Lyon."),
        ("我住在巴黎。", "不，我早就搬到里昂了。", "用户住在里昂。"),
    ],
)
def test_a_place_of_an_outdated_turn_passes_to_what_holds(
    still: Parts, clock: ManualClock, before: str, now: str, holds: str
) -> None:
    """Working memory does not go on saying the opposite until the next recall; the turn itself stays stored."""
    (first,) = say(still, before)
    (other,) = say(still, "The boat is called Petrel.")
    still.drain()
    places = (WorkingEntry(first, 0.9), WorkingEntry(other, 0.5))
    still.store.apply([ReplaceWorking(CUBE, places, None, "recalled")])
    clock.advance(60.0)
    say(still, now)
    still.drain()
    standing = [still.store.get([entry.item_id])[0].memory for entry in still.store.working(CUBE).entries]
    assert standing == [holds, "The boat is called Petrel."]
    assert still.store.get([first])[0].live
