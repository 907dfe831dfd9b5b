"""Near-duplicates: the published traps stay apart, rewordings become one, nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import numpy as np
import pytest

from memos.errors import InvalidInput
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, Source
from memos.memory.merge import duplicates, why_not
from memos.memory.signature import difference, signature
from memos.memory.slots import Fact, fact_fields
from memos.models.base import Vectors

DAY0 = datetime(2023, 5, 1, tzinfo=UTC)
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def derived(item_id: str, text: str, **changes: object) -> MemoryItem:
    item = MemoryItem(
        item_id, "c1", "u1", text, kind=MemoryKind.USER, raw=False, created_at=DAY0, updated_at=DAY0,
        sources=(Source("item", item_id="raw-" + item_id),),
    )  # fmt: skip
    return replace(item, **changes)  # type: ignore[arg-type]


def alike(*items: MemoryItem, cosine: float = 0.99) -> dict[str, Vectors]:
    """Unit vectors of which each has the given cosine with the first."""
    first = np.zeros(8, np.float32)
    first[0] = 1.0
    vectors: dict[str, Vectors] = {items[0].id: first}
    for item in items[1:]:
        other = np.zeros(8, np.float32)
        other[0], other[1] = cosine, np.sqrt(1 - cosine**2)
        vectors[item.id] = other
    return vectors


def merged(one: str, other: str, cosine: float = 0.99) -> bool:
    items = derived("a", one), derived("b", other)
    return bool(duplicates(items, alike(*items, cosine=cosine), now=NOW))


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("Anna is allergic to nuts", "Anna is not allergic to nuts", "negation"),
        ("Her flight leaves at 9:40", "Her flight leaves at 9:45", "numbers"),
        ("The code word is zq0x1", "The code word is zq0x2", "numbers"),
        ("The code word is blorf", "The code word is glorf", "words"),
        ("Anna isn't allergic to nuts", "Anna is allergic to nuts", "negation"),
        ("Anna never eats meat", "Anna eats meat", "negation"),
        ("Anna eats without salt", "Anna eats with salt", "negation"),
        ("Anna likes sushi", "Anna dislikes sushi", "negation"),
        ("Anna likes Bob", "Bob likes Anna", "names"),
        ("The train goes from Lyon to Paris", "The train goes from Paris to Lyon", "names"),
        ("dogs chase cats", "cats chase dogs", "order"),
        ("Anna lives in Lyon", "Anna lives in Nice", "names"),
        ("Anna lives in Lyon", "Anna lives near Lyon", "words"),
        ("Anna lives in Lyon", "Anna lived in Lyon", "words"),
        ("Anna is a nurse", "Anna was a nurse", "words"),
        ("Anna is a nurse", "Anna wants to be a nurse", "words"),
        ("Anna's sister is a doctor", "Anna's brother is a doctor", "words"),
        ("Anna is allergic to peanuts", "Anna's brother is allergic to peanuts", "words"),
        ("Anna owns a car", "Anna owns a toy car", "words"),
        ("Anna has 2 cats", "Anna has 3 cats", "numbers"),
        ("Anna has two cats", "Anna has three cats", "numbers"),
        ("Version 1.2 is out", "Version 12 is out", "numbers"),
        ("Anna paid 1,000 euros", "Anna paid 10,000 euros", "numbers"),
        ("小明对花生过敏", "小明对花生不过敏", "negation"),
        ("小明喜欢咖啡", "小明不喜欢咖啡", "negation"),
        ("小明喜欢咖啡", "小明讨厌咖啡", "negation"),
        ("小明住在上海", "小明住在北京", "words"),
        ("小明喜欢小红", "小红喜欢小明", "order"),
        ("航班九点四十起飞", "航班九点五十起飞", ""),
    ],
)  # fmt: skip
def test_what_differs_stays_apart_however_alike_the_vectors_are(one: str, other: str, why: str) -> None:
    """A difference in number, negation, name, rare word, tense or order keeps both, and is named."""
    assert not merged(one, other, cosine=1.0)
    assert difference(one, other).find(why) >= 0 and difference(one, other)
    assert difference(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna lives in Lyon.", "Anna is living in Lyon"),
        ("Anna resides in Lyon", "Anna currently lives in Lyon!"),
        ("Anna likes hiking in the mountains", "Anna really enjoys hiking in the mountains"),
        ("Anna has a dog named Max", "Anna's dog is called Max"),
        ("Anna does not like mushrooms", "Anna hates mushrooms"),
        ("Anna doesn't like mushrooms", "Anna dislikes mushrooms"),
        ("Anna's favourite color is blue", "Anna's favorite colour is blue."),
        ("Anna adopted two cats", "Anna adopted 2 cats"),
        ("Anna paid 1,000 euros", "Anna paid 1000 euros"),
        ("ANNA LIKES SUSHI", "ANNA  LIKES SUSHI."),
        ("小明喜欢咖啡", "小明很喜欢咖啡。"),
        ("小明不喜欢咖啡", "小明讨厌咖啡"),
        ("小明住在上海", "小明现在居住在上海"),
        ("小明有两只猫", "小明有2只猫咪"),
    ],
)
def test_rewordings_become_one(one: str, other: str) -> None:
    """Articles, tense-free rewordings, spellings, synonyms and numerals do not make another fact."""
    assert difference(one, other) == "" == difference(other, one)
    assert merged(one, other)
    assert not merged(one, other, cosine=0.5)


def test_nothing_is_lost_by_a_merge() -> None:
    """Sources, tags and links are united, times are the earliest, confidence the highest, uses added up."""
    one = derived(
        "a", "Anna lives in Lyon", confidence=0.9, tags=("home",), links=("lyon",), use_count=2,
        happened_at=DAY0 + timedelta(days=3), used_at=DAY0 + timedelta(days=9),
    )  # fmt: skip
    other = derived(
        "b", "Anna is living in Lyon.", confidence=0.7, tags=("city",), links=("anna", "lyon"), use_count=3,
        created_at=DAY0 - timedelta(days=5), happened_at=DAY0, used_at=DAY0 + timedelta(days=4),
    )  # fmt: skip
    bare = derived("c", "Anna lives in Lyon now", sources=(), confidence=0.5)
    (cluster,) = duplicates([other, bare, one], alike(one, other, bare), now=NOW)
    assert [item.id for item in cluster.absorb] == ["b", "c"]
    kept = cluster.keep
    assert (kept.id, kept.memory, kept.version, kept.updated_at) == (
        "a",
        "Anna lives in Lyon",
        one.version,
        NOW,
    )
    assert [source.key for source in kept.sources] == ["raw-a", "raw-b", "c"]
    assert (kept.tags, kept.links) == (("home", "city"), ("lyon", "anna"))
    assert (kept.confidence, kept.use_count) == (0.9, 5)
    assert (kept.created_at, kept.happened_at, kept.used_at) == (
        other.created_at, DAY0, DAY0 + timedelta(days=9),
    )  # fmt: skip
    assert "b" in cluster.reason and "c" in cluster.reason


def test_the_result_does_not_depend_on_the_order_of_the_items() -> None:
    """Any order of the same items gives the same clusters."""
    items = [
        derived("a", "Anna lives in Lyon", confidence=0.6), derived("b", "Anna is living in Lyon", confidence=0.9),
        derived("c", "Anna resides in Lyon", confidence=0.9), derived("d", "Anna lives in Nice"),
    ]  # fmt: skip
    vectors = alike(*items)
    results = [duplicates(order, vectors, now=NOW) for order in permutations(items)]
    assert all(len(found) == 1 and found[0].keep.id == "b" for found in results)
    assert len({tuple(item.id for item in found[0].absorb) for found in results}) == 1


def test_no_chain_leads_from_one_text_to_another() -> None:
    """Items that are each like a neighbour but not like the kept one are not drawn in."""
    items = [
        derived(name, text)
        for name, text in (
            ("a", "Anna lives in Lyon"),
            ("b", "Anna is living in Lyon"),
            ("c", "Anna resides in Lyon"),
        )
    ]
    turn = np.deg2rad(30)
    vectors = {
        item.id: np.array([np.cos(n * turn), np.sin(n * turn)], np.float32) for n, item in enumerate(items)
    }  # fmt: skip
    (cluster,) = duplicates(items, vectors, now=NOW)
    assert (cluster.keep.id, [item.id for item in cluster.absorb]) == ("a", ["b"])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"raw": True}, "raw"),
        ({"cube_id": "c2"}, "cubes"),
        ({"user_id": "u2"}, "users"),
        ({"valid_until": DAY0}, "until"),
        ({"extra": fact_fields(Fact("Anna", "lives_in", "Nice"))}, "facts"),
        ({"extra": fact_fields(Fact("Anna", "lives_in", "Lyon", ended=True))}, "facts"),
    ],
)
def test_fields_that_keep_equal_texts_apart(changes: dict[str, object], why: str) -> None:
    """Raw turns, other owners, other times and other facts are never merged, even word for word."""
    one = derived("a", "Anna lives in Lyon", extra=fact_fields(Fact("Anna", "lives_in", "Lyon")))
    other = replace(one, id="b", **changes)  # type: ignore[arg-type]
    assert duplicates([one, other], alike(one, other), now=NOW) == []
    assert why in why_not(one, other, alike(one, other))


def test_what_is_not_live_is_left_alone() -> None:
    """Archived and quarantined items neither absorb nor are absorbed."""
    one, other = derived("a", "Anna lives in Lyon"), derived("b", "Anna lives in Lyon")
    for status in (ItemStatus.ARCHIVED, ItemStatus.QUARANTINED, ItemStatus.DELETED):
        assert duplicates([one, replace(other, status=status)], alike(one, other), now=NOW) == []


def test_the_same_event_on_another_day_is_another_event() -> None:
    """Events merge only on one day; a stable fact keeps its earliest day."""
    ran = derived("a", "Anna ran ten miles", kind=MemoryKind.LONG_TERM, happened_at=DAY0)
    again = replace(ran, id="b", happened_at=DAY0 + timedelta(days=7))
    assert duplicates([ran, again], alike(ran, again), now=NOW) == []
    assert len(duplicates([ran, replace(again, happened_at=DAY0)], alike(ran, again), now=NOW)) == 1


def test_the_more_telling_kind_is_kept() -> None:
    """The same fact as long-term memory and as a preference stays once, as the preference, with the fact."""
    text = derived(
        "a",
        "Anna likes sushi",
        kind=MemoryKind.LONG_TERM,
        extra=fact_fields(Fact("Anna", "taste:sushi", "like")),
    )
    taste = derived("b", "Anna really likes sushi", kind=MemoryKind.PREFERENCE)
    (cluster,) = duplicates([text, taste], alike(text, taste), now=NOW)
    assert (cluster.keep.id, cluster.keep.kind) == ("b", MemoryKind.PREFERENCE)
    assert "fact" in cluster.keep.extra


def test_without_vectors_only_the_same_text_merges() -> None:
    """No vector means no judgement about rewordings, but the very same text is still the same."""
    one, other = derived("a", "Anna lives in Lyon"), derived("b", "anna  LIVES in Lyon")
    assert why_not(one, derived("c", "Anna is living in Lyon"), {}) == "one of them has no vector"
    assert one.content_hash == other.content_hash
    assert len(duplicates([one, replace(other, memory=one.memory)], {}, now=NOW)) == 1


def test_texts_that_say_nothing_are_not_the_same() -> None:
    """Two texts without a word that counts are not merged; the bar of likeness must be a cosine."""
    assert not merged("!!!", "???") and difference("", "") == "neither says anything"
    for bad in (0.0, -1.0, 1.5):
        with pytest.raises(InvalidInput, match="cosine_min"):
            duplicates([], {}, now=NOW, cosine_min=bad)


def test_a_signature_is_bounded() -> None:
    """Only the beginning of an endless text counts."""
    assert len(signature("word " * 100_000).sequence) <= 4_000
