"""What counts as a preference of the speaker, and above all what does not."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import combinations

import pytest

from memos.memory.preference import (
    PREFERENCES_MAX,
    Polarity,
    Preference,
    contradicts,
    fold_object,
    preferences,
)

WHEN = datetime(2024, 5, 1, tzinfo=UTC)


def found(text: str, speaker: str = "Anna") -> list[tuple[str, str]]:
    return [(one.polarity.value, one.object) for one in preferences(text, speaker, WHEN)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I love sushi", [("like", "sushi")]),
        ("I really enjoy hiking in the mountains.", [("like", "hiking in the mountains")]),
        ("I'm a huge fan of jazz!", [("like", "jazz")]),
        ("I prefer tea over coffee", [("like", "tea")]),
        ("I don't like mushrooms.", [("dislike", "mushrooms")]),
        ("I do not really like rain", [("dislike", "rain")]),
        ("I really can't stand loud music", [("dislike", "loud music")]),
        ("I’m not a big fan of horror movies", [("dislike", "horror movies")]),
        ("I no longer like tea", [("dislike", "tea")]),
        ("I like tea but not coffee", [("like", "tea"), ("dislike", "coffee")]),
        ("I'm into cars too and love making models", [("like", "cars")]),
        ("I love The Witcher 3", [("like", "The Witcher 3")]),
        ("I love the ocean", [("like", "the ocean")]),
        ("I like also cheese pizza", [("like", "cheese pizza")]),
        ("my favorite color is blue", [("like", "blue")]),
        ('My favourite book is "Dune".', [("like", "Dune")]),
        ("Sushi is my favourite food", [("like", "Sushi")]),
        ("I am allergic to nuts", [("allergy", "nuts")]),
        ("He loves peanut butter treats but I am allergic to nuts.", [("allergy", "nuts")]),
        ("I'm severely allergic to nuts and shellfish, sadly", [("allergy", "nuts"), ("allergy", "shellfish")]),
        ("I have a peanut allergy", [("allergy", "peanut")]),
        ("I'm lactose intolerant", [("allergy", "lactose")]),
        ("I'm a vegetarian", [("habit", "vegetarian")]),
        ("Every morning I drink green tea", [("habit", "drink green tea every morning")]),
        ("I usually take the bus to work", [("habit", "usually take the bus to work")]),
        ("I never eat meat", [("habit", "never eat meat")]),
        ("Always answer in French", [("instruction", "French")]),
        ("Please reply in German", [("instruction", "German")]),
        ("call me Bo", [("instruction", "Bo")]),
        ("Call me Bo from now on, please", [("instruction", "Bo")]),
        ("Never use emojis", [("instruction", "never use emojis")]),
        ("Keep your answers short", [("instruction", "Keep your answers short")]),
        ("From now on, give prices in euros", [("instruction", "give prices in euros")]),
        ("Please remember that I hate olives", [("dislike", "olives")]),
        ("我喜欢喝咖啡", [("like", "喝咖啡")]),
        ("我真的很喜欢爵士乐。", [("like", "爵士乐")]),
        ("我不喜欢香菜", [("dislike", "香菜")]),
        ("我不太喜欢吃辣", [("dislike", "吃辣")]),
        ("我讨厌下雨天", [("dislike", "下雨天")]),
        ("我对花生过敏", [("allergy", "花生")]),
        ("他喜欢花生，但是我对花生严重过敏", [("allergy", "花生")]),
        ("我对海鲜和花生过敏", [("allergy", "海鲜"), ("allergy", "花生")]),
        ("我最喜欢的颜色是蓝色", [("like", "蓝色")]),
        ("我吃素", [("habit", "素食")]),
        ("我每天早上喝咖啡", [("habit", "每天早上喝咖啡")]),
        ("请用法语回答", [("instruction", "法语")]),
        ("以后都用英文回答我", [("instruction", "英文")]),
        ("以后请不要用表情符号", [("instruction", "不要用表情符号")]),
        ("叫我小波", [("instruction", "小波")]),
        ("请叫我小波吧", [("instruction", "小波")]),
    ],
)  # fmt: skip
def test_what_is_read(text: str, expected: list[tuple[str, str]]) -> None:
    """A preference that the speaker states is found with its polarity and its object."""
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "I'm not allergic to nuts",
        "I am no longer allergic to nuts",
        "I don't have any allergies",
        "I don't have a peanut allergy",
        "I don't hate sushi",
        "I don't mind dogs",
        "I dislike neither tea nor coffee",
        "It's not that I don't like sushi",
        "I don't think I like sushi",
        "Do I like jazz",
        "I like jazz?",
        "Am I allergic to nuts?",
        "If I like it I buy sushi",
        "If I were allergic to nuts I would know",
        "Maybe I'm allergic to nuts",
        "I might be allergic to nuts",
        "I'd like a coffee",
        "I would love to go",
        "I wish I liked sushi",
        "I loved the movie",
        "I used to like tea",
        "I was allergic to nuts",
        "I love that movie",
        "I love it",
        "I love the color and texture",
        "I love all the yellow leaves",
        "I love creating a safe, open place",
        "My favourite part is the ending",
        "My favourite one to play is a tune",
        "Never give up!",
        "Always keep going",
        "I love you",
        "I like how you said it",
        "I hate it when people shout",
        "Bob thinks I like jazz",
        "My wife says I hate jazz",
        'She wrote "I love jazz" on the wall',
        "He loves peanut butter treats",
        "My brother is allergic to nuts",
        "Max likes sushi",
        "You like sushi",
        "I always wanted to go to Japan",
        "I always went to Japan",
        "Call me tomorrow",
        "call me back",
        "call me when you can",
        "They call me crazy",
        "Never mind",
        "Always happy to help",
        "You always answer in French",
        "I always know",
        "Is blue my favourite colour",
        "My favourite colour is not blue",
        "我对花生不过敏",
        "我不对花生过敏",
        "我没有对花生过敏",
        "我对花生过敏吗",
        "我是不是对花生过敏",
        "如果我对花生过敏就糟了",
        "你喜欢咖啡吗？",
        "他喜欢咖啡",
        "他说我喜欢咖啡",
        "我妈妈不喜欢咖啡",
        "我爱你",
        "我喜欢的人来了",
        "我不讨厌咖啡",
        "我不是不喜欢咖啡",
        "我以前喜欢咖啡",
        "叫我起床",
        "他们叫我小波",
        "你以后去哪里",
        "你总是用英文回答我吗",
        "",
        "👍👍👍",
    ],
)
def test_what_gives_nothing(text: str) -> None:
    """Negated allergies, double negation, questions, suppositions, wishes, the past and other people: none."""
    assert found(text) == []


def test_statements_stand_for_themselves() -> None:
    """The text names its speaker, or the user where the speaker has no name, and never says "I"."""
    (named,) = preferences("I am allergic to nuts", "Anna", WHEN)
    assert (named.text, named.speaker, named.when) == ("Anna is allergic to nuts.", "Anna", WHEN)
    assert named.explicit and named.key == "allergy:nut"
    assert preferences("I love sushi")[0].text == "The user likes sushi."
    assert preferences("我喜欢咖啡")[0].text == "用户喜欢咖啡。"
    (habit,) = preferences("I usually take the bus to work", "Anna")
    assert not habit.explicit and habit.confidence < named.confidence


@pytest.mark.parametrize(
    ("text", "speaker", "said"),
    [
        ("The user likes hiking", "", "I like hiking"),
        ("Anna does not like mushrooms.", "Anna", "I do not like mushrooms"),
        ("Anna is allergic to nuts", "Anna", "I am allergic to nuts"),
        ("Anna's favourite food is sushi", "Anna", "My favourite food is sushi"),
        ("Anna watches", "Anna", "I watch"),
        ("用户喜欢咖啡", "", "我喜欢咖啡"),
        ("小明对花生过敏", "小明", "我对花生过敏"),
    ],
)
def test_statements_about_the_speaker_by_name_read_like_the_first_person(
    text: str, speaker: str, said: str
) -> None:
    """What was derived from a preference gives the same preference again."""
    assert preferences(text, speaker) == preferences(said, speaker)


def test_reading_what_was_read_changes_nothing() -> None:
    """The statements made of tastes, allergies and favourites are read back as the same keys."""
    for text in ("I love sushi", "I hate rain", "I'm allergic to nuts", "My favourite colour is blue"):
        (first,) = preferences(text, "Anna")
        (second,) = preferences(first.text, "Anna")
        assert (second.key, second.polarity, second.text) == (first.key, first.polarity, first.text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I love sushi", "I don't like sushi"),
        ("I love sushi", "I hate eating sushi"),
        ("I enjoy movies", "I can't stand a movie"),
        ("My favourite colour is blue", "My favourite colour is red"),
        ("Always answer in French", "Always answer in German"),
        ("Call me Bo", "Call me Robert"),
        ("Never use emojis", "Always use emojis"),
        ("I'm a vegan", "I'm a vegetarian"),
        ("我喜欢喝咖啡", "我不喜欢咖啡"),
        ("我最喜欢的颜色是蓝色", "我最喜欢的颜色是红色"),
    ],
)
def test_contradictions(one: str, other: str) -> None:
    """Opposite tastes and second values of what has one value contradict, either way round."""
    (a,), (b,) = preferences(one, "Anna"), preferences(other, "Anna")
    assert contradicts(a, b) and contradicts(b, a)
    assert not contradicts(a, a)
    (stranger,) = preferences(other, "Ben")
    assert not contradicts(a, stranger)


def test_different_things_do_not_contradict() -> None:
    """Preferences about different things, and an allergy beside a taste, hold together."""
    texts = (
        "I love sushi", "I hate rain", "I am allergic to nuts", "I like nuts", "My favourite food is sushi",
        "My favourite colour is blue", "I run every morning", "call me Bo", "Always answer in French",
    )  # fmt: skip
    held = [one for text in texts for one in preferences(text, "Anna")]
    assert len(held) == len(texts)
    assert not any(contradicts(a, b) for a, b in combinations(held, 2))


def test_object_folding() -> None:
    """Articles, case, plural and verbs of consuming do not make another object; a different noun does."""
    assert fold_object("the Movies") == fold_object("watching movies") == fold_object("movie")
    assert fold_object("吃寿司") == fold_object("寿司")
    assert fold_object("glass") == "glass" and fold_object("bus") == "bus"
    assert fold_object("nuts") != fold_object("nutmeg")


def test_one_key_is_told_once_and_the_number_is_bounded() -> None:
    """Repetition gives one preference, and an endless text a bounded number of them."""
    assert len(preferences("I love tea. I love tea. I LOVE the tea!")) == 1
    many = ". ".join(f"I love dish{n:03}" for n in range(300))
    assert len(preferences(many)) == PREFERENCES_MAX


def test_polarities_are_the_published_ones() -> None:
    """A preference has one of five polarities and compares by value."""
    assert [one.value for one in Polarity] == ["like", "dislike", "allergy", "habit", "instruction"]
    assert Preference(Polarity.LIKE, "tea", "A likes tea.", True, 0.9, "taste:tea") == Preference(
        Polarity.LIKE, "tea", "A likes tea.", True, 0.9, "taste:tea"
    )
