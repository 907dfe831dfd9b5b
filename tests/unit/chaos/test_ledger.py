"""The ledger: what was written is read back, and a line that a kill tore takes no other with it."""

from __future__ import annotations

from pathlib import Path

from memos.chaos.ledger import Accepted, Began, Ended, Event, Killed, Ledger, Settled, read


def test_events_come_back_in_the_order_of_their_times(tmp_path: Path) -> None:
    """Every kind of value survives, whoever wrote first."""
    events: list[Event] = [
        Began(2.0, 7, 1, "u/label", ("label:1", "label:2")),
        Accepted(1.0, 8, ("label:1",)),
        Settled(4.0, 7, 3, ("label:1", "label:2"), ("completed", "retrying")),
        Ended(3.0, 7, 1, True),
    ]
    ledger = Ledger(tmp_path / "ledger")
    for event in events:
        ledger.write(event)
    ledger.close()
    assert read(tmp_path / "ledger") == sorted(events, key=lambda event: event.at)


def test_a_torn_line_takes_no_other_with_it(tmp_path: Path) -> None:
    """A process killed inside a write leaves half a line; the next event is whole."""
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    ledger.write(Accepted(1.0, 8, ("label:1",)))
    with path.open("ab") as file:
        file.write(b'\n["Claimed",{"at":2.0,"pid":7,"ep')
    ledger.write(Killed(3.0, 7, "random"))
    ledger.close()
    assert read(path) == [Accepted(1.0, 8, ("label:1",)), Killed(3.0, 7, "random")]


def test_a_ledger_that_was_never_written_is_empty(tmp_path: Path) -> None:
    """No file, no events."""
    assert read(tmp_path / "none") == []
