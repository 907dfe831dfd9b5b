"""`memos queue`: which queues the store is served by, striking out one that is done with, and the shards of one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from memos.cli.terminal import opened, out, plain, shown
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
    out.print(f"[dim]{len(noted)} queues[/dim]")


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
    from memos.runtime_queue import redis_address
    from memos.settings import Settings

    settings = Settings.load()
    if settings.queue.effective_backend != "redis":
        raise InvalidInput("only a queue on Redis is cut into shards; see MEMOS_QUEUE__BACKEND")
    address, prefix = redis_address(settings), settings.queue.redis_prefix
    with Layout(address, clock=SystemClock(), prefix=prefix) as layout:
        tags = layout.change(count) if count is not None else layout.tags() or ["ms:0"]
        rows = layout.rows(tags)
    for one in rows:
        where = f"  slot {one.slot} on {one.node}" if one.node else ""
        out.print(plain(f"{{{one.tag}}}{where}  {one.held} messages, {one.dead} dead letters"))
    out.print(f"[dim]{len(rows)} shards[/dim]")
    if count is not None and count != settings.queue.shards:
        out.print(plain(f"set MEMOS_QUEUE__SHARDS={count} for every process", "yellow"))
