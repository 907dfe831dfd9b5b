"""`memos quarantine list | release | drop` and `memos audit`: what is held, and how clean a store is.

Held texts may be secrets: `list` shows the reason and the place, the text itself only when asked to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from memos.cli.terminal import opened, out, shown
from memos.errors import CubeNotFound

if TYPE_CHECKING:
    from memos.memory.held import Quarantine
    from memos.memory.item import MemoryItem
    from memos.memory.store import MemoryStore
    from memos.runtime import Runtime

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for other programs.")]
Cube = Annotated[str, typer.Option("--cube", "-c", help="Only this cube; default: all.")]
Ids = Annotated[list[str], typer.Argument(help="The ids of the memories.")]
PAGE_SIZE = 500
_MEANING = {
    "duplicates": "the same text as an earlier memory",
    "near_duplicates": "an earlier memory in almost the same words",
    "echoes": "repeat what was recalled before, and no user said it",
    "stale": "held no longer, or hardly retained",
    "never_recalled": "old enough, and never used",
    "dangerous": "live, though they would be held today",
}

app = typer.Typer(help="Memories that are held for review.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands to the root."""
    root.add_typer(app, name="quarantine")
    root.command("audit")(audit)


@app.command("list")
def list_held(
    cube: Cube = "",
    show: Annotated[bool, typer.Option("--show", help="Show the texts, which may be secrets.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List what is in quarantine, newest first, and why."""
    with opened() as runtime:
        held = _quarantine(runtime).held(cube_id=cube, limit=limit)
    if as_json:
        for one in held:
            line = {
                "id": one.item.id,
                "cube_id": one.item.cube_id,
                "user_id": one.item.user_id,
                "role": one.item.role,
                "created_at": one.item.created_at.isoformat(),
                "reason": one.reason,
            }
            line |= {"memory": one.item.memory} if show else {}
            out.print(json.dumps(line, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    table = _table("id", "cube", "when", "who", "reason", *(["memory"] if show else []))
    for one in held:
        who = ", ".join(one.item.participants) or one.item.role
        cells = [one.item.id, one.item.cube_id, shown(one.item.created_at), who, one.reason]
        table.add_row(*(escape(cell) for cell in cells), *([escape(one.item.memory)] if show else []))
    if held:
        out.print(table)
    out.print(f"[dim]{len(held)} in quarantine[/dim]")


@app.command("release")
def release(item_ids: Ids) -> None:
    """Let held memories be recalled again; what they teach is learned at once."""
    with opened() as runtime:
        learned = _quarantine(runtime).release(item_ids)
    derived = sum(len(one.added) for one in learned)
    out.print(f"released {len(dict.fromkeys(item_ids))}, {derived} derived")


@app.command("drop")
def drop(item_ids: Ids) -> None:
    """Delete held memories for good."""
    with opened() as runtime:
        dropped = _quarantine(runtime).drop(item_ids)
    out.print(f"dropped {dropped}")


def audit(
    cube: Cube = "",
    ids: Annotated[int, typer.Option("--ids", min=0, help="Show so many ids of each finding.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Count duplicates, echoes, stale, never recalled and dangerous memories."""
    from memos.clock import utc
    from memos.memory import hygiene

    with opened() as runtime:
        if cube and cube not in runtime.store.cubes():
            raise CubeNotFound(f"no cube {cube!r}; `memos list` shows what is stored")
        report = hygiene.audit(_everything(runtime.store, cube), now=utc(runtime.clock.now()))
    found = {
        "duplicates": report.duplicates,
        "near_duplicates": report.near_duplicates,
        "echoes": report.echoes,
        "stale": report.stale,
        "never_recalled": report.never_recalled,
        "dangerous": report.dangerous,
    }
    if as_json:
        counts = {
            name: {"count": len(of), "rate": report.rates[name], "ids": of[:ids]}
            for name, of in found.items()
        }
        line = {"live": report.live, "quarantined": report.quarantined, **counts}
        out.print(json.dumps(line, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    table = _table("finding", "memories", "share", "what it means", "for example")
    for name, of in found.items():
        share = f"{100 * report.rates[name]:.1f} %"
        table.add_row(name.replace("_", " "), str(len(of)), share, _MEANING[name], escape(" ".join(of[:ids])))
    out.print(table)
    out.print(f"[dim]{report.live} live memories, {report.quarantined} in quarantine[/dim]")


def _quarantine(runtime: Runtime) -> Quarantine:
    from memos.memory.held import Quarantine
    from memos.memory.learning import Learner

    tokens_max = runtime.settings.memory.item_tokens_max
    learner = Learner(runtime.store, runtime.indexer, runtime.clock, tokens_max=tokens_max)
    return Quarantine(runtime.store, learner)


def _everything(store: MemoryStore, cube: str) -> Iterator[MemoryItem]:
    """All items that still say something. Ends: a cube holds no more than its capacities and its archive."""
    from memos.memory.item import ItemStatus
    from memos.memory.store import ItemFilter

    statuses = tuple(status for status in ItemStatus if status is not ItemStatus.DELETED)
    wanted = ItemFilter(cube_ids=(cube,) if cube else (), statuses=statuses)
    cursor: str | None = None
    while True:
        page = store.find(wanted, limit=PAGE_SIZE, cursor=cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in ("when", "share"))
    return table
