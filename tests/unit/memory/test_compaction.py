"""Compaction by words and by sentences: what stays, what goes, and that nothing is invented."""

from __future__ import annotations

import re

import pytest

from memos.errors import InvalidInput
from memos.memory.compaction import ITEMS_MAX, SENTENCES_MAX, compact
from memos.memory.item import MemoryItem
from memos.memory.token_count import count_tokens


def episode(*turns: tuple[str, str]) -> list[MemoryItem]:
    return [
        MemoryItem(f"t{n}", "c", "u", text, participants=(name,) if name else (), position=n)
        for n, (name, text) in enumerate(turns)
    ]


TRIP = episode(
    ("Anna", "Hi Ben! How are you?"),
    ("Ben", "Hey! I'm good, thanks. You?"),
    (
        "Anna",
        "Great! I booked the flight to Oslo for 14 March, it leaves at 9:40. So excited about the trip!",
    ),
    ("Ben", "Wow, that's amazing! I love trips."),
    ("Anna", "My sister Clara comes along. She has never seen snow in her whole life, imagine that."),
    ("Ben", "Haha, that's cool. Where will you stay?"),
    (
        "Anna",
        "We rented a cabin near Holmenkollen for 450 euros a week. The flight to Oslo was not cheap either.",
    ),
    ("Ben", "Sounds like fun! Have a great time."),
    ("Anna", "Thanks!"),
)


def test_half_the_tokens_and_every_fact() -> None:
    """At half the tokens the names, numbers and dates of the episode are still there, the small talk is not."""
    done = compact(TRIP, ratio=0.5)
    assert done.tokens_after <= done.tokens_before * 0.5 and done.ratio <= 0.5
    for fact in ("Oslo", "14 March", "9:40", "Clara", "Holmenkollen", "450 euros"):
        assert fact in done.summary, fact
    for talk in ("How are you", "Thanks", "amazing"):
        assert talk not in done.summary
    assert "t0" in done.dropped and "t8" in done.dropped


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_nothing_is_invented_and_every_word_has_its_source(ratio: float) -> None:
    """The kept words of each sentence stand in the item it names, in their order, as does every sentence."""
    done = compact(TRIP, ratio=ratio)
    texts = {item.id: item.memory for item in TRIP}
    for one in done.kept:
        rest = iter(re.findall(r"\w+", texts[one.item_id]))
        assert all(word in rest for word in re.findall(r"\w+", one.text)), one.text
    order = [int(one.item_id[1:]) for one in done.kept]
    assert order == sorted(order)
    assert done.sources == tuple(dict.fromkeys(one.item_id for one in done.kept))
    assert set(done.sources) | set(done.dropped) == set(texts) and not set(done.sources) & set(done.dropped)


def test_whole_sentences_stay_as_they_are() -> None:
    """Asked for whole sentences, each kept one stands word for word in its item; fewer turns have a share."""
    texts = {item.id: item.memory for item in TRIP}
    whole = compact(TRIP, ratio=0.5, whole_sentences=True)
    assert all(one.text in texts[one.item_id] for one in whole.kept)
    assert whole.ratio <= 0.5
    assert len(whole.sources) < len(compact(TRIP, ratio=0.5).sources)


def test_room_that_is_left_goes_to_the_worthiest_sentences_as_they_were_said() -> None:
    """With more budget than telegrams need some sentences stand in full, and the budget holds."""
    done = compact(TRIP, ratio=0.6)
    texts = {item.id: item.memory for item in TRIP}
    spelt_out = [one.text in texts[one.item_id] for one in done.kept]
    assert any(spelt_out) and not all(spelt_out)
    assert done.ratio <= 0.6


def test_the_summary_says_who_speaks_once_a_turn() -> None:
    """Each line is one turn behind its speaker's name; a turn without a name stands alone."""
    done = compact(TRIP)
    assert all(line.startswith(("Anna: ", "Ben: ")) for line in done.summary.splitlines())
    assert len(done.summary.splitlines()) == len(done.sources)
    assert (
        compact(episode(("", "The meeting is on Monday in Rome.")), ratio=1.0).summary
        == "The meeting is on Monday in Rome."
    )


def test_items_can_be_shortened_in_place() -> None:
    """What is kept of each item is a shorter text of that item."""
    shorter = compact(TRIP).by_item()
    for item in TRIP:
        assert count_tokens(shorter.get(item.id, "")) <= count_tokens(item.memory)
    assert "9:40" in shorter["t2"]


def test_repetition_goes_first() -> None:
    """Of sentences that say the same one is kept, and the budget goes to the other one."""
    turns = episode(
        ("Anna", "The blue car needs new brakes from the garage."),
        ("Anna", "The blue car needs new brakes from the garage."),
        ("Anna", "the blue car really needs new brakes from the garage!"),
        ("Anna", "Grandmother knitted a green scarf for everybody."),
    )
    done = compact(turns, ratio=0.5)
    assert len(done.kept) == 2
    assert {"scarf" in one.text for one in done.kept} == {True, False}


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.75, 1.0])
def test_the_budget_holds_and_more_budget_keeps_more(ratio: float) -> None:
    """No ratio is exceeded, and what is kept grows with it."""
    done = compact(TRIP, ratio=ratio)
    assert done.tokens_after <= max(
        done.tokens_before * ratio, min(count_tokens(one.text) for one in done.kept)
    )
    assert done.tokens_after <= compact(TRIP, ratio=min(1.0, ratio * 1.5)).tokens_after or ratio == 1.0


def test_an_absolute_bound() -> None:
    """`tokens_max` bounds beside the ratio."""
    assert compact(TRIP, ratio=1.0, tokens_max=40).tokens_after <= 40
    assert compact(TRIP, ratio=0.2, tokens_max=10_000) == compact(TRIP, ratio=0.2)


def test_an_episode_never_becomes_nothing() -> None:
    """Where not one sentence fits the best is kept; mere small talk gives nothing, and says what it dropped."""
    one = compact(episode(("Anna", "Clara moved to Oslo on 14 March with two dogs.")), ratio=0.1)
    assert len(one.kept) == 1 and one.dropped == ()
    talk = compact(episode(("Anna", "Hi!"), ("Ben", "Hello. Thanks!")))
    assert talk.kept == () and talk.summary == "" and talk.dropped == ("t0", "t1")
    empty = compact([])
    assert (empty.tokens_before, empty.ratio, empty.sources) == (0, 1.0, ())


def test_chinese_episodes() -> None:
    """Chinese sentences are weighed and kept under the same rules."""
    turns = episode(
        ("小明", "你好！最近怎么样？"),
        ("小红", "还不错，谢谢。"),
        ("小明", "我订了3月14日去奥斯陆的机票，九点四十起飞。真的很期待！"),
        ("小红", "太好了！"),
        ("小明", "我妹妹也一起去，我们租了一间小木屋，每周450欧元。"),
    )
    done = compact(turns, ratio=0.75)
    assert "3月14日" in done.summary and "450欧元" in done.summary
    assert "谢谢" not in done.summary and "太好了" not in done.summary
    assert all(one.text.rstrip("。？") in "".join(item.memory for item in turns) for one in done.kept)


def test_the_result_is_the_same_every_time() -> None:
    """Compacting twice gives equal values, and the counted tokens are those of the kept texts."""
    done = compact(TRIP)
    assert done == compact(TRIP)
    assert done.tokens_after == sum(count_tokens(one.text) for one in done.kept)


def test_an_item_of_very_many_sentences_loses_nothing_at_full_budget() -> None:
    """What exceeds the limit of sentences counts as one more sentence."""
    text = " ".join(f"Number {n} is a prime." for n in range(SENTENCES_MAX + 50))
    done = compact(episode(("Anna", text)), ratio=1.0)
    assert done.by_item()["t0"] == text


@pytest.mark.parametrize("sign", [".", "?a", "。", '."', "Dr. ", "\n", "a ", "A.", "[", "了"])
def test_hostile_texts_end(sign: str) -> None:
    """Long runs of marks, abbreviations and line ends are compacted within the budget, in linear time."""
    done = compact(episode(("Anna", f"{sign * 10_000} and the key lies under the blue pot.")), ratio=0.5)
    assert done.tokens_after <= done.tokens_before or done.kept == ()


def test_bad_bounds_are_refused() -> None:
    """A ratio outside (0, 1], a bound of nothing, a diversity outside [0, 1], too many items: refused by name."""
    for ratio in (0.0, -1.0, 1.5):
        with pytest.raises(InvalidInput, match="ratio"):
            compact(TRIP, ratio=ratio)
    with pytest.raises(InvalidInput, match="tokens_max"):
        compact(TRIP, tokens_max=0)
    with pytest.raises(InvalidInput, match="diversity"):
        compact(TRIP, diversity=2.0)
    with pytest.raises(InvalidInput, match="at most"):
        compact(TRIP * (ITEMS_MAX // len(TRIP) + 1))
