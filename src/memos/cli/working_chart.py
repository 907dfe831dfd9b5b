"""The figures of a working memory on a terminal: one line each, and the curve as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from memos.memory.working_report import WorkingReport

BAR_CHARS = 40


def curve(told: WorkingReport) -> RenderableType:
    """What was held, what came and left by cause, and the share that each capacity would have held."""
    rates = Text.assemble(
        f"of {told.accesses:.0f} accesses ({_BASIS[told.basis]}): ",
        (f"{100 * told.hit_rate:.0f} % held", "green"),
        f", {100 * told.ghost_rate:.0f} % ghosts, ",
        f"{100 * (1 - told.hit_rate - told.ghost_rate):.0f} % neither",
    )
    queries = Text(
        f"{told.sufficed} queries without recall, {told.replaced} with; past use counts {told.use_share:.2f}"
    )
    changes = Text("came and left: " + ", ".join(f"{one} {count}" for one, count in told.changes.items()))
    bars = Table(box=None, header_style="bold", pad_edge=False)
    bars.add_column("places", justify="right")
    bars.add_column("held", justify="right")
    bars.add_column("")
    for point in told.curve:
        here = point.capacity == told.capacity
        bar = "█" * round(BAR_CHARS * point.hit_rate)
        mark = " ← now" if here else ""
        bars.add_row(
            str(point.capacity),
            f"{100 * point.hit_rate:.0f} %",
            Text(bar + mark, style="green" if here else "dim"),
        )
    return Group(rates, queries, changes, Text(), bars, Text(), Text(told.sentence))


_BASIS = {"uses": "memories that answers used", "recalls": "the best memories of each recall"}
