"""How the hot queries are carried out: by which index, and with which way of summing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memos.memory.item import MemoryItem
from memos.memory.sqlite import SqliteStore, items, recall
from memos.memory.store import AddItems, IndexedItem
from memos.testing import ManualClock

AT = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    words = ("red dog", "red bird", "dog dog bird", "fish", "red red dog bird")
    items = [
        MemoryItem(
            id=f"i{n}", cube_id="c", user_id="u", memory=text, created_at=AT, updated_at=AT, links=(text,)
        )
        for n, text in enumerate(words * 40)
    ]
    with SqliteStore(tmp_path / "m.db", clock=ManualClock()) as opened:
        indexed = (
            IndexedItem(item, {word: item.memory.split().count(word) for word in item.memory.split()})
            for item in items
        )
        opened.apply([AddItems(tuple(indexed))])
        yield opened


@pytest.mark.parametrize(
    ("query", "plan"),
    [
        (recall._FACETS.format(marks="?, ?"), "item USING INTEGER PRIMARY KEY"),
        (recall._ITEMS.format(marks="?, ?"), "item USING INTEGER PRIMARY KEY"),
        (recall._CHANGED, "item USING COVERING INDEX item_by_seq (cube_no=? AND seq>?)"),
        (recall._BEFORE, "item USING INDEX item_by_session (cube_no=? AND session_id=? AND position<?)"),
        (recall._AFTER, "item USING INDEX item_by_session (cube_no=? AND session_id=? AND position>?)"),
        (recall._LINKED, "mention USING PRIMARY KEY (cube_no=? AND sort=? AND live=? AND name=?)"),
        (items._LEAST_VALUABLE, "item USING INDEX item_by_value (cube_no=? AND kind=?"),
    ],
)
def test_hot_queries_take_the_short_way(store: SqliteStore, query: str, plan: str) -> None:
    """Each query is a search in the index made for it: no scan, and nothing sorted."""
    connection = sqlite3.connect(store.path)
    rows = connection.execute(f"EXPLAIN QUERY PLAN {query}", [1] * query.count("?")).fetchall()
    connection.close()
    steps = [row[3] for row in rows]
    assert any(plan in step for step in steps), steps
    assert not any("SCAN" in step or "TEMP B-TREE" in step for step in steps), steps


def test_sums_by_place_and_by_sorting_agree(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far apart the numbers of a cube are, the scores are the same."""
    terms = {"red": 1.0, "dog": 0.5, "bird": 2.0, "missing": 1.0}
    with store.read("c") as opened:
        by_place = opened.search_text(terms, limit=1_000), opened.search_links(["fish", "red dog"], limit=9)
        monkeypatch.setattr("memos.memory.relational.view.DENSE_WIDTH_MAX", 0)
        by_sorting = opened.search_text(terms, limit=1_000), opened.search_links(["fish", "red dog"], limit=9)
    assert len(by_place[0]) == 160
    for one, other in zip(by_place, by_sorting, strict=True):
        assert list(one) == list(other)
        assert one == pytest.approx(other)
