"""`memos compact`: what it says is what the store holds, and it can be taken back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memos.memory.compaction import RATIO
from memos.memory.item import ItemStatus
from memos.memory.store import ItemFilter
from memos.runtime import build
from memos.settings import Settings

from .test_items import memos  # noqa: F401  (a fixture)

SENTENCE = (
    "On day {n} we have been to the harbour of Bergen, and it was the best of all the {n} walks that I took."
)


@pytest.fixture
def told(memos: Any, tmp_path: Path) -> Any:  # noqa: F811
    """A cube with a long conversation of long ago."""
    file = tmp_path / "talk.json"
    turns = [
        {"role": "user", "content": SENTENCE.format(n=n), "chat_time": f"2024-01-{n:02d}T10:00:00Z"}
        for n in range(1, 21)
    ]
    file.write_text(json.dumps(turns), encoding="utf-8")
    added = memos("add", "--messages", str(file), "--cube", "walks", "--session", "winter")
    assert added.code == 0, added.err
    return memos


def texts() -> set[str]:
    """The live texts of the cube."""
    with build(Settings.load(), start=False) as runtime:
        wanted = ItemFilter(cube_ids=("walks",), raw=True)
        return {item.memory for item in runtime.store.find(wanted, limit=500).items}


def test_compact_and_expand(told: Any) -> None:
    """The tokens fall below half, every number is still found, and `--expand` gives every word back."""
    full = texts()
    assert full == {SENTENCE.format(n=n) for n in range(1, 21)}
    done = told("compact", "walks", "--json").rows()[0]
    assert done["tokens_after"] < done["tokens_before"]
    short = texts()
    assert len(short) == 20 and len(short & full) < 5
    assert sum(map(len, short)) < sum(map(len, full)) * (RATIO + 0.2)
    with build(Settings.load(), start=False) as runtime:
        archived = runtime.store.find(ItemFilter(statuses=(ItemStatus.ARCHIVED,)), limit=500).items
        assert {item.memory for item in archived} == full - short
        assert {row.cause.task_id for row in runtime.store.journal(limit=20)} == {done["task_id"]}
    assert "tokens that are recalled" in told("compact", "walks", "--expand").out
    assert texts() == full


def test_what_is_not_long_or_not_cold_stays(told: Any) -> None:
    """The limits that are given decide."""
    full = texts()
    told("compact", "walks", "--older-days", "100000")
    told("compact", "walks", "--tokens-min", "100000")
    told("compact", "walks", "--session", "summer")
    assert texts() == full


def test_wrong_calls_are_refused_by_name(told: Any) -> None:
    """An unknown cube and a ratio that keeps nothing or everything leave with 1 and say so."""
    for words, named in (
        (("nowhere",), "nowhere"),
        (("walks", "--ratio", "0"), "ratio"),
        (("walks", "--ratio", "1"), "ratio"),
    ):
        failed = told("compact", *words)
        assert failed.code == 1 and named in failed.err
