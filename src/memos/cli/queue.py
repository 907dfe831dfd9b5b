"""`memos queue`: which queues the store is served by, striking out one that is done with, and the shards of one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from memos.cli.terminal import counted, opened, out, plain, shown
from memos.errors import InvalidInput

queue = typer.Typer(help="The queues that serve the store: list, retire, shards.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(queue, name="queue")


@queue.command("list")
def list_queues() -> None:
    """The queues whose tasks run, or may still run, on the store."""
    with opened() as runtime:
        noted, own = runtime.store.queues(), runtime.queue.identity.id
    for one in noted:
        here = "  (of these settings)" if one.id == own else ""
        out.print(
            plain(f"{one.id}  since {shown(datetime.fromtimestamp(one.since, UTC))}  {one.place}{here}")
        )
    out.print(f"[dim]{counted(len(noted), 'queue')}[/dim]")


@queue.command("retire")
def retire(queue_id: Annotated[str, typer.Argument(help="The id that `memos queue list` shows.")]) -> None:
    """Say that a queue is lost or will never be used on this store again."""
    with opened() as runtime:
        if queue_id == runtime.queue.identity.id:
            raise InvalidInput(
                f"{queue_id} is the queue of these settings: start with the ones of the queue that stays"
            )
        if not runtime.store.retire(queue_id):
            raise InvalidInput(f"no queue {queue_id!r} is noted; see `memos queue list`")
    out.print(plain(f"{queue_id} is struck out; marks are swept again if one queue is left"))


@queue.command("shards")
def shards(
    count: Annotated[
        int | None, typer.Argument(help="Cut the empty queue into so many; none: show them.")
    ] = None,
) -> None:
    """The shards of the queue on Redis, or another number of them."""
    from memos.clock import SystemClock
    from memos.mem_scheduler.queues.redis_streams.layout import Layout
    from memos.mem_scheduler.queues.redis_streams.queue import TAG
    from memos.runtime_queue import redis_address
    from memos.settings import Settings

    settings = Settings.load()
    if settings.queue.effective_backend != "redis":
        raise InvalidInput("only a queue on Redis is cut into shards; see MEMOS_QUEUE__BACKEND")
    address, prefix = redis_address(settings), settings.queue.redis_prefix
    with Layout(address, clock=SystemClock(), prefix=prefix) as layout:
        noted = layout.tags() if count is None else layout.change(count)
        rows = layout.rows(noted or [TAG])
    for one in rows:
        where = f"  slot {one.slot} on {one.node}" if one.node else ""
        holds = f"{counted(one.held, 'message')}, {counted(one.dead, 'dead letter')}"
        out.print(plain(f"{{{one.tag}}}{where}  {holds}"))
    out.print(f"[dim]{counted(len(rows), 'shard')}[/dim]")
    wanted = settings.queue.shards
    if noted is None:
        out.print(
            plain(
                f"not cut yet: the first process that opens it makes {counted(wanted, 'shard')} (MEMOS_QUEUE__SHARDS)",
                "yellow",
            )
        )
    elif len(noted) != wanted:
        out.print(
            plain(
                f"set MEMOS_QUEUE__SHARDS={len(noted)} for every process; it asks for {wanted} here", "yellow"
            )
        )
