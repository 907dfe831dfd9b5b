"""`memos status` and `memos dead …`: what the queue holds, and what was given up.

Reads and changes the durable queue beside the memory file; a server that runs on the same file sees the
change at once. With `MEMOS_QUEUE__BACKEND=local` there is nothing to see from outside a process.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from memos.cli.terminal import opened, out, plain, shown

if TYPE_CHECKING:
    from memos.mem_scheduler.queues.base import DeadLetter, LaneDepth

dead = typer.Typer(help="Messages that were given up: look, mend, run again, drop.", no_args_is_help=True)

Keys = Annotated[list[str] | None, typer.Argument(help="Keys, as `memos dead list` shows them.")]
Every = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for other programs.")]
LANES_SHOWN = 50
ERROR_CHARS = 80


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("status")(status)
    app.add_typer(dead, name="dead")


def status() -> None:
    """What waits, runs and was given up, lane by lane, and how long tasks wait and run."""
    with opened() as runtime:
        depth = runtime.queue.depth()
    out.print(
        f"{depth.queued} queued, {depth.delayed} delayed, {depth.parked} parked, "
        f"{depth.running} running, {depth.dead} dead"
    )
    if depth.lanes:
        out.print(_lanes(depth.lanes))
        if len(depth.lanes) > LANES_SHOWN:
            out.print(f"[dim]… and {len(depth.lanes) - LANES_SHOWN} more lanes[/dim]")
    if depth.times:
        out.print(_times(depth.times))


def _lanes(lanes: tuple[LaneDepth, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("user", "cube", "label", "queued", "delayed", "parked", "running"):
        table.add_column(
            name, overflow="fold", justify="left" if name in ("user", "cube", "label") else "right"
        )
    for lane in lanes[:LANES_SHOWN]:
        counts = (lane.queued, lane.delayed, lane.parked, lane.running)
        for label in sorted({label for count in counts for label in count}):
            numbers = [str(count.get(label, 0) or "") for count in counts]
            table.add_row(plain(lane.lane.user_id), plain(lane.lane.mem_cube_id), plain(label), *numbers)
    return table


def _times(times: Any) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("label", "waiting p50", "p95", "running p50", "p95"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for label, one in sorted(times.items()):
        seconds = (one.waiting_p50, one.waiting_p95, one.running_p50, one.running_p95)
        table.add_row(plain(label), *("–" if s is None else f"{s * 1000:.1f} ms" for s in seconds))
    return table


@dead.command("list")
def list_letters(
    label: Annotated[str, typer.Option("--label", help="Only this kind of task.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", help="Only this user's.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """The dead letters, newest first."""
    with opened() as runtime:
        letters = runtime.queue.dead.list(label=label or None, user_id=user or None, limit=limit)
    if as_json:
        for letter in letters:
            out.print(json.dumps(_as_dict(letter), ensure_ascii=False), markup=False, soft_wrap=True)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("key", "died", "label", "user", "cube", "attempts", "error"):
        table.add_column(name, overflow="fold", no_wrap=name in ("key", "died"))
    for letter in letters:
        message = letter.message
        table.add_row(
            letter.key,
            shown(datetime.fromtimestamp(letter.died_at, UTC)),
            plain(message.label),
            plain(message.user_id),
            plain(message.mem_cube_id),
            str(letter.attempts),
            plain(letter.error[:ERROR_CHARS]),
        )
    if letters:
        out.print(table)
    out.print(f"[dim]{len(letters)} dead letters[/dim]")


@dead.command("show")
def show(key: Annotated[str, typer.Argument(help="The key.")]) -> None:
    """One dead letter whole, as JSON."""
    with opened() as runtime:
        letter = runtime.queue.dead.show(key)
    out.print(json.dumps(_as_dict(letter), ensure_ascii=False, indent=2), markup=False, soft_wrap=True)


@dead.command("edit")
def edit(
    key: Annotated[str, typer.Argument(help="The key.")],
    content: Annotated[str, typer.Argument(help="The new content of the message.")],
) -> None:
    """Change what a dead letter says, before it is run again."""
    with opened() as runtime:
        letter = runtime.queue.dead.edit(key, content)
    out.print(f"{letter.key} changed", markup=False)


@dead.command("retry")
def retry(keys: Keys = None, every: Every = False) -> None:
    """Queue dead letters again, with fresh budgets, at the end of their lanes."""
    with opened() as runtime:
        count = runtime.queue.dead.retry(_chosen(keys, every=every))
    out.print(f"{count} queued again")


@dead.command("purge")
def purge(keys: Keys = None, every: Every = False) -> None:
    """Drop dead letters for good."""
    with opened() as runtime:
        count = runtime.queue.dead.purge(_chosen(keys, every=every))
    out.print(f"{count} dropped")


def _chosen(keys: list[str] | None, *, every: bool) -> list[str] | None:
    if bool(keys) == every:
        raise typer.BadParameter("give keys, or --all")
    return keys or None


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    return {
        "key": letter.key,
        "label": letter.message.label,
        "user_id": letter.message.user_id,
        "mem_cube_id": letter.message.mem_cube_id,
        "item_id": letter.message.item_id,
        "task_id": letter.message.task_id,
        "trace_id": letter.message.trace_id,
        "content": letter.message.content,
        "error": letter.error,
        "attempts": letter.attempts,
        "recoveries": letter.recoveries,
        "submitted_at": datetime.fromtimestamp(letter.first_at, UTC).isoformat(),
        "died_at": datetime.fromtimestamp(letter.died_at, UTC).isoformat(),
    }
