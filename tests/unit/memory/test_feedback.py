"""What feedback does to the memories behind an answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memos.memory.feedback import CORRECTIONS_MAX, Correction, interpret
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.slots import Fact, fact_fields
from memos.models.base import ChatMessage


def memory(item_id: str, text: str, fact: Fact | None = None, name: str = "Anna") -> MemoryItem:
    extra = {} if fact is None else fact_fields(fact)
    return MemoryItem(item_id, "c", "u", text, raw=False, participants=(name,), extra=extra)


HOME = memory("home", "Anna lives in Paris.", Fact("Anna", "lives_in", "Paris"))
FLIGHT = memory("flight", "Anna's flight to Rome leaves at 9:40.")
NUTS = memory("nuts", "Anna is allergic to nuts.", Fact("Anna", "allergy:nut", "yes"))
SUSHI = memory("sushi", "Anna likes sushi.", Fact("Anna", "taste:sushi", "like"))
ALL = [HOME, FLIGHT, NUTS, SUSHI]
HAN = memory("zh", "小明住在北京。", Fact("小明", "lives_in", "北京"), "小明")
RAW = MemoryItem("raw", "c", "u", "I live in Paris with my cat", role="user", participants=("Anna",))


def said(text: str, retrieved: list[MemoryItem], **more: object) -> list[tuple[str, tuple[str, ...], str]]:
    found = interpret(text, retrieved, **more)  # type: ignore[arg-type]
    return [(one.kind.value, one.target_ids, one.new_text) for one in found]


@pytest.mark.parametrize(
    ("text", "retrieved", "expected"),
    [
        ("no, I moved to Lyon", ALL, ("correct", ("home",), "Anna lives in Lyon.")),
        ("No I live in Lyon", ALL, ("correct", ("home",), "Anna lives in Lyon.")),
        ("That's not right. I live in Lyon.", ALL, ("correct", ("home",), "Anna lives in Lyon.")),
        ("I live in Lyon, not Paris", ALL, ("correct", ("home",), "Anna lives in Lyon.")),
        ("I don't live in Paris, I live in Lyon", ALL, ("correct", ("home",), "Anna lives in Lyon.")),
        ("I don't live in Paris anymore", ALL, ("correct", ("home",), "Anna no longer lives in Paris.")),
        ("No, I moved to Lyon", [RAW], ("correct", ("raw",), "Anna lives in Lyon.")),
        ("actually it's 9:45, not 9:40", ALL, ("correct", ("flight",), "Anna's flight to Rome leaves at 9:45.")),
        ("It's 9:45 not 9:40", ALL, ("correct", ("flight",), "Anna's flight to Rome leaves at 9:45.")),
        ("not 9:40 but 9:45", ALL, ("correct", ("flight",), "Anna's flight to Rome leaves at 9:45.")),
        ("Please change 9:40 to 9:45", ALL, ("correct", ("flight",), "Anna's flight to Rome leaves at 9:45.")),
        ("The flight goes to Oslo, not Rome", ALL, ("correct", ("flight",), "Anna's flight to Oslo leaves at 9:40.")),
        ("No, it leaves at 9:45", [FLIGHT], ("correct", ("flight",), "Anna's flight to Rome leaves at 9:45.")),
        ("No, I'm not allergic to nuts", ALL, ("correct", ("nuts",), "Anna is not allergic to nuts.")),
        ("I no longer like sushi", ALL, ("correct", ("sushi",), "Anna does not like sushi.")),
        ("不对，我住在上海", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("其实我住在上海", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("不是北京，是上海", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("我住在上海，不是北京", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("把北京改成上海", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("No - I've moved to Lyon.", ALL, ("correct", ("home",), "Anna lives in Lyon.")),
        ("Correction: I live in Lyon.", ALL, ("correct", ("home",), "Anna lives in Lyon.")),
        ("I'm in Lyon now, not Paris.", ALL, ("correct", ("home",), "Anna lives in Lyon.")),
        ("No I live in Lyon not Paris", ALL, ("correct", ("home",), "Anna lives in Lyon.")),
        ("No, Lyon.", [HOME], ("correct", ("home",), "Anna lives in Lyon.")),
        ("no it's Lyon", [HOME], ("correct", ("home",), "Anna lives in Lyon.")),
        ("Sorry, I meant Lyon.", [HOME], ("correct", ("home",), "Anna lives in Lyon.")),
        ("No, Lyon now.", [RAW], ("correct", ("raw",), "Anna lives in Lyon.")),
        ("我住上海", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("我早就搬到上海了", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("我搬家了，现在住在上海。", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("我已经不住北京了，搬到了上海。", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("不对，是上海", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("不，上海。", [HAN], ("correct", ("zh",), "小明住在上海。")),
        ("应该是上海，不是北京", [HAN], ("correct", ("zh",), "小明住在上海。")),
    ],
)  # fmt: skip
def test_corrections(
    text: str, retrieved: list[MemoryItem], expected: tuple[str, tuple[str, ...], str]
) -> None:
    """A correction hits exactly the memory that holds the old value and says what holds instead."""
    assert said(text, retrieved) == [expected]


@pytest.mark.parametrize(
    ("text", "retrieved", "ids"),
    [
        ("that's right", [HOME], ("home",)),
        ("Yes, exactly!", ALL, ("home", "flight", "nuts", "sushi")),
        ("Correct.", [HOME], ("home",)),
        ("I live in Paris", ALL, ("home",)),
        ("对，没错", [HAN], ("zh",)),
        ("说得对", [HAN], ("zh",)),
    ],
)
def test_confirmations_reinforce(text: str, retrieved: list[MemoryItem], ids: tuple[str, ...]) -> None:
    """Praise, and the same fact said again, reinforce what was retrieved and change no text."""
    assert said(text, retrieved) == [("reinforce", ids, "")]


@pytest.mark.parametrize(
    ("text", "retrieved", "ids"),
    [
        ("forget that", [HOME], ("home",)),
        ("Please delete this memory", [HOME], ("home",)),
        ("forget about my flight to Rome", ALL, ("flight",)),
        ("delete everything", ALL, ("home", "flight", "nuts", "sushi")),
        ("that's wrong", [HOME], ("home",)),
        ("That is not true!", [HOME], ("home",)),
        ("删除这条记忆", [HAN], ("zh",)),
        ("忘了吧", [HAN], ("zh",)),
        ("错了", [HAN], ("zh",)),
    ],
)
def test_retractions(text: str, retrieved: list[MemoryItem], ids: tuple[str, ...]) -> None:
    """Asking to forget, or denying without saying what is right, retracts the memory that is meant."""
    assert said(text, retrieved) == [("retract", ids, "")]


@pytest.mark.parametrize(
    "text", ["forget that", "that's wrong", "incorrect", "forget about the weather in Oslo"]
)
def test_taking_away_needs_certainty(text: str) -> None:
    """Where several memories could be meant, none is targeted, and the reason says so."""
    (one,) = interpret(text, ALL)
    assert one.target_ids == () and "not certain" in one.reason


def test_the_last_answer_tells_which_memory_is_meant() -> None:
    """Among several memories the one that the answer clearly used is the one that is wrong or right."""
    history = [ChatMessage("user", "Where do I live?"), ChatMessage("assistant", "Anna, you live in Paris.")]
    assert said("that's wrong", ALL, history=history) == [("retract", ("home",), "")]
    assert said("that's right", ALL, history=history) == [("reinforce", ("home",), "")]
    older = [ChatMessage("assistant", "Your flight to Rome leaves at 9:40."), *history]
    assert said("forget that", ALL, history=older) == [("retract", ("home",), "")]


@pytest.mark.parametrize(
    ("text", "retrieved", "new"),
    [
        ("Also, I have a dog named Max", ALL, "Anna has a pet: Max (dog)."),
        ("Actually, the concert was moved to Friday", ALL, "The concert was moved to Friday."),
        ("Don't forget my birthday is on May 8", ALL, "Anna's birthday is May 8."),
        ("No, my sister lives in Nice", ALL, "Anna's sister lives in Nice."),
        ("My wife lives in Lyon", ALL, "Anna's wife lives in Lyon."),
        ("另外，我养了一只猫", [HAN], "小明有一只猫。"),
        ("I moved to Lyon", [NUTS], "Anna lives in Lyon."),
    ],
)
def test_supplements(text: str, retrieved: list[MemoryItem], new: str) -> None:
    """What contradicts nothing that was retrieved is added beside it, and nothing is touched."""
    assert said(text, retrieved) == [("supplement", (), new)]


@pytest.mark.parametrize(
    "text",
    ["", "thanks", "no", "Hello!", "What about my dog?", "Do I live in Lyon?", "maybe I live in Lyon", "no more sushi for me?", "你好", "我住在哪里？", "right now?"],
)  # fmt: skip
def test_what_is_no_feedback_changes_nothing(text: str) -> None:
    """Questions, suppositions, greetings and a bare "no" ask for nothing."""
    assert interpret(text, ALL) == []


def test_confirmation_with_more() -> None:
    """A sentence that confirms and adds does both."""
    assert said("Yes, and I also speak French", [HOME]) == [
        ("reinforce", ("home",), ""),
        ("supplement", (), "Anna speaks French."),
    ]


def test_the_right_answer_corrects_what_it_is_about() -> None:
    """A corrected answer replaces the memory of its fact, or the nearest, and the bare denial adds nothing."""
    assert said("wrong", ALL, corrected_answer="I live in Lyon") == [
        ("correct", ("home",), "Anna lives in Lyon.")
    ]
    better = "Anna's flight to Rome leaves at noon"
    assert said("that's wrong", ALL, corrected_answer=better) == [("correct", ("flight",), better)]
    assert said("", [], corrected_answer="The meeting is on Monday") == [
        ("supplement", (), "The meeting is on Monday")
    ]


def test_a_correction_that_points_keeps_what_it_points_to() -> None:
    """ "No, it's in the evening" is kept together with the memory it corrects, since alone it says nothing."""
    (one,) = interpret("No, it's in the evening", [FLIGHT])
    assert one.target_ids == ("flight",)
    assert "flight to Rome" in one.new_text and "in the evening" in one.new_text


def test_words_are_replaced_whole() -> None:
    """The old words are replaced only as whole words, and only in the one memory that is meant."""
    trains = [memory("a", "The train leaves at 19:40."), memory("b", "The bus leaves at 9:40.")]
    assert said("it's 9:45, not 9:40", trains) == [("correct", ("b",), "The bus leaves at 9:45.")]
    both = [memory("a", "The train leaves at 9:40."), memory("b", "The bus leaves at 9:40.")]
    assert not any(ids for _, ids, _ in said("it's 9:45, not 9:40", both))
    history = [ChatMessage("assistant", "The bus leaves at 9:40.")]
    assert said("it's 9:45, not 9:40", both, history=history) == [
        ("correct", ("b",), "The bus leaves at 9:45.")
    ]


def test_without_memories_there_is_something_to_search_for() -> None:
    """With nothing retrieved there are no targets, but a statement and what to search for."""
    (one,) = interpret("no, I moved to Lyon", [], speaker="Anna")
    assert one.target_ids == () and one.new_text == "Anna lives in Lyon." and one.about
    (gone,) = interpret("forget about my flight to Rome")
    assert isinstance(gone, Correction) and gone.target_ids == () and "flight" in gone.about


def test_an_unnamed_user_and_a_named_one_are_the_same_here() -> None:
    """A memory about "the user" is corrected by a named speaker, another person's memory is not."""
    unnamed = memory("m", "The user lives in Paris.", Fact("The user", "lives_in", "Paris"), "")
    assert said("No, I live in Lyon", [unnamed], speaker="Anna") == [
        ("correct", ("m",), "Anna lives in Lyon.")
    ]
    other = memory("o", "Ben lives in Paris.", Fact("Ben", "lives_in", "Paris"), "Ben")
    assert said("No, I live in Lyon", [other], speaker="Anna") == [("supplement", (), "Anna lives in Lyon.")]


def test_only_live_memories_are_targets() -> None:
    """What is archived already is neither corrected nor retracted."""
    gone = replace(HOME, status=ItemStatus.ARCHIVED)
    assert said("no, I moved to Lyon", [gone], speaker="Anna") == [("supplement", (), "Anna lives in Lyon.")]
    assert said("forget that", [gone])[0][1] == ()


def test_the_number_of_corrections_is_bounded() -> None:
    """An endless feedback asks for a bounded number of changes."""
    text = " ".join(f"I love dish{n:03}." for n in range(300))
    assert len(interpret(text, ALL)) == CORRECTIONS_MAX


@pytest.mark.parametrize(
    "text",
    ["No, thanks.", "No, Thanks.", "Nope, Sorry.", "No, You.", "No, Monday.", "不，谢谢。", "不对，是这样"],
)
def test_a_few_words_after_a_no_are_no_value(text: str) -> None:
    """What cannot fill the slot that was meant puts no other value there and adds no memory."""
    kept = HAN if text.startswith("不") else HOME
    assert {kind for kind, _, _ in said(text, [kept])} <= {"retract"}


def test_a_replaced_value_is_still_a_fact() -> None:
    """The correction fills the slot, so that the next one finds it."""
    [one] = interpret("It's Lyon, not Paris", ALL)
    assert one.derived is not None and one.derived.fact == Fact("Anna", "lives_in", "Lyon")
