"""`memos chaos`: see for yourself what the queue keeps when its processes are killed, paused and cut off."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from memos.cli.terminal import errors, out, plain

if TYPE_CHECKING:
    from memos.chaos.conductor import Progress as State
    from memos.chaos.conductor import Result, Wanted


class Backend(StrEnum):
    """What can be put to the test."""

    LOCAL = "local"
    SQLITE = "sqlite"
    REDIS = "redis"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("chaos")(chaos)


def chaos(
    backend: Annotated[
        Backend, typer.Option("--backend", help="The queue to put to the test.")
    ] = Backend.SQLITE,
    minutes: Annotated[float, typer.Option("--minutes", min=0.05, help="How long faults come.")] = 1.0,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the plan of faults; none: a new one.")
    ] = None,
    kills: Annotated[int, typer.Option("--kills", min=0, help="End after so many; 0: when time is up.")] = 0,
    lease: Annotated[
        float, typer.Option("--lease", min=1.0, help="Seconds of a lease (shorter ones recover sooner).")
    ] = 2.0,
    url: Annotated[
        str, typer.Option("--url", help="A running Redis instead of a private one; it is not killed.")
    ] = "",
    shards: Annotated[
        int, typer.Option("--shards", min=1, max=64, help="Into how many the queue on Redis is cut.")
    ] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result there.")] = None,
) -> None:
    """Kill, pause and cut off workers at random while messages come in, then check every guarantee.

    Works in a folder of its own. Exit code 0: all held; 1: one was broken, with the command to try again.
    """
    from memos.chaos import report
    from memos.chaos.conductor import Wanted, fresh_seed

    wanted = Wanted(
        backend.value,
        seconds=minutes * 60,
        seed=fresh_seed() if seed is None else seed,
        kills=kills,
        lease_s=lease,
        url=url,
        shards=shards,
    )
    result = _shown(wanted)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(f"{backend.value}, seed {wanted.seed}")
    table.add_column("found", justify="right")
    table.add_column("promised")
    for name, value, said in report.rows(result):
        table.add_row(name, value, said)
    out.print(table)
    if json_file is not None:
        report.write_json(result, wanted, json_file)
    if report.ok(result):
        out.print(f"every guarantee held over {result.verdict.kills:,} kills")
        return
    if not result.drained:
        errors.print("[red]the queue was not empty when time was up[/red]")
    for name, count in result.verdict.broken.items():
        errors.print(f"[red]broken: {name}: {count}[/red]")
    for line in result.verdict.examples:
        errors.print(plain(f"  {line}"), soft_wrap=True)
    errors.print(plain(f"ledger, store and queue of this run: {result.folder}"), soft_wrap=True)
    errors.print(plain(f"to try again: {report.again(wanted)}"), soft_wrap=True)
    raise typer.Exit(1)


def _shown(wanted: Wanted) -> Result:
    """Run it under a bar that moves."""
    from memos.chaos.conductor import conduct

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("starting", total=wanted.kills or wanted.seconds, said="")

        def watch(state: State) -> None:
            others = sum(count for kind, count in state.faults.items() if kind != "kill")
            said = f"{state.kills} kills, {others} other faults"
            if state.phase == "draining":
                said += f", {state.remaining} messages left"
            reached = state.kills if wanted.kills else state.seconds
            bar.update(task, description=state.phase, said=said)
            if state.phase == "striking":
                bar.update(task, completed=reached)

        return conduct(wanted, watch)
