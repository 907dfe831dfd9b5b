"""`api_mix_search`: the window that fine recall leaves, and the result that joins it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message

from memos.configs.mem_scheduler import OptimizedSchedulerConfig
from memos.errors import ConfigError
from memos.mem_scheduler.monitors.search_history import SearchHistory, SearchHistoryMonitor
from memos.mem_scheduler.optimized_scheduler import OptimizedScheduler
from memos.mem_scheduler.schemas.message_schemas import UserContext
from memos.memory.item import ItemStatus
from memos.memory.store import SetStatus
from memos.retrieval.mixing import best_of, joined, leans_on_earlier
from memos.retrieval.request import Hit
from memos.testing import ManualClock

SHOP = (
    "The red bicycle at the harbour shop costs 900 euros.",
    "The blue bicycle at the station shop costs 300 euros.",
    "Lea works at the station shop.",
    "The weather was fine in Oslo.",
    "My cat sleeps on the sofa.",
)


@dataclass(frozen=True)
class Asked:
    """A search request as the API has it."""

    query: str
    user_id: str = USER
    top_k: int = 3
    relativity: float = 0.0
    session_id: str | None = None


@contextmanager
def optimized(
    folder: Path, clock: ManualClock, **replaced: Any
) -> Iterator[tuple[Parts, OptimizedScheduler]]:
    with assembled(folder, clock=clock, **replaced) as parts:
        scheduler = OptimizedScheduler(
            OptimizedSchedulerConfig(thread_pool_max_workers=4), queue=parts.queue, services=parts.services
        )
        parts.scheduler = scheduler
        yield parts, scheduler


HERE = UserContext(user_id=USER, mem_cube_id=CUBE)


def history(parts: Parts, cube_id: str = CUBE, user_id: str = USER) -> SearchHistory:
    return parts.services.searches.read(parts.store, cube_id, user_id)


def mix(parts: Parts, scheduler: OptimizedScheduler, query: str, **fields: Any) -> list[str]:
    """The texts of a mixture search; its task has run when it returns."""
    parts.clock.advance(1.0)  # type: ignore[attr-defined]
    items = scheduler.mix_search_memories(Asked(query, **fields), HERE)
    parts.drain()
    return [item.memory for item in items]


def test_a_mixture_search_answers_now_and_leaves_a_window(tmp_path: Path, clock: ManualClock) -> None:
    """The fast result comes at once; its task writes the query and what was found, and nothing else."""
    with optimized(tmp_path, clock) as (parts, scheduler):
        parts.remember(*SHOP)
        found = scheduler.mix_search_memories(Asked("red bicycle", session_id="s1"), HERE)
        assert found[0].memory == SHOP[0]
        assert history(parts) == SearchHistory()
        items = parts.store.journal(limit=100)
        parts.drain()
        (one,) = history(parts).searches
        assert (one.query, one.session_id, one.searched_at) == ("red bicycle", "s1", clock.now())
        assert one.ids[0] == found[0].id
        assert parts.store.journal(limit=100) == items


def test_a_follow_up_is_answered_out_of_the_window(tmp_path: Path, clock: ManualClock) -> None:
    """ "Cheaper ones" alone finds nothing; joined with the window of its session it does."""
    with optimized(tmp_path, clock) as (parts, scheduler):
        parts.remember(*SHOP)
        assert mix(parts, scheduler, "Are there cheaper ones?", session_id="s1") == []
        mix(parts, scheduler, "How much is the bicycle in the shop?", session_id="s1")
        assert SHOP[1] in mix(parts, scheduler, "Are there cheaper ones?", session_id="s1")
        assert mix(parts, scheduler, "Are there cheaper ones?", session_id="s2") == []


def test_what_is_joined_keeps_the_limits_of_the_request(tmp_path: Path, clock: ManualClock) -> None:
    """The window never brings more than top_k, nor what was deleted or archived since."""
    with optimized(tmp_path, clock) as (parts, scheduler):
        ids = parts.remember(*SHOP)
        mix(parts, scheduler, "How much is the bicycle in the shop?", session_id="s1", top_k=3)
        assert len(mix(parts, scheduler, "bicycle shop price", session_id="s1", top_k=1)) == 1
        parts.store.apply([SetStatus((ids[1],), ItemStatus.DELETED, "asked to")])
        parts.store.apply([SetStatus((ids[0],), ItemStatus.ARCHIVED, "test")])
        texts = mix(parts, scheduler, "Are there cheaper ones?", session_id="s1", top_k=5)
        assert SHOP[0] not in texts and SHOP[1] not in texts


def test_windows_are_of_one_user_and_cube(tmp_path: Path, clock: ManualClock) -> None:
    """Interleaved searches of two users and cubes fill four windows, a message for each cube."""
    with optimized(tmp_path, clock) as (parts, scheduler):
        for cube_id in (CUBE, "cube_2"):
            parts.remember(*SHOP, cube_id=cube_id)
        for user_id in (USER, "user_2"):
            scheduler.submit_memory_history_async_task(
                Asked(f"bicycle of {user_id}", user_id=user_id),
                UserContext(readable_cube_ids=[CUBE, "cube_2"]),
            )
        parts.drain()
        for cube_id in (CUBE, "cube_2"):
            for user_id in (USER, "user_2"):
                (one,) = history(parts, cube_id, user_id).searches
                assert one.query == f"bicycle of {user_id}"
                assert one.ids and all(found.startswith(cube_id) for found in one.ids)


def test_the_window_is_bounded_and_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """The last searches stay, the same question once; a new runtime over the same file goes on with them."""
    searches = SearchHistoryMonitor(window=2)
    with optimized(tmp_path, clock, searches=searches) as (parts, scheduler):
        parts.remember(*SHOP)
        for query in ("red bicycle", "blue bicycle", "red bicycle", "cat sofa"):
            mix(parts, scheduler, query)
    with optimized(tmp_path, clock, searches=searches) as (parts, scheduler):
        assert [one.query for one in history(parts).searches] == ["red bicycle", "cat sofa"]
        mix(parts, scheduler, "Oslo weather")
        assert [one.query for one in history(parts).searches] == ["cat sofa", "Oslo weather"]


@pytest.mark.parametrize(
    "content", ["red bicycle", '{"query": "red bicycle"}', '{"search_req": {"query": "red bicycle"}}']
)
def test_all_forms_of_the_content_are_read(still: Parts, content: str) -> None:
    """A bare query, a request and the documented pair mean the same; Redis is nowhere needed."""
    still.remember(*SHOP)
    still.scheduler.submit_messages(message("api_mix_search", content))
    still.drain()
    assert [one.query for one in history(still).searches] == ["red bicycle"]


@pytest.mark.parametrize(
    "content",
    ['{"search_req": {}}', '{"query": ""}', '{"query": "x", "top_k": 0}', '{"query": "x", "memory_ids": 3}'],
)
def test_what_is_no_search_is_dead_lettered(still: Parts, content: str) -> None:
    """A content that no retry can mend goes to the dead letters at once."""
    still.scheduler.submit_messages(message("api_mix_search", content))
    still.drain()
    assert [letter.attempts for letter in still.queue.dead.list()] == [0]


def test_a_redelivered_search_is_written_once(still: Parts) -> None:
    """A crash between commit and finish leaves one entry, and the cube at the same seq."""
    still.remember(*SHOP)
    built_in = still.scheduler.handlers["api_mix_search"]
    runs: list[int] = []

    def crashing(batch: list[object]) -> None:
        built_in(batch)  # type: ignore[arg-type]
        runs.append(still.store.seq(CUBE))
        if len(runs) == 1:
            raise RuntimeError("killed between commit and finish")

    still.scheduler.register_handlers({"api_mix_search": crashing})
    still.scheduler.submit_messages(message("api_mix_search", json.dumps({"query": "red bicycle"})))
    still.drain()
    still.clock.advance(60.0)  # type: ignore[attr-defined]
    still.drain()
    assert len(runs) == 2 and runs[0] == runs[1]
    assert len(history(still).searches) == 1


def test_the_documented_method_acts_when_called_directly(still: Parts) -> None:
    """`_api_mix_search_message_consumer` works outside the queue too."""
    still.remember(*SHOP)
    still.scheduler._api_mix_search_message_consumer([message("api_mix_search", "red bicycle")])
    assert len(history(still).searches) == 1


def hits(parts: Parts, *fits: float) -> list[Hit]:
    items = parts.store.get(
        parts.remember(*[f"Thing {fit} of {len(fits)} and {n}." for n, fit in enumerate(fits)])
    )
    return [Hit(item, 1.0, fit) for item, fit in zip(items, fits, strict=True)]


def test_joining_fills_up_and_displaces_only_what_fits_less(still: Parts) -> None:
    """The first recall keeps its order; others come where there is room, or where they fit better than
    the last, at most half of the places."""
    first, more = hits(still, 0.5, 0.9, 0.2, 0.1), hits(still, 0.8, 0.7, 0.6)
    roomy = joined(first[:2], more, top_k=4, how="no")
    assert [hit.relativity for hit in roomy] == [0.5, 0.9, 0.8, 0.7]
    full = joined(first, more, top_k=4, how="no")
    assert [hit.relativity for hit in full] == [0.5, 0.9, 0.8, 0.7]
    assert joined(first, hits(still, 0.05), top_k=4, how="no") == first
    assert joined(first, first, top_k=4, how="no") == first
    assert best_of([(1.0, first), (0.5, first)])[0].relativity == 0.9


@pytest.mark.parametrize(
    ("query", "leans"),
    [
        ("Are there cheaper ones?", True),
        ("有便宜的吗？", True),
        ("Where does Lea work on Mondays?", False),
        ("小猫叫什么名字？", False),
    ],
)
def test_what_leans_on_an_earlier_question(query: str, leans: bool) -> None:
    """A question with few words that count is read together with the one before it."""
    assert leans_on_earlier(query) is leans


def test_an_impossible_window_is_refused() -> None:
    """A window without a place names itself."""
    with pytest.raises(ConfigError, match="search_window_size=0"):
        SearchHistoryMonitor(window=0)
