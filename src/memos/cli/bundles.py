"""`memos export` and `memos import`: a cube, or all cubes of a user, with their open tasks, as versioned JSONL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote
from uuid import uuid4

import typer

from memos.cli.terminal import errors, opened, out, plain
from memos.errors import CubeNotFound, InvalidInput, StoreCorrupt

if TYPE_CHECKING:
    from memos.runtime import Runtime

STORE_NAME, TASKS_FOLDER = "store.db", "tasks"  # of an export of everything

Folder = Annotated[Path, typer.Argument(help="The folder.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("export")(export)
    app.command("import")(import_)


def export(
    folder: Folder,
    cube: Annotated[str | None, typer.Option("--cube", "-c", help="The cube to export.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", "-u", help="Every cube that holds memories of this user alone.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--everything", help="The whole store, journal and logs included, and all open tasks."),
    ] = False,
) -> None:
    """Write a cube, or a user's cubes, with every memory, working memory and open task; or the whole store."""
    if (cube is not None) + (user is not None) + everything != 1:
        raise InvalidInput("name a cube or a user, or take the whole store: --cube, --user or --everything")
    with opened() as runtime:
        if everything:
            _export_everything(runtime, folder)
            return
        if cube is not None:
            _export(runtime, cube, folder)
            return
        shared: list[str] = []
        own: list[str] = []
        for one in runtime.store.cubes(user):
            (own if _is_of(runtime, one, user or "") else shared).append(one)
        for one in own:
            _export(runtime, one, folder / quote(one, safe=""))
        for one in shared:
            errors.print(plain(f"{one} is left out: it holds memories of other users too", "yellow"))
        if not own:
            raise CubeNotFound(f"no cube holds memories of {user!r} alone; export a shared one with --cube")


def import_(
    folder: Folder,
    cube: Annotated[
        str | None, typer.Option("--cube", "-c", help="Another name for the cube; of a single cube only.")
    ] = None,
    tasks_only: Annotated[
        bool, typer.Option("--tasks-only", help="The cube is there already: queue its open tasks.")
    ] = False,
    no_tasks: Annotated[
        bool, typer.Option("--no-tasks", help="Leave the open tasks; of a file that a stranger wrote.")
    ] = False,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Your own export: hold nothing that was not held there.")
    ] = False,
) -> None:
    """Bring in what `memos export` wrote: each cube whole or not at all, each open task once."""
    from memos.mem_cube.bundle import holds_bundle

    if (folder / STORE_NAME).is_file():
        if cube is not None:
            raise InvalidInput(f"{folder} holds a whole store; a cube of it gets no other name")
        _import_everything(folder, tasks_only=tasks_only)
        return
    folders = (
        [folder] if holds_bundle(folder) else sorted(one for one in _inside(folder) if holds_bundle(one))
    )
    if not folders:
        raise InvalidInput(f"{folder} holds no export")
    if tasks_only and no_tasks:
        raise InvalidInput("--tasks-only and --no-tasks leave nothing to bring in")
    if cube is not None and len(folders) > 1:
        raise InvalidInput(f"{folder} holds {len(folders)} cubes; give the folder of one to rename it")
    with opened() as runtime:
        for one in folders:
            _import(runtime, one, cube, tasks_only=tasks_only, no_tasks=no_tasks, trusted=trusted)


def _export_everything(runtime: Runtime, folder: Path) -> None:
    from memos.clock import utc
    from memos.errors import StoreUnavailable
    from memos.mem_cube.tasks_file import OpenTasks, open_tasks_of, write_tasks

    # Tasks first, as with a single cube: one that ends in between is in both and recognises its work.
    now = utc(runtime.clock.now())
    cubes = sorted({lane.lane.mem_cube_id for lane in runtime.queue.depth().lanes})
    open_tasks = {cube_id: tuple(open_tasks_of(runtime.queue, cube_id)) for cube_id in cubes}
    size = runtime.store.backup(folder / STORE_NAME)
    count = 0
    for cube_id, messages in open_tasks.items():
        if messages:
            place = folder / TASKS_FOLDER / quote(cube_id, safe="")
            try:
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnavailable(f"{place} cannot be made: {error.strerror or error}") from error
            write_tasks(place, OpenTasks(str(uuid4()), cube_id, now, messages))
            count += len(messages)
    stored = len(runtime.store.cubes())
    out.print(plain(f"{stored} cubes, {size} bytes, {count} open tasks → {folder}"))


def _import_everything(folder: Path, *, tasks_only: bool) -> None:
    from memos.mem_cube.tasks_file import read_tasks, submit_tasks
    from memos.runtime import restore
    from memos.settings import Settings

    waiting = [read_tasks(one) for one in sorted(_inside(folder / TASKS_FOLDER))]
    if not tasks_only:
        restore(Settings.load(), folder / STORE_NAME)
    with opened() as runtime:
        if faults := runtime.store.verify():
            raise StoreCorrupt(f"{folder} was imported with {len(faults)} faults: {faults[0]}")
        count = sum(submit_tasks(runtime.queue, tasks, cube_id=tasks.cube_id) for tasks in waiting)
        out.print(plain(f"{len(runtime.store.cubes())} cubes, no fault, {count} open tasks"))


def _export(runtime: Runtime, cube_id: str, folder: Path) -> None:
    from memos.clock import utc
    from memos.mem_cube.general import GeneralMemCube
    from memos.mem_cube.tasks_file import OpenTasks, open_tasks_of, write_tasks

    if not runtime.store.seq(cube_id):
        raise CubeNotFound(f"no cube {cube_id!r}; `memos list` shows what is stored")
    # Tasks first: one that ends in between is in both, and recognises its work; the other way round it
    # would be in neither.
    messages = open_tasks_of(runtime.queue, cube_id)
    GeneralMemCube(cube_id, runtime=runtime).dump(folder)
    now = utc(runtime.clock.now())
    write_tasks(folder, OpenTasks(str(uuid4()), cube_id, now, tuple(messages)))
    sizes = runtime.store.sizes(cube_id)
    live = sizes.long_term + sizes.user + sizes.preference
    out.print(
        plain(f"{cube_id}: {live} live, {sizes.archived} archived, {len(messages)} open tasks → {folder}")
    )


def _import(
    runtime: Runtime, folder: Path, name: str | None, *, tasks_only: bool, no_tasks: bool, trusted: bool
) -> None:
    from memos.mem_cube.general import GeneralMemCube
    from memos.mem_cube.tasks_file import FILE_NAME, read_tasks, submit_tasks

    tasks = read_tasks(folder) if (folder / FILE_NAME).is_file() and not no_tasks else None
    if tasks_only:
        if tasks is None:
            raise InvalidInput(f"{folder} holds no {FILE_NAME}")
        cube_id = name or tasks.cube_id
    else:
        cube_id = GeneralMemCube.init_from_dir(
            folder, mem_cube_id=name, runtime=runtime, trusted=trusted
        ).cube_id
    count = submit_tasks(runtime.queue, tasks, cube_id=cube_id) if tasks is not None else 0
    sizes = runtime.store.sizes(cube_id)
    live = sizes.long_term + sizes.user + sizes.preference
    out.print(plain(f"{cube_id}: {live} live, {sizes.archived} archived, {count} open tasks"))
    held = 0 if tasks_only else _held(runtime, cube_id)
    if held:
        advice = "`memos quarantine list` shows them; --trusted takes your own export as it is"
        errors.print(plain(f"{cube_id}: {held} are held in quarantine; {advice}", "yellow"))


def _held(runtime: Runtime, cube_id: str) -> int:
    from memos.memory.item import ItemStatus
    from memos.memory.store import ItemFilter

    wanted = ItemFilter(cube_ids=(cube_id,), statuses=(ItemStatus.QUARANTINED,))
    return runtime.store.find(wanted, limit=1).total


def _is_of(runtime: Runtime, cube_id: str, user_id: str) -> bool:
    from memos.memory.item import ItemStatus
    from memos.memory.store import ItemFilter

    kept = tuple(status for status in ItemStatus if status is not ItemStatus.DELETED)
    everything = runtime.store.find(ItemFilter(cube_ids=(cube_id,), statuses=kept), limit=1).total
    theirs = runtime.store.find(
        ItemFilter(cube_ids=(cube_id,), user_ids=(user_id,), statuses=kept), limit=1
    ).total
    return everything == theirs


def _inside(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if one.is_dir()] if folder.is_dir() else []
