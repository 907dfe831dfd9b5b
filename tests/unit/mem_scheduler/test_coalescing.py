"""`mem_update` coalesces: the newest query decides, and what all that wait ask for is recalled."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message

from memos.configs.mem_scheduler import GeneralSchedulerConfig
from memos.errors import ConfigError
from memos.mem_scheduler import current
from memos.memory.item import Capacities
from memos.testing import ManualClock

FACTS = (
    "The puppy Max is allergic to chicken.",
    "The sailing boat Petrel lies in Harwich.",
    "The violin lesson is every Thursday evening.",
    "Grandmother Olga grows tomatoes.",
    "The bicycle needs a new saddle.",
    "The library card expires in June.",
    "The passport is in the top drawer.",
    "The neighbour plays the trumpet at night.",
)
QUERIES = (
    "What is the puppy Max allergic to?",
    "Where does the sailing boat Petrel lie?",
    "When is the violin lesson?",
)


def update(*texts: str) -> list:
    return [message("mem_update", text, item_id=f"m{n}") for n, text in enumerate(texts)]


def places(parts: Parts) -> list[str]:
    return [item.memory for item in parts.store.working(CUBE).items]


def test_working_memory_holds_the_union_of_what_waited(tmp_path: Path, clock: ManualClock) -> None:
    """With three places, three queries that waited together each find their memory there."""
    with assembled(tmp_path, clock=clock, capacities=Capacities(working=3)) as parts:
        parts.remember(*FACTS)
        parts.scheduler.submit_messages(update(*QUERIES))
        assert parts.drain() == 1
        assert set(places(parts)) == {FACTS[0], FACTS[1], FACTS[2]}
        assert {row.state for row in parts.queue.statuses()} == {"completed"}


def test_the_window_holds_every_query_that_waited(still: Parts) -> None:
    """Absorbed queries are asked queries: in their order, with their keywords, once."""
    still.remember(*FACTS)
    still.scheduler.submit_messages(update(*QUERIES))
    still.drain()
    activity = still.services.activity.read(still.store, CUBE, USER)
    assert [one.text for one in activity.queries] == list(QUERIES)
    assert activity.keyword_counts["violin"] == activity.keyword_counts["puppy"] == 1


def test_what_an_older_query_misses_is_recalled_though_the_newest_needs_nothing(still: Parts) -> None:
    """Working memory suffices for the newest, which repeats an earlier one; the older one's gap is filled."""
    still.remember(FACTS[2])
    still.scheduler.submit_messages(update(QUERIES[2]))
    still.drain()
    assert places(still) == [FACTS[2]]
    still.remember(*FACTS[:2])
    still.services.clock.advance(1.0)  # type: ignore[attr-defined]
    still.scheduler.submit_messages(update(QUERIES[1], QUERIES[2]))
    still.drain()
    assert FACTS[1] in places(still)


def test_effects_once_for_a_message_that_runs_for_others(still: Parts, clock: ManualClock) -> None:
    """A worker that dies after the commit: the redelivery changes nothing, and all are settled."""
    still.remember(*FACTS)
    still.scheduler.submit_messages(update(*QUERIES))
    finish = still.queue.finish

    def crash(*args: object, **kwargs: object) -> object:
        raise KeyboardInterrupt

    still.queue.finish = crash  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        still.scheduler.run_once()
    still.queue.finish = finish  # type: ignore[method-assign]
    before = still.services.activity.read(still.store, CUBE, USER)
    version = still.store.working(CUBE).version
    clock.advance(31.0)
    still.drain()
    assert still.services.activity.read(still.store, CUBE, USER) == before
    assert still.store.working(CUBE).version == version == 1
    assert {row.state for row in still.queue.statuses()} == {"completed"}


def test_a_handler_of_ones_own_gets_every_message(still: Parts) -> None:
    """A plain function over the label is not written for messages that stand for several: none is absorbed."""
    seen: list[str] = []
    still.scheduler.register_handlers({"mem_update": lambda batch: seen.extend(m.content for m in batch)})
    still.scheduler.submit_messages(update(*QUERIES))
    still.drain()
    assert seen == list(QUERIES)


def test_the_schedulers_own_method_registered_again_coalesces_on(still: Parts) -> None:
    """Registering the documented method, also with a lease length, leaves the coalescing as it is."""
    method = still.scheduler._memory_update_consumer
    still.scheduler.register_handlers({"mem_update": method})
    still.scheduler.register_handlers({"mem_update": (method, None, 5_000)})
    assert still.queue.policies.get("mem_update").coalesce
    assert still.queue.policies.get("mem_update").min_idle_ms == 5_000


def test_messages_of_other_cubes_and_users_are_never_absorbed(still: Parts) -> None:
    """Each lane coalesces by itself."""
    seen: list[tuple[str, int]] = []
    built_in = still.scheduler._memory_update_consumer

    def watching(batch: list) -> None:
        seen.extend((one.mem_cube_id, len(current.absorbed(one))) for one in batch)
        built_in(batch)

    policy = still.queue.policies.get("mem_update")
    still.scheduler.register_handlers({"mem_update": (watching, policy)})
    still.scheduler.submit_messages(
        [message("mem_update", text, mem_cube_id=cube) for cube in ("a", "b") for text in QUERIES]
    )
    still.drain()
    assert sorted(seen) == [("a", 2), ("b", 2)]


def test_the_process_mode_needs_a_runtime(tmp_path: Path) -> None:
    """A scheduler that nobody can start a process for says so when it is made."""
    config = GeneralSchedulerConfig(scheduler_startup_mode="process")
    with pytest.raises(ConfigError, match="scheduler_startup_mode"), assembled(tmp_path, config=config):
        pass
