"""`memos working | journal | backup | restore`: what stands in a cube, how it came about, and safe copies.

`working` and `journal` only read. `backup` works while other processes write; `restore` only fills an
empty place and never writes over a store.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from memos.cli.terminal import opened, out, shown
from memos.cli.working_chart import curve
from memos.errors import CubeNotFound, InvalidInput, ItemGone, ItemNotFound, StoreCorrupt
from memos.memory.item import ItemStatus

if TYPE_CHECKING:
    from memos.memory.store import JournalRow, MemoryStore
    from memos.runtime import Runtime
    from memos.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for other programs.")]
CELL_CHARS_MAX = 200
MASK = "(in quarantine: --reveal shows it)"
# All else of an item in quarantine may repeat what it says.
_SHOWN_OF_HELD = frozenset(
    {"id", "cube_id", "user_id", "kind", "status", "version", "role", "created_at", "updated_at", "position"}
)


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("working")(working)
    app.command("journal")(journal)
    app.command("backup")(backup)
    app.command("restore")(restore)


def working(
    cube: Annotated[str, typer.Argument(help="The memory cube.")],
    only_curve: Annotated[
        bool, typer.Option("--curve", help="Only the figures; with --json one object with all of them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show working memory: each place and why it is taken, how often it held what was needed, and how often
    more places would have.
    """
    from memos.memory.working_record import STATE, WorkingRecord
    from memos.memory.working_report import report

    with _opened() as runtime:
        _check_cube(runtime.store, cube)
        found = runtime.store.working(cube)
        capacity = runtime.store.capacities.working
        record = WorkingRecord.from_json(runtime.store.state(cube, STATE))
    told = report(record, capacity=capacity)
    places = [] if only_curve else list(zip(found.entries, found.items, strict=True))
    if as_json and only_curve:
        out.print(json.dumps(asdict(told)), markup=False, soft_wrap=True)
        return
    if as_json:
        for place, (entry, item) in enumerate(places, start=1):
            line = {
                "place": place,
                "score": entry.score,
                "id": item.id,
                "memory": item.memory,
                "why": entry.reason,
                "since": entry.admitted_at.isoformat(),
            }
            out.print(json.dumps(line, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    table = _table("place", "score", "memory", "why", "since")
    for place, (entry, item) in enumerate(places, start=1):
        when = shown(entry.admitted_at)
        table.add_row(str(place), f"{entry.score:.2f}", escape(item.memory), escape(entry.reason), when)
    if places:
        out.print(table)
    if not only_curve:
        out.print(f"[dim]version {found.version}, {len(places)} of {capacity} places[/dim]")
    if told.accesses:
        out.print(curve(told))
    elif only_curve:
        out.print(told.sentence)


def journal(
    subject: Annotated[
        str, typer.Argument(help="The id of a memory or of a task; default: everything.")
    ] = "",
    cube: Annotated[str, typer.Option("--cube", "-c", help="Only this cube.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000)] = 20,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show the texts of memories in quarantine, which may be secrets.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what was changed, newest first: which task, which memory, before and after, and why."""
    with _opened() as runtime:
        if cube:
            _check_cube(runtime.store, cube)
        rows = _rows(runtime.store, subject, cube or None, limit)
        if not reveal:
            rows = _masked(runtime.store, rows)
    if as_json:
        for row in rows:
            out.print(json.dumps(_as_dict(row), ensure_ascii=False), markup=False, soft_wrap=True)
        return
    table = _table("when", "cube", "change", "memory", "before → after", "why", "task")
    for row in rows:
        by = " ".join(part for part in (row.cause.label, row.cause.task_id or row.cause.message_key) if part)
        table.add_row(
            shown(row.at),
            escape(row.cube_id),
            row.op,
            escape(row.item_id) or "working memory",
            escape(_change(row)),
            escape(row.reason),
            escape(by),
        )
    if rows:
        out.print(table)
    out.print(f"[dim]{len(rows)} changes[/dim]")


def backup(
    file: Annotated[Path, typer.Argument(help="The new file. One that is there already is refused.")],
) -> None:
    """Copy the whole memory file, as it is at one moment, while other processes go on writing."""
    with _opened() as runtime:
        size = runtime.store.backup(file.expanduser())
        source = runtime.settings.store_place
    out.print(f"{source} → {file}  {size} bytes", markup=False)


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `memos backup` wrote.")],
) -> None:
    """Put a backup where the memory file belongs, if none is there; then check all of it."""
    from memos.runtime import restore as put_back
    from memos.settings import Settings

    settings = Settings.load()
    put_back(settings, file.expanduser())
    with _opened(settings) as runtime:
        faults = runtime.store.verify()
        count = runtime.store.cubes()
    if faults:
        raise StoreCorrupt(f"{settings.store_place} was restored with {len(faults)} faults: {faults[0]}")
    out.print(f"{file} → {settings.store_place}  {len(count)} cubes, no fault", markup=False)


def _opened(settings: Settings | None = None) -> AbstractContextManager[Runtime]:
    """A runtime without the embedder: nothing here needs it, and a backup must work before a `memos reembed`."""
    from memos.settings import Settings

    chosen = settings or Settings.load()
    models = chosen.models.model_copy(update={"embedder": "none"})
    return opened(chosen.model_copy(update={"models": models}))


def _check_cube(store: MemoryStore, cube: str) -> None:
    if not store.seq(cube):
        raise CubeNotFound(f"no cube {cube!r} holds or ever held memories; `memos list` shows those that do")


def _rows(store: MemoryStore, subject: str, cube: str | None, limit: int) -> list[JournalRow]:
    """The rows about a memory, else those of a task, by its own id or its message's key."""
    if not subject:
        return store.journal(cube_id=cube, limit=limit)
    if "\x00" in subject:
        raise InvalidInput(f"{subject!r} is no id: it holds a NUL character")
    rows = (
        store.journal(cube_id=cube, item_id=subject, limit=limit)
        or store.journal(cube_id=cube, task_id=subject, limit=limit)
        or store.journal(cube_id=cube, message_key=subject, limit=limit)
    )
    if not rows:
        raise ItemNotFound(f"the journal knows no memory and no task {subject!r}")
    return rows


def _masked(store: MemoryStore, rows: Sequence[JournalRow]) -> list[JournalRow]:
    """The rows without what memories say that are held in quarantine, or were and are not live now."""
    held = {row.item_id for row in rows if _shows_held(row)}
    for item_id in {row.item_id for row in rows if row.item_id} - held:
        with contextlib.suppress(ItemGone, ItemNotFound):
            [item] = store.get([item_id])
            if item.status is ItemStatus.QUARANTINED:
                held.add(item_id)
    return [
        replace(row, before=_without_texts(row.before), after=_without_texts(row.after))
        if row.item_id in held
        else row
        for row in rows
    ]


def _shows_held(row: JournalRow) -> bool:
    return any((side or {}).get("status") == ItemStatus.QUARANTINED for side in (row.before, row.after))


def _without_texts(side: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if side is None:
        return None
    return {name: value if name in _SHOWN_OF_HELD else MASK for name, value in side.items()}


def _table(*names: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name in ("place", "score", "when", "since", "change"))
    return table


def _change(row: JournalRow) -> str:
    """Before → after, in as few words as tell it."""
    before, after = row.before or {}, row.after or {}
    if row.op == "replace_working":
        old, new = _ids(before), _ids(after)
        return f"{len(old)} → {len(new)} places: {len(new - old)} came, {len(old - new)} left"
    if row.op == "add":
        return _short(after.get("memory", ""))
    names = sorted((before.keys() | after.keys()) - {"version"})
    return "; ".join(
        f"{name}: {_short(before.get(name, '–'))} → {_short(after.get(name, '–'))}" for name in names
    )


def _ids(places: Mapping[str, Any]) -> set[str]:
    return {entry["id"] for entry in places.get("entries", ())}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    flat = " ".join(text.split())
    return flat if len(flat) <= CELL_CHARS_MAX else flat[: CELL_CHARS_MAX - 1] + "…"


def _as_dict(row: JournalRow) -> dict[str, Any]:
    return {
        "n": row.n,
        "cube_id": row.cube_id,
        "seq": row.seq,
        "at": row.at.isoformat(),
        "op": row.op,
        "item_id": row.item_id,
        "before": row.before,
        "after": row.after,
        "reason": row.reason,
        "task_id": row.cause.task_id,
        "label": row.cause.label,
        "message_key": row.cause.message_key,
        "trace_id": row.cause.trace_id,
        "user_id": row.cause.user_id,
    }
