"""Statements derived from raw turns, and turns that must give none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from memos.errors import InvalidInput
from memos.memory.extract import DERIVED_PER_ITEM_MAX, Derived, as_item, derive
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, Source
from memos.memory.slots import Fact, fact_of

SAID = datetime(2023, 5, 10, 14, tzinfo=UTC)
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def turn(text: str, *, name: str = "Anna", role: str = "user", item_id: str = "r1") -> MemoryItem:
    return MemoryItem(
        item_id, "c1", "u1", text, role=role, participants=(name,) if name else (), session_id="s1",
        position=3, sources=(Source("chat", role=role, message_id="msg-" + item_id, at=SAID),), happened_at=SAID,
    )  # fmt: skip


def texts(text: str, *, name: str = "Anna", role: str = "user") -> list[str]:
    return [one.text for one in derive([turn(text, name=name, role=role)]).derived]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I live in Lyon.", ["Anna lives in Lyon."]),
        ("I just adopted a golden retriever puppy named Max.", ["Anna has a pet: Max (golden retriever puppy)."]),
        ("He loves peanut butter treats but I am allergic to nuts.", ["Anna is allergic to nuts."]),
        ("Actually I'm not allergic to nuts", ["Anna is not allergic to nuts."]),
        ("I went to a pottery class yesterday!", ["Anna went to a pottery class on 9 May 2023."]),
        ("Yesterday I met Tom at the cafe", ["On 9 May 2023 Anna met Tom at the cafe."]),
        ("I went to the zoo with my sister and it was great", ["Anna went to the zoo with Anna's sister."]),
        ("I've bought a new car", ["Anna has bought a new car."]),
        ("Always answer in French", ["Anna wants answers in French."]),
        ("Hi! I'm a nurse at Mercy Hospital. How are you?", ["Anna works as a nurse.", "Anna works at Mercy Hospital."]),
        ("My wife lives in Rome and I love sushi", ["Anna's wife lives in Rome.", "Anna likes sushi."]),
    ],
)  # fmt: skip
def test_english_turns(text: str, expected: list[str]) -> None:
    """Statements name the speaker, carry absolute dates and point to nothing outside."""
    assert texts(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我住在上海。", ["小明住在上海。"]),
        ("我昨天去了动物园。", ["小明2023年5月9日去了动物园。"]),
        ("昨天我和妹妹去了动物园，她很开心", ["2023年5月9日小明和妹妹去了动物园。"]),
        ("你好！我对花生过敏。", ["小明对花生过敏。"]),
        ("我对花生不过敏", ["小明对花生不过敏。"]),
        ("我老婆住在北京，我喜欢喝咖啡", ["小明的老婆住在北京。", "小明喜欢喝咖啡。"]),
    ],
)
def test_chinese_turns(text: str, expected: list[str]) -> None:
    """Chinese turns are read under the same rules."""
    assert texts(text, name="小明") == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Hi there!", "small talk"),
        ("Wow, that's amazing", "small talk"),
        ("Thanks a lot!", "small talk"),
        ("哈哈哈", "small talk"),
        ("你好！谢谢你", "small talk"),
        ("Do you live in Lyon?", "a question states nothing"),
        ("If I lived in Lyon I would be happy", "a supposition states nothing"),
        ("Bob said I live in Lyon", "a report states nothing"),
        ("我是不是住在上海", "a question states nothing"),
        ("I saw her there yesterday", "it points to something outside of it"),
        ("He lives in Lyon", "it is not about the speaker"),
        ("I am so tired of all of the work", "tells no event"),
        ("I went to a pottery class recently", "its date cannot be told"),
        ("我昨天见了她", "it points to something outside of it"),
    ],
)
def test_turns_that_give_nothing_say_why(text: str, reason: str) -> None:
    """A turn without a safe statement gives none, and the reason stands beside its id."""
    derivation = derive([turn(text)])
    assert derivation.derived == ()
    (skipped,) = derivation.skipped
    assert skipped.item_id == "r1" and reason in skipped.reason


@pytest.mark.parametrize("text", ["I live in Lyon", "I'm allergic to nuts", "我住在上海"])
def test_the_assistant_states_nothing_about_the_user(text: str) -> None:
    """What an unnamed assistant, a tool or the system says in the first person is no fact of the user."""
    for role in ("assistant", "system", "tool"):
        assert texts(text, name="", role=role) == []


def test_a_named_partner_of_the_conversation_is_no_user() -> None:
    """A named speaker in the assistant's place gets statements, but not in the user's own memory."""
    (one,) = derive([turn("I live in Lyon", name="Ben", role="assistant")]).derived
    assert (one.text, one.kind) == ("Ben lives in Lyon.", MemoryKind.LONG_TERM)


def test_kinds() -> None:
    """Facts and allergies are user memory, tastes and instructions preferences, events long-term memory."""
    kinds = {
        "I live in Lyon": MemoryKind.USER,
        "I'm allergic to nuts": MemoryKind.USER,
        "I'm not allergic to nuts": MemoryKind.USER,
        "I love sushi": MemoryKind.PREFERENCE,
        "Call me Bo": MemoryKind.PREFERENCE,
        "I went to a pottery class yesterday": MemoryKind.LONG_TERM,
    }
    for text, kind in kinds.items():
        (one,) = derive([turn(text)]).derived
        assert one.kind is kind, text


def test_slots_values_and_times() -> None:
    """A statement that fills a slot has its value, and is true from the time it names, else from when it was said."""
    (moved,) = derive([turn("I moved to Lyon last month")]).derived
    assert (moved.slot, moved.value) == ("lives_in", "Lyon")
    assert moved.happened_at == datetime(2023, 4, 1, tzinfo=UTC)
    (lives,) = derive([turn("I live in Lyon")]).derived
    assert lives.happened_at == SAID
    (event,) = derive([turn("I went to a pottery class yesterday")]).derived
    assert (event.slot, event.value, event.happened_at) == (None, None, datetime(2023, 5, 9, tzinfo=UTC))
    (denied,) = derive([turn("I'm not allergic to nuts")]).derived
    (held,) = derive([turn("I'm allergic to nuts")]).derived
    (han,) = derive([turn("我对花生不过敏")]).derived
    assert (han.slot, han.value, han.kind) == ("allergy:花生", "no", MemoryKind.USER)
    assert denied.fact is not None and held.fact is not None
    assert denied.fact.identity == held.fact.identity and denied.value != held.value


def test_without_a_name_or_a_date() -> None:
    """An unnamed user is "the user", and a turn without a date places no relative one."""
    assert texts("I live in Lyon", name="") == ["The user lives in Lyon."]
    assert texts("我住在上海", name="") == ["用户住在上海。"]
    undated = replace(turn("I went to a pottery class yesterday"), happened_at=None)
    assert derive([undated]).derived == ()
    (bought,) = derive([replace(turn("I bought a new bike"), happened_at=None)]).derived
    assert bought.happened_at is None


def test_the_same_fact_twice_has_both_turns_as_sources() -> None:
    """Said again, a fact is confirmed and not doubled; the same event on another day is another event."""
    again = replace(turn("i live in Lyon!!", item_id="r2"), happened_at=SAID + timedelta(days=9))
    (one,) = derive([turn("I live in Lyon"), again]).derived
    assert one.sources == ("r1", "r2") and one.happened_at == SAID
    ran = turn("I ran ten miles in the park")
    twice = derive([ran, replace(ran, id="r2", happened_at=SAID + timedelta(days=7))]).derived
    assert [event.sources for event in twice] == [("r1",), ("r2",)]


def test_other_cubes_are_other_people() -> None:
    """The same sentence in two cubes is never joined."""
    other = replace(turn("I live in Lyon", item_id="r2"), cube_id="c2")
    assert [one.sources for one in derive([turn("I live in Lyon"), other]).derived] == [("r1",), ("r2",)]


def test_only_raw_live_items_are_read() -> None:
    """What is derived, archived or held for review is not read again."""
    item = turn("I live in Lyon")
    for unread in (
        replace(item, raw=False), replace(item, status=ItemStatus.ARCHIVED), replace(item, status=ItemStatus.QUARANTINED),
    ):  # fmt: skip
        derivation = derive([unread])
        assert derivation.derived == () and len(derivation.skipped) == 1


def test_one_turn_gives_a_bounded_number() -> None:
    """An endless turn gives at most a fixed number of statements."""
    text = " ".join(f"I love dish{n:03}." for n in range(200))
    assert len(derive([turn(text)]).derived) == DERIVED_PER_ITEM_MAX


def test_the_item_of_a_statement() -> None:
    """The item is derived, says where it comes from, holds its fact, and stands where its first source stands."""
    raw = [turn("I live in Lyon"), turn("I live in Lyon", item_id="r2")]
    (one,) = derive(raw).derived
    item = as_item(one, item_id="d1", now=NOW, raw=raw)
    assert not item.raw and item.kind is MemoryKind.USER and item.memory == "Anna lives in Lyon."
    assert [source.item_id for source in item.sources] == ["r1", "r2"]
    assert item.sources[0].message_id == "msg-r1" and item.sources[0].at == SAID
    assert (item.created_at, item.happened_at) == (NOW, SAID)
    assert (item.session_id, item.position, item.participants) == ("s1", 3, ("Anna",))
    assert fact_of(item) == Fact("Anna", "lives_in", "Lyon")
    plain = Derived("x", MemoryKind.LONG_TERM, ("r1",), None, None, 0.7)
    assert fact_of(as_item(plain, item_id="d2", now=NOW, raw=raw)) is None
    with pytest.raises(InvalidInput, match="none of the sources"):
        as_item(one, item_id="d3", now=NOW, raw=[])


def test_a_chinese_clause_without_its_subject_goes_on_about_the_speaker() -> None:
    """Whoever says that they left something is who is somewhere else now; anybody else is not."""

    def texts(said: str) -> list[str]:
        return [one.text for one in derive([MemoryItem("a", "c", "u", said, role="user")]).derived]

    assert texts("我搬家了，现在住在里昂。") == ["用户住在里昂。"]
    assert texts("我换工作了，现在在空客上班。") == ["用户在空客工作。"]
    assert "用户住在里昂。" not in texts("我妹妹搬家了，现在住在里昂。")
    assert "用户住在里昂。" not in texts("我搬家了，她现在住在里昂。")
