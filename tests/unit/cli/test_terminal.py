"""What commands print for people: numbers with their nouns, tables in a narrow terminal, errors that name options."""

from __future__ import annotations

import pytest
from rich.console import Console

from memos.cli.main import main
from memos.cli.status import frame
from memos.cli.terminal import counted
from memos.mem_scheduler.queues.base import Lane, LaneDepth, QueueDepth
from memos.mem_scheduler.queues.picture import Picture


@pytest.mark.parametrize(("number", "told"), [(0, "0 memories"), (1, "1 memory"), (2, "2 memories")])
def test_a_number_goes_with_its_noun(number: int, told: str) -> None:
    assert counted(number, "memory", "memories") == told
    assert counted(number, "key") == f"{number} key{'' if number == 1 else 's'}"


@pytest.mark.parametrize("expected", [[], ["--id", "a", "--text", "b"]])
def test_explain_names_its_options_when_the_expected_memory_is_unclear(
    expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["memos", "explain", "what may he eat", *expected])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 1 and "--id" in told and "--text" in told


def test_the_labels_of_a_quiet_queue_fit_a_narrow_terminal() -> None:
    """Columns without a figure are left out, so that no heading is broken in 80 columns; those with one stay."""
    lane = LaneDepth(Lane("ann", "c", "mem_organize"), {"mem_organize": 3}, {}, {}, {"mem_organize": 1}, {})
    console = Console(width=80)
    with console.capture() as shown:
        console.print(frame(Picture(10.0, QueueDepth(3, 0, 0, 1, 0, 0, (lane,)), (), ())))
    heading, row = shown.get().splitlines()[1:3]
    assert heading.split()[:3] == ["label", "queued", "running"]
    assert "parked" not in heading and "change/s" not in heading
    assert row.split()[:3] == ["mem_organize", "3", "1"]
