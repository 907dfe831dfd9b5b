"""Which kind of memory a text belongs to."""

from __future__ import annotations

import pytest

from memos.memory.classify import classify, kind_of
from memos.memory.extract import derive
from memos.memory.item import MemoryItem, MemoryKind

USER, PREFERENCE, LONG_TERM = MemoryKind.USER, MemoryKind.PREFERENCE, MemoryKind.LONG_TERM


@pytest.mark.parametrize(
    "text",
    [
        "My name is Anna", "I live in Berlin", "I'm 34 years old", "I work as a nurse at Mercy Hospital",
        "I have two younger sisters", "My wife lives in Rome", "I have a dog named Max", "I am allergic to nuts",
        "I'm not allergic to nuts", "I have asthma", "I drive a red car", "I'm a vegetarian", "I speak French",
        "I just adopted a golden retriever puppy named Max.", "Hi! My name is Anna. Nice to meet you!",
        "I live in Berlin and I love sushi", "The user lives in Lyon.", "My birthday is on May 8",
        "我叫王小明", "我住在上海。", "我对花生过敏", "我养了两只猫", "我是一名软件工程师", "你好！我今年三十岁。",
        "我对花生不过敏", "我吃素",
    ],
)  # fmt: skip
def test_stable_facts_are_user_memory(text: str) -> None:
    """Identity, home, work, family, pets, health, allergies and possessions are user memory."""
    assert kind_of(text) is USER


@pytest.mark.parametrize(
    "text",
    [
        "I love sushi", "I don't like mushrooms", "My favourite colour is blue", "Always answer in French",
        "Call me Bo", "I usually take the bus to work", "Every morning I drink green tea", "Hey! I love sushi!",
        "我喜欢喝咖啡", "我不喜欢香菜", "以后都用英文回答我", "叫我小波",
    ],
)  # fmt: skip
def test_tastes_habits_and_instructions_are_preferences(text: str) -> None:
    """Likes, dislikes, favourites, habits and standing instructions are preference memory."""
    assert kind_of(text) is PREFERENCE


@pytest.mark.parametrize(
    "text",
    [
        "I went to the zoo yesterday", "The meeting is at 9:40", "Do I live in Berlin?", "If I lived in Berlin I'd be happy",
        "Bob says I love sushi", "He lives in Berlin", "My sister lives in Berlin", "I used to love sushi", "I'd like a coffee",
        "I live in Berlin. Yesterday I went to the zoo with Tom.", "I love sushi, and yesterday we ate a lot of sushi together",
        "Hello!", "", "ok", "Photosynthesis turns light into sugar", "I live in fear",
        "我昨天去了动物园", "我住在哪里？", "他住在上海", "如果我住在上海就好了", "会议是九点四十", "你好",
    ],
)  # fmt: skip
def test_events_and_doubt_are_long_term_memory(text: str) -> None:
    """Events, mixtures with events, questions, other people and small talk are long-term memory."""
    assert kind_of(text) is LONG_TERM


@pytest.mark.parametrize("role", ["assistant", "system", "tool"])
def test_only_the_user_states_facts_about_the_user(role: str) -> None:
    """The same words from anybody else are long-term memory."""
    for text in ("I live in Berlin", "I love sushi", "我住在上海"):
        assert kind_of(text, role) is LONG_TERM


def test_the_speaker_may_be_named() -> None:
    """A statement about the speaker by name is one about the user, about another name it is not."""
    assert kind_of("Anna lives in Lyon", "user", ("Anna",)) is USER
    assert kind_of("Anna likes sushi.", "user", ("Anna",)) is PREFERENCE
    assert kind_of("Ben lives in Lyon", "user", ("Anna",)) is LONG_TERM


def test_reasons_name_what_decided() -> None:
    """The reason is the slot, the kind of preference, or why there is neither."""
    assert classify("I live in Berlin").reason == "lives_in"
    assert classify("I love sushi").reason == "like"
    assert classify("Is it raining?").reason == "a question"
    assert classify("Hello!").reason == "it states nothing"


@pytest.mark.parametrize(
    "text",
    [
        "I live in Lyon",
        "I love sushi",
        "I'm allergic to nuts",
        "I'm a vegan",
        "Call me Bo",
        "我住在上海",
        "我喜欢喝咖啡",
    ],
)
def test_a_text_and_what_is_derived_from_it_agree(text: str) -> None:
    """The statement derived from a one-fact turn is of the kind of the turn, and classifies alike."""
    (one,) = derive([MemoryItem("m", "c", "u", text, role="user", participants=("Anna",))]).derived
    assert one.kind is kind_of(text, "user", ("Anna",))
    if one.text != "Anna wants to be called Bo.":  # that is no order any more
        assert kind_of(one.text, "user", ("Anna",)) is one.kind
