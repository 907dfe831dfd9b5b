"""The soak's judge finds what it looks for, and its report counts what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.soak.__main__ import Struck, latency_rows, quantile
from benchmarks.soak.audit import Findings, audit, settled
from benchmarks.soak.clients import Answered, Ledger, fact_of, text_of, texts_in
from benchmarks.soak.watch import sparkline

from memos.memory.item import MemoryItem
from memos.memory.store import AddItems, IndexedItem, ItemFilter, TouchItems
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import run_until_idle

USER = "ann"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    settings = Settings.load({"MEMOS_HOME": str(tmp_path / "soak"), "MEMOS_MODELS__EMBEDDER": "none"})
    with build(settings, start=True) as built:
        yield built


def said(runtime: Runtime, ledger: Ledger, number: int, *, acknowledged: bool = True) -> None:
    """A user's add that was stored and read."""
    turn = {"role": "user", "content": text_of(USER, number), "message_id": f"{USER}-{number}"}
    runtime.chat.writer.write([turn], user_id=USER, cube_ids=[USER], session_id="s", read="later")
    run_until_idle(runtime.scheduler, 60.0)
    noted(ledger, number, acknowledged=acknowledged)


def noted(ledger: Ledger, number: int, *, acknowledged: bool = True) -> None:
    ledger.begin(USER, number)
    ledger.note(
        Answered("add", USER, number, 0.0, 0.1, 1, acknowledged), [] if acknowledged else ["ReadTimeout"]
    )


def stored(runtime: Runtime, text: str, **fields: object) -> None:
    item = MemoryItem(id=f"forged-{text}-{len(fields)}", cube_id=USER, user_id=USER, memory=text, **fields)  # type: ignore[arg-type]
    runtime.store.apply([AddItems((IndexedItem(item, {}),))])


def broken(runtime: Runtime, ledger: Ledger) -> dict[str, int]:
    found: Findings = audit(runtime, ledger)
    return dict(found.broken)


def test_a_sound_run_is_found_sound(runtime: Runtime) -> None:
    """Acknowledged adds, and one whose answer was lost, each there and read once."""
    ledger = Ledger()
    for number in (1, 2):
        said(runtime, ledger, number)
    said(runtime, ledger, 3, acknowledged=False)
    noted(ledger, 4, acknowledged=False)  # never arrived, and nobody was told that it did
    assert settled(runtime)
    found = audit(runtime, ledger)
    assert (dict(found.broken), found.acknowledged, found.stored, found.facts) == ({}, 2, 3, 3)


def test_each_broken_promise_is_found(runtime: Runtime) -> None:
    """What is lost, there twice, invented, unread, somebody else's or counted wrongly is counted by its name."""
    ledger = Ledger()
    said(runtime, ledger, 1)
    noted(ledger, 2)  # acknowledged, and nowhere
    stored(runtime, text_of(USER, 1), session_id="s", raw=True)  # the same once more
    stored(runtime, text_of(USER, 9), session_id="s", raw=True)  # nobody sent it
    stored(runtime, fact_of(USER, 1), raw=False)
    stored(runtime, text_of("bob", 1), raw=True)
    ledger.saw(USER, ["all is well", text_of(USER, 1), text_of("bob", 7)])
    ledger.refused.append("add: 422")
    assert broken(runtime, ledger) == {
        "acknowledged and lost": 1,
        "stored twice": 1,
        "stored and never sent": 1,
        "read twice": 1,
        "foreign texts stored": 1,
        "foreign texts in answers": 1,
        "requests refused": 1,
    }


def test_uses_that_one_task_counted_twice_are_found(runtime: Runtime) -> None:
    """Two rows of the journal for one task and item."""
    ledger = Ledger()
    said(runtime, ledger, 1)
    (turn,) = runtime.store.find(ItemFilter(cube_ids=(USER,), raw=True)).items
    for _ in range(2):  # without a mark, as a store that forgot it would
        runtime.store.apply([TouchItems((turn.id,), "used by an answer")])
    assert broken(runtime, ledger) == {"uses counted twice": 1}


def test_texts_are_found_anywhere_in_an_answer() -> None:
    """However deep they stand."""
    assert texts_in({"a": ["x", {"b": "y"}], "c": 3, "d": None}) == ["x", "y"]


def test_latencies_are_told_apart_by_faults() -> None:
    """What touches a fault's window is counted there, what was given up nowhere."""
    ledger = Ledger()
    for wanted_at, took_s, ok in ((0.0, 1.0, True), (9.5, 1.0, True), (20.0, 3.0, True), (30.0, 9.0, False)):
        ledger.note(Answered("add", USER, 1, wanted_at, took_s, 1, ok), [] if ok else ["503"])
    rows = {row.name: row.measured for row in latency_rows(ledger, [Struck("x", 10.0, 11.0, 15.0)])}
    assert (rows["add, calm, p50"], rows["add, calm, p99"]) == (3_000.0, 3_000.0)
    assert rows["add, at a fault, p50"] == 1_000.0
    assert rows["search, calm, p50"] is None
    assert (quantile([], 0.99), ledger.given_up["503"]) == (0.0, 1)


def test_a_sparkline_shows_peaks_and_gaps() -> None:
    """Each bar is the greatest value of its part; a part without any is a dot."""
    assert sparkline([0, 8, None, 4], width=60) == "▁█·▅"
    assert sparkline([0, 8] * 60, width=60) == "█" * 60
    assert sparkline([]) == ""
