"""Intent by rules: when a recall is left out, when not, and what is searched for."""

from __future__ import annotations

import pytest

from memos.errors import ConfigError
from memos.mem_scheduler.monitors.activity import Activity, AskedQuery
from memos.mem_scheduler.monitors.intent import IntentMonitor
from memos.memory.item import MemoryItem


def item(text: str, item_id: str = "m", **fields: object) -> MemoryItem:
    return MemoryItem(id=item_id, cube_id="c", user_id="u", memory=text, **fields)  # type: ignore[arg-type]


MAX = item("I just adopted a golden retriever puppy named Max.")


def test_an_empty_working_memory_always_triggers() -> None:
    """Without anything in working memory everything is missing."""
    intent = IntentMonitor().detect_intent("What is my dog's name?", [])
    assert intent.trigger_retrieval
    assert intent.missing_evidence == ("What is my dog's name?",)


def test_one_memory_that_speaks_of_everything_suffices() -> None:
    """No recall when a single memory holds all content words of the query."""
    intent = IntentMonitor().detect_intent(
        "What is the name of the golden retriever puppy I adopted?", [item("Rain."), MAX]
    )
    assert not intent.trigger_retrieval
    assert intent.missing_evidence == ()


@pytest.mark.parametrize(
    "query",
    [
        "Where did I adopt my golden retriever puppy, and when does the vet see him?",
        "What am I allergic to?",
        "Max?",  # too few words to tell
        "",
        "???",
    ],
)
def test_whatever_is_in_doubt_triggers(query: str) -> None:
    """A word that no memory holds, or too few words, and recall runs."""
    assert IntentMonitor().detect_intent(query, [MAX]).trigger_retrieval


def test_words_spread_over_memories_do_not_suffice() -> None:
    """Two memories that hold half of the query each are no evidence that they answer it."""
    working = [item("The golden retriever barks.", "a"), item("A puppy was adopted.", "b")]
    intent = IntentMonitor().detect_intent("Who adopted the golden retriever puppy?", working)
    assert intent.trigger_retrieval
    assert "no single" in intent.reason


def test_low_relativity_overrules_the_words() -> None:
    """A memory with all the words that recall finds unfitting does not suffice."""
    query = "the golden retriever puppy named Max"
    monitor = IntentMonitor()
    assert monitor.detect_intent(query, [MAX], relativity={"m": 0.2}).trigger_retrieval
    assert monitor.detect_intent(query, [MAX], relativity={}).trigger_retrieval
    assert not monitor.detect_intent(query, [MAX], relativity={"m": 0.95}).trigger_retrieval


def test_speakers_and_links_count_as_words() -> None:
    """Who speaks, and what an item is linked to, is part of what it speaks of."""
    said = item("I adopted a puppy.", participants=("Elena",), links=("Harbour Street",))
    assert (
        not IntentMonitor().detect_intent("Elena adopted a puppy on Harbour Street", [said]).trigger_retrieval
    )


def test_an_embedder_compares_meanings_without_relativity() -> None:
    """With an embedder, words alone do not suffice: the vectors must be near."""

    class Vector(tuple[float, ...]):
        def __matmul__(self, other: tuple[float, ...]) -> float:
            return sum(a * b for a, b in zip(self, other, strict=True))

    class Fixed:
        dim = 2
        fingerprint = "fixed"

        def __init__(self, angle: tuple[float, float]) -> None:
            self.angle = angle

        def embed(self, texts: list[str]) -> list[Vector]:
            return [Vector((1.0, 0.0)), *(Vector(self.angle) for _ in texts[1:])]

    query = "the golden retriever puppy named Max"
    near, far = IntentMonitor(Fixed((0.9, 0.1))), IntentMonitor(Fixed((0.1, 0.9)))  # type: ignore[arg-type]
    assert not near.detect_intent(query, [MAX]).trigger_retrieval
    assert far.detect_intent(query, [MAX]).trigger_retrieval


def asked(*queries: tuple[str, bool]) -> Activity:
    return Activity(queries=tuple(AskedQuery(text, (), 0.0, recalled) for text, recalled in queries))


def test_a_repeat_of_the_last_recall_is_known() -> None:
    """The query that working memory was recalled for needs no second recall, unless there is news."""
    monitor = IntentMonitor()
    before = asked(("When does Elena feed the puppy?", True), ("thanks a lot", False))
    query = "when does Elena feed the puppy"
    assert not monitor.detect_intent(query, [MAX], activity=before).trigger_retrieval
    assert monitor.detect_intent(query, [MAX], activity=before, news=True).trigger_retrieval
    assert monitor.detect_intent(query, [], activity=before).trigger_retrieval


def test_an_unsure_recall_is_repeated() -> None:
    """When the last recall's places are all about equally good, a repeat of the query recalls again."""
    before = asked(("When does Elena feed the puppy?", True))
    monitor, query = IntentMonitor(spread_min=1.4), "when does Elena feed the puppy"
    assert monitor.detect_intent(query, [MAX], activity=before, spread=0.4).trigger_retrieval
    assert not monitor.detect_intent(query, [MAX], activity=before, spread=2.0).trigger_retrieval
    assert not monitor.detect_intent(query, [MAX], activity=before, spread=None).trigger_retrieval


def test_a_query_for_several_things_needs_a_surer_recall() -> None:
    """The same spread lets a repeat of a question for one thing pass, and not one for several."""
    monitor = IntentMonitor(spread_min=1.4, several_margin=0.5)
    for query, wanted in (
        ("When does Elena feed the puppy?", False),
        ("Which puppies does Elena feed?", True),
    ):
        before = asked((query, True))
        intent = monitor.detect_intent(query, [MAX], activity=before, spread=1.6)
        assert intent.trigger_retrieval is wanted
        assert not monitor.detect_intent(query, [MAX], activity=before, spread=2.0).trigger_retrieval


def test_a_repeat_of_an_older_recall_triggers() -> None:
    """A recall for another query has replaced working memory since."""
    before = asked(("When does Elena feed the puppy?", True), ("Which vet do we see?", True))
    assert (
        IntentMonitor()
        .detect_intent("When does Elena feed the puppy?", [MAX], activity=before)
        .trigger_retrieval
    )


def test_a_query_of_several_clauses_has_several_gaps() -> None:
    """The whole query is searched first, then its clauses, at most gaps_max searches."""
    monitor = IntentMonitor(gaps_max=3)
    query = "What is the vet's name? Which day does Elena feed the puppy? Where do we walk on weekends?"
    assert monitor.gaps(query) == (query, "What is the vet's name", "Which day does Elena feed the puppy")
    assert monitor.gaps("one question only") == ("one question only",)
    assert monitor.gaps("我的狗叫什么名字？我对什么过敏？")[1:] == ("我的狗叫什么名字", "我对什么过敏")


@pytest.mark.parametrize(
    "wrong", [{"terms_min": 0}, {"gaps_max": 0}, {"relativity_min": 1.5}, {"same_query_min": -1}]
)
def test_impossible_thresholds_are_refused(wrong: dict[str, int]) -> None:
    """A threshold outside its range is a ConfigError."""
    with pytest.raises(ConfigError):
        IntentMonitor(**wrong)  # type: ignore[arg-type]
