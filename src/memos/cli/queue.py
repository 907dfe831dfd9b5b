"""`memos queue`: which queues the store is served by, and striking out one that is done with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from memos.cli.terminal import opened, out, plain, shown
from memos.errors import InvalidInput

queue = typer.Typer(help="The queues that serve the store: list, retire.", no_args_is_help=True)


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
