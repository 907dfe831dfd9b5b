"""`memos tasks …` and `memos dead …`: what became of messages, cancelling them, and what was given up.

Reads and changes the durable queue beside the memory file; a server that runs on the same file sees the
change at once. With `MEMOS_QUEUE__BACKEND=local` there is nothing to see from outside a process.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from memos.cli.terminal import counted, opened, out, plain, shown

if TYPE_CHECKING:
    from memos.mem_scheduler.queues.base import DeadLetter, TaskQueue

tasks = typer.Typer(help="Messages and what became of them: list, cancel.", no_args_is_help=True)
dead = typer.Typer(help="Messages that were given up: look, mend, run again, drop.", no_args_is_help=True)

Keys = Annotated[list[str] | None, typer.Argument(help="Keys, as `memos dead list` shows them.")]
Every = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for other programs.")]
ERROR_CHARS = 80


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(tasks, name="tasks")
    app.add_typer(dead, name="dead")


@tasks.command("list")
def list_tasks(
    user: Annotated[str, typer.Option("--user", "-u", help="Only this user's.")] = "",
    task: Annotated[str, typer.Option("--task", help="Only of this business task.")] = "",
    item: Annotated[str, typer.Option("--item", help="Only of this item.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """What became of messages, the newest submit first."""
    with opened() as runtime:
        found = runtime.queue.statuses(
            user_id=user or None, item_id=item or None, task_id=task or None, limit=limit
        )
    if as_json:
        for one in found:
            out.print(json.dumps(asdict(one), ensure_ascii=False), markup=False, soft_wrap=True)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("key", "submitted", "label", "user", "item", "state", "attempts", "error"):
        table.add_column(name, overflow="fold", no_wrap=name in ("key", "submitted"))
    for one in found:
        table.add_row(
            one.key,
            shown(datetime.fromtimestamp(one.submitted_at, UTC)),
            plain(one.label),
            plain(one.user_id),
            plain(one.item_id),
            str(one.state),
            str(one.attempts),
            plain(one.error[:ERROR_CHARS]),
        )
    if found:
        out.print(table)
    out.print(f"[dim]{len(found)} messages[/dim]")


@tasks.command("cancel")
def cancel(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys, as `memos tasks list` shows them.")] = None,
    user: Annotated[str, typer.Option("--user", "-u", help="All of this user's.")] = "",
    task: Annotated[str, typer.Option("--task", help="All of this business task.")] = "",
    item: Annotated[str, typer.Option("--item", help="All of this item.")] = "",
) -> None:
    """Take out what waits, ask what runs to stop. Several options together must all apply."""
    if bool(keys) == bool(user or task or item):
        raise typer.BadParameter("give keys, or what to cancel by --user, --task and --item")
    with opened() as runtime:
        done = runtime.scheduler.cancel_messages(
            keys or (), user_id=user or None, task_id=task or None, item_id=item or None
        )
    out.print(f"{len(done.taken_out)} taken out, {len(done.asked)} asked to stop")


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
    out.print(f"[dim]{counted(len(letters), 'dead letter')}[/dim]")


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
        count = runtime.queue.dead.retry(_known(runtime.queue, _chosen(keys, every=every)))
    out.print(f"{count} queued again")


@dead.command("purge")
def purge(keys: Keys = None, every: Every = False) -> None:
    """Drop dead letters for good."""
    with opened() as runtime:
        count = runtime.queue.dead.purge(_known(runtime.queue, _chosen(keys, every=every)))
    out.print(f"{count} dropped")


def _chosen(keys: list[str] | None, *, every: bool) -> list[str] | None:
    if bool(keys) == every:
        raise typer.BadParameter("give keys, or --all")
    return keys or None


def _known(queue: TaskQueue, keys: list[str] | None) -> list[str] | None:
    """The keys, when there is a dead letter for each; else InvalidInput, before anything is changed."""
    for key in keys or ():
        queue.dead.show(key)
    return keys


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
