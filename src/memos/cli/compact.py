"""`memos compact`: long, cold conversations of a cube in about half the tokens, and back again.

Goes through the scheduler like any other task: one transaction an episode, journal rows and web logs, the
full texts kept in archive records. An interrupted run changes whole episodes only; run it again to go on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from memos.cli.terminal import errors, opened, out
from memos.errors import CubeNotFound, InvalidInput

if TYPE_CHECKING:
    from memos.memory.store import MemoryStore

WAIT_S = 600.0
PAGE_ITEMS = 500

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for other programs.")]


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("compact")(compact)


def compact(
    cube: Annotated[str, typer.Argument(help="The memory cube.")],
    sessions: Annotated[
        list[str] | None, typer.Option("--session", help="Only this conversation; may be repeated.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Share of the tokens to keep at most; default: 0.45.")
    ] = None,
    older_days: Annotated[
        float, typer.Option("--older-days", min=0, help="Only what was said and used before so long.")
    ] = 30.0,
    tokens_min: Annotated[
        int, typer.Option("--tokens-min", min=0, help="Only conversations of so many tokens.")
    ] = 200,
    expand: Annotated[bool, typer.Option("--expand", help="Put the full texts back instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shorten long, cold conversations; their full texts stay in the archive, under the same ids."""
    if ratio is not None and not 0 < ratio < 1:
        raise InvalidInput(f"--ratio {ratio} must lie between 0 and 1")
    from memos.mem_scheduler.handlers.compact import EXPAND_SCOPE, SCOPE, Wanted
    from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
    from memos.mem_scheduler.schemas.task_schemas import MEM_ORGANIZE_TASK_LABEL
    from memos.memory.compaction import RATIO

    wanted = Wanted(
        EXPAND_SCOPE if expand else SCOPE,
        tuple(sessions or ()),
        ratio=RATIO if ratio is None else ratio,
        older_than_days=older_days,
        tokens_min=tokens_min,
    )
    task_id = f"compact-{uuid4()}"
    with opened(start=True) as runtime:
        if cube not in runtime.store.cubes():
            raise CubeNotFound(f"there is no cube {cube!r}; `memos list` shows what there is")
        before = _tokens(runtime.store, cube)
        message = ScheduleMessageItem(
            user_id="memos",
            mem_cube_id=cube,
            label=MEM_ORGANIZE_TASK_LABEL,
            content=wanted.content(),
            task_id=task_id,
        )
        runtime.scheduler.submit_messages(message)
        finished = runtime.drain(WAIT_S)
        after = _tokens(runtime.store, cube)
    if as_json:
        out.print(json.dumps({"tokens_before": before, "tokens_after": after, "task_id": task_id}))
    else:
        out.print(f"{cube}: {before} → {after} tokens that are recalled; task {task_id}", markup=False)
    if not finished:
        errors.print(f"not finished after {WAIT_S:.0f} s; run it again to go on", markup=False)
        raise typer.Exit(1)


def _tokens(store: MemoryStore, cube: str) -> int:
    """Of the texts of all live memories of the cube."""
    from memos.memory.item import MemoryItem
    from memos.memory.store import ItemFilter
    from memos.memory.token_count import count_tokens

    total, cursor = 0, None
    while True:
        page = store.find(ItemFilter(cube_ids=(cube,)), limit=PAGE_ITEMS, cursor=cursor)
        items: Sequence[MemoryItem] = page.items
        total += sum(count_tokens(item.memory) for item in items)
        cursor = page.next_cursor
        if cursor is None:
            return total
