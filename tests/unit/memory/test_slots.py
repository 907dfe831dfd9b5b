"""Slots that are filled from one clause, and clauses that must fill none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.preference import preferences
from memos.memory.sentences import clauses, opened, sentences
from memos.memory.slot_patterns import RULES
from memos.memory.slots import SLOTS, Fact, fact_fields, fact_of, fact_of_preference, facts, is_single


def read(text: str, speaker: str = "Anna") -> list[tuple[str, str]]:
    return [
        (("-" if stated.fact.ended else "") + stated.fact.slot, stated.fact.value)
        for sentence in sentences(text)
        for clause in clauses(sentence)
        for stated in facts(opened(clause), speaker, chinese=sentence.chinese)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I live in Lyon", [("lives_in", "Lyon")]),
        ("I live in the Netherlands now", [("lives_in", "the Netherlands")]),
        ("I just moved to New York City last month", [("lives_in", "New York City")]),
        ("I moved from Paris to Lyon", [("lives_in", "Lyon")]),
        ("I've just moved to Lyon", [("lives_in", "Lyon")]),
        ("I moved house to Lyon", [("lives_in", "Lyon")]),
        ("我现在住里昂", [("lives_in", "里昂")]),
        ("我在里昂定居", [("lives_in", "里昂")]),
        ("我搬来里昂了", [("lives_in", "里昂")]),
        ("我已经不住巴黎了", [("-lives_in", "巴黎")]),
        ("I no longer live in Paris", [("-lives_in", "Paris")]),
        ("I don't live in Paris anymore", [("-lives_in", "Paris")]),
        ("I work as a nurse at Mercy Hospital", [("job", "nurse"), ("works_at", "Mercy Hospital")]),
        ("I'm a software engineer at Google", [("job", "software engineer"), ("works_at", "Google")]),
        ("I quit my job", [("-job", "")]),
        ("My name is Anna Lee", [("name", "Anna Lee")]),
        ("I'm 34 years old", [("age", "34")]),
        ("I turned 40 yesterday", [("age", "40")]),
        ("my birthday is on May 8", [("birthday", "May 8")]),
        ("my phone number is +33 6 12 34 56 78", [("phone", "+33 6 12 34 56 78")]),
        ("my email is anna@example.com", [("email", "anna@example.com")]),
        ("I'm married to Tom", [("relationship_status", "married")]),
        ("I got divorced last year", [("relationship_status", "divorced")]),
        ("I'm from Brazil", [("from", "Brazil")]),
        ("My blood type is O+", [("blood_type", "O+")]),
        ("My pronouns are they/them", [("pronouns", "they/them")]),
        ("I am 172 cm tall", [("height", "172 cm")]),
        ("I just adopted a golden retriever puppy named Max.", [("pet", "Max (golden retriever puppy)")]),
        ("My dog's name is Max", [("pet", "Max (dog)")]),
        ("My wife and I live in Paris", [("lives_in", "Paris")]),
        ("I have a dog", [("pet", "a dog")]),
        ("I have two cats", [("pet", "two cats")]),
        ("I have a daughter named Lily", [("family", "a daughter named Lily")]),
        ("I have two younger sisters", [("family", "two younger sisters")]),
        ("I have asthma", [("health", "asthma")]),
        ("I speak French and German", [("language", "French and German")]),
        ("I drive a red car", [("possession", "a red car")]),
        ("Anna works at Google", [("works_at", "Google")]),
        ("The user lives in Lyon", [("lives_in", "Lyon")]),
        ("我住在上海", [("lives_in", "上海")]),
        ("我现在住在北京三年了", [("lives_in", "北京")]),
        ("我搬到了深圳", [("lives_in", "深圳")]),
        ("我不住在上海了", [("-lives_in", "上海")]),
        ("我在腾讯工作", [("works_at", "腾讯")]),
        ("我是一名软件工程师", [("job", "软件工程师")]),
        ("我辞职了", [("-job", "")]),
        ("我叫王小明", [("name", "王小明")]),
        ("我今年三十岁", [("age", "三十")]),
        ("我生日是5月8日", [("birthday", "5月8日")]),
        ("我的电话是13812345678", [("phone", "13812345678")]),
        ("我结婚了", [("relationship_status", "结婚")]),
        ("我有一只金毛犬叫Max", [("pet", "Max（金毛犬）")]),
        ("我养了两只猫", [("pet", "两只猫")]),
        ("我是上海人", [("from", "上海")]),
        ("我会说法语和英语", [("language", "法语和英语")]),
        ("我有一个妹妹", [("family", "一个妹妹")]),
        ("我有糖尿病", [("health", "糖尿病")]),
    ],
)  # fmt: skip
def test_slots_are_filled(text: str, expected: list[tuple[str, str]]) -> None:
    """A clause that says it in a known way fills its slot with exactly the value."""
    assert read(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "I live in fear", "I live in May", "I moved to tears", "I work at Christmas", "I'm a good cook",
        "I was a nurse", "I wanted to be a nurse", "I'm not a nurse", "I am 34 minutes late", "I'm 5 feet away",
        "I was born in 1990", "I'm single-minded", "I'm engaged in a project", "I'm not married",
        "I don't have asthma", "I do not speak French", "I have two ideas", "I'm from the future",
        "My sister lives in Paris", "He lives in Paris", "You live in Paris", "my number is 5",
        "I'm called by him", "I have a toy car", "My name is not important",
        "My friend's name is Bob", "I live in Paris when it rains and I can",
        "我住院了", "我住校", "我不住校了", "我住三楼", "我住得很远", "我住习惯了", "我住单位宿舍", "我住不惯北京",
        "我住在这里", "我住在上海很开心", "我在家工作", "我在努力工作", "我在晚上工作", "我是好学生", "我叫外卖",
        "我是一个好人", "我不是护士", "我没有糖尿病", "我是医生的女儿", "他住在北京", "你住在北京", "我不是上海人",
    ],
)  # fmt: skip
def test_nothing_is_read_into_a_clause(text: str) -> None:
    """Look-alikes, negations, the past, other people and people one may have several of fill no slot."""
    assert read(text) == []


def test_facts_about_relatives_belong_to_the_relative() -> None:
    """What is said of the speaker's wife or mother has the relative as its subject, never the speaker."""
    (lives,) = facts("My wife lives in Rome", "Anna", chinese=False)
    assert lives.fact == Fact("Anna's wife", "lives_in", "Rome")
    assert lives.text == "Anna's wife lives in Rome."
    (named,) = facts("my wife's name is Sue", "Anna", chinese=False)
    assert named.fact == Fact("Anna's wife", "name", "Sue")
    (works,) = facts("my mom works at IBM", "", chinese=False)
    assert works.fact.subject == "The user's mother"
    (han,) = facts("我老婆住在北京", "小明", chinese=True)
    assert (han.fact.subject, han.text) == ("小明的老婆", "小明的老婆住在北京。")


def test_statements_stand_for_themselves() -> None:
    """The statement of a fact names its subject and reads as a sentence, also when the fact has ended."""
    texts = {
        "I work as an architect": "Anna works as an architect.",
        "I don't work at Acme anymore": "Anna no longer works at Acme.",
        "I quit my job": "Anna no longer has the job of before.",
        "I'm diabetic": "Anna is diabetic.",
    }
    for text, said in texts.items():
        assert [stated.text for stated in facts(text, "Anna", chinese=False)] == [said]
    assert facts("我住在上海", "", chinese=True)[0].text == "用户住在上海。"


def test_every_rule_names_a_slot_of_the_table_and_can_be_said() -> None:
    """No pattern fills a slot that the table does not know, and an ended one has words for it."""
    for rule in RULES:
        slot = SLOTS[rule.slot]
        if rule.ended and not rule.text:
            assert slot.chinese_ended if rule.chinese else slot.english_ended
        assert 0 < rule.confidence <= 1


def test_a_fact_survives_being_stored_with_its_item() -> None:
    """What `fact_fields` writes `fact_of` reads; raw items and other people's `info` hold no fact."""
    fact = Fact("Anna", "lives_in", "Lyon", ended=True)
    item = MemoryItem("m", "c", "u", "x", raw=False, extra=fact_fields(fact))
    assert fact_of(item) == fact
    assert fact_of(replace(item, raw=True)) is None
    for extra in (
        {},
        {"fact": "Lyon"},
        {"fact": {"slot": "lives_in"}},
        {"fact": {"slot": 1, "subject": "a", "value": "b"}},
    ):
        assert fact_of(replace(item, extra=extra)) is None


def test_facts_of_preferences() -> None:
    """Opposite tastes share a slot and differ in value, and spelling does not split a favourite."""

    def fact(text: str) -> Fact | None:
        (one,) = preferences(text, "Anna")
        return fact_of_preference(one, "Anna")

    like, dislike = fact("I love sushi"), fact("I hate eating sushi")
    assert like is not None and dislike is not None
    assert like.identity == dislike.identity and like.value != dislike.value and is_single(like.slot)
    assert fact("My favorite color is blue") == Fact("Anna", "favourite_colour", "blue")
    assert fact("My favourite colours are blue") == Fact("Anna", "favourite_colour", "blue")
    assert fact("I'm allergic to nuts") == Fact("Anna", "allergy:nut", "yes")
    assert fact("Call me Bo") == Fact("Anna", "instruction:call_name", "Bo")
    assert fact("I run every morning") is None


def test_which_slots_have_one_value() -> None:
    """One home, one job, one taste of a thing; several pets, languages and unknown things."""
    assert all(is_single(slot) for slot in ("lives_in", "job", "age", "favourite_food", "taste:tea", "diet"))
    assert not any(is_single(slot) for slot in ("pet", "language", "family", "possession", "health", "shoe"))


def test_values_fold_and_kinds_are_stable_facts() -> None:
    """Case, an article and an end mark do not make another value; slots are user memory."""
    assert (
        Fact("a", "lives_in", "The Netherlands.").folded_value
        == Fact("a", "lives_in", "netherlands").folded_value
    )
    assert Fact(" ANNA  lee", "job", "x").identity == Fact("Anna Lee", "job", "y").identity
    assert {slot.kind for slot in SLOTS.values()} == {MemoryKind.USER}
