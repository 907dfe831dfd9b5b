"""The activity state: windows and counts are bounded, its JSON form loses nothing."""

from __future__ import annotations

import pytest
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts

from memos.errors import ConfigError
from memos.mem_scheduler.monitors.activity import KEYWORDS_KEPT_MAX, Activity, ActivityMonitor


def test_the_window_keeps_the_newest_queries() -> None:
    """Only the last `window` queries are remembered; keyword counts go on."""
    monitor, state = ActivityMonitor(window=2), Activity()
    for number in range(4):
        state = monitor.asked(state, f"query {number}", ("dog",), float(number))
    assert [one.text for one in state.queries] == ["query 2", "query 3"]
    assert state.keyword_counts == {"dog": 4}


def test_keyword_counts_are_bounded() -> None:
    """The rarest keywords leave; those of the newest query stay."""
    monitor = ActivityMonitor()
    state = monitor.asked(Activity(), "often", ("often",) * 3, 0.0)
    state = monitor.asked(state, "many", [f"word{n}" for n in range(KEYWORDS_KEPT_MAX + 50)], 1.0)
    state = monitor.asked(state, "newest", ("newest",), 2.0)
    assert len(state.keyword_counts) == KEYWORDS_KEPT_MAX
    assert {"often", "newest"} <= set(state.keyword_counts)


def test_keywords_are_words_of_the_query() -> None:
    """Keywords are at most the limit, best first, and in any language."""
    monitor = ActivityMonitor(keywords_max=2)
    assert len(monitor.keywords_of("The golden retriever puppy chewed my running shoes")) == 2
    assert monitor.keywords_of("我的狗叫什么名字") != ()


def test_the_json_form_loses_nothing() -> None:
    """What is stored reads back as the same value."""
    monitor = ActivityMonitor()
    state = monitor.recalled(monitor.asked(Activity(), "a query", ("query",), 1.5), 2.5)
    assert Activity.from_json(state.to_json()) == state
    assert Activity.from_json(Activity().to_json()) == Activity()


def test_state_is_kept_per_user_of_a_cube(still: Parts) -> None:
    """Two users of one cube do not overwrite each other's state."""
    monitor = still.services.activity
    for user in (USER, "other"):
        state = monitor.asked(Activity(), f"by {user}", (), 0.0)
        still.store.apply([monitor.change(CUBE, user, state)])
    assert monitor.read(still.store, CUBE, USER).queries[0].text == f"by {USER}"
    assert monitor.read(still.store, CUBE, "other").queries[0].text == "by other"
    assert monitor.read(still.store, "unknown", USER) == Activity()


@pytest.mark.parametrize(
    ("recalled_at", "at", "interval_s", "due"),
    [(None, 5.0, 10.0, True), (0.0, 9.9, 10.0, False), (0.0, 10.0, 10.0, True), (None, 5.0, 0.0, False)],
)
def test_recall_is_due_by_time(recalled_at: float | None, at: float, interval_s: float, due: bool) -> None:
    """Due after the interval since the last recall; never with an interval of 0."""
    state = Activity(recalled_at=recalled_at)
    assert ActivityMonitor().recall_due(state, at=at, interval_s=interval_s) is due


@pytest.mark.parametrize("wrong", [{"window": 0}, {"keywords_max": -1}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    """A window or limit below 1 is a ConfigError."""
    with pytest.raises(ConfigError):
        ActivityMonitor(**wrong)
