"""`memos add --file`, `memos documents list | delete`: files as memories, from the command line.

Every file is stored whole or not at all, in a transaction of its own; one that cannot be read is named at the
end and costs the others nothing (exit code 1). Running the same command again stores only what is new.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from memos.cli.terminal import NARROW_COLUMNS, counted, errors, opened, out, plain, shown
from memos.errors import DocumentError, InvalidInput

if TYPE_CHECKING:
    from memos.documents.sandbox import Sandbox
    from memos.mem_chat.documents import StoredDocument
    from memos.runtime import Runtime

app = typer.Typer(help="Documents: files that were added.", no_args_is_help=True)

PROGRESS_CHUNKS_MIN = 100  # a file with fewer is encoded before anybody looks


def add_files(patterns: Sequence[str], *, user: str, cube: str, as_json: bool) -> None:
    """Store the files that the patterns name."""
    from memos.mem_os.documents import files_of

    paths = list(files_of(patterns))
    failed: list[tuple[Path, str]] = []
    with opened(start=True) as runtime, ExitStack() as used:
        sandbox = runtime.chat.writer.sandbox()
        if sandbox is not None:
            used.enter_context(sandbox)
        bar = used.enter_context(_bar(shows=not as_json))
        whole = bar.add_task(counted(len(paths), "file"), total=len(paths), visible=len(paths) > 1)
        for path in paths:
            try:
                for document in _add(runtime, path, user=user, cube=cube, sandbox=sandbox, bar=bar):
                    _tell(document, as_json=as_json)
            except (DocumentError, InvalidInput) as error:
                failed.append((path, f"{type(error).__name__}: {error}"))
            bar.advance(whole)
    for path, reason in failed:
        errors.print("[red]not added[/red] ", plain(f"{path}: {reason}"), soft_wrap=True)
    if not as_json:
        out.print(plain(f"{len(paths) - len(failed)} of {counted(len(paths), 'file')} in cube {cube}", "dim"))
    if failed:
        raise typer.Exit(1)


def _bar(*, shows: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=errors, transient=True, disable=not (shows and errors.is_terminal))


def _add(
    runtime: Runtime, path: Path, *, user: str, cube: str, sandbox: Sandbox | None, bar: Progress
) -> Sequence[StoredDocument]:
    from memos.mem_os.documents import attachment
    from memos.memory.turns import Conversation

    brought = attachment(path, bytes_max=runtime.settings.documents.bytes_max)
    step = bar.add_task(path.name, total=None, visible=False)

    def encoded(done: int, total: int) -> None:
        bar.update(step, completed=done, total=total, visible=total >= PROGRESS_CHUNKS_MIN)

    try:
        written = runtime.chat.writer.write(
            Conversation((), attachments=(brought,)),
            user_id=user,
            cube_ids=(cube,),
            read="later",
            sandbox=sandbox,
            progress=encoded,
        )
    finally:
        bar.remove_task(step)
    for one in written.quarantined:
        errors.print(plain(f"in quarantine: {one.item.id} ({one.reason})", "yellow"), soft_wrap=True)
    return written.documents


def _tell(document: StoredDocument, *, as_json: bool) -> None:
    if as_json:
        out.print(json.dumps(asdict(document), ensure_ascii=False), markup=False, soft_wrap=True)
        return
    sizes = counted(document.parts, "memory", "memories") + (
        f", {counted(document.pages, 'page')}" if document.pages else ""
    )
    notes = f" ({'; '.join(document.notes)})" if document.notes else ""
    line = f"{document.file_id}  {document.name}: {document.state}, {sizes}{notes}"
    out.print(plain(line), soft_wrap=True)


@app.command("list")
def list_documents(
    cube: Annotated[str, typer.Option("--cube", "-c", help="Only this cube; default: all.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", help="Only this user's.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the documents, newest first."""
    from memos.api.handlers import handlers_of
    from memos.memory.document_items import document_of

    with opened() as runtime:
        found = handlers_of(runtime).memory.documents(cube_id=cube, user_id=user)
    rows: list[dict[str, Any]] = [
        {**document_of(item), "cube_id": item.cube_id, "added": item.created_at.isoformat()} for item in found
    ]
    if as_json:
        for row in rows:
            out.print(json.dumps(row, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    if rows:
        table = Table(box=None, header_style="bold", pad_edge=False)
        # An id takes half of a narrow terminal; what is left there goes to the name. `--json` has the rest.
        left_out = {"kind", "pages", "added"} if out.width < NARROW_COLUMNS else set()
        names = ("id", "name", "kind", "pages", "memories", "cube", "added")
        kept = [number for number, name in enumerate(names) if name not in left_out]
        for number in kept:
            table.add_column(names[number], overflow="fold", no_wrap=names[number] in ("id", "memories"))
        for row, item in zip(rows, found, strict=True):
            cells = (row["id"], row["name"], row["format"], row["pages"] or "", row["parts"], row["cube_id"])
            texts = [*map(str, cells), shown(item.created_at)]
            table.add_row(*(plain(texts[number]) for number in kept))
        out.print(table)
    out.print(f"[dim]{counted(len(rows), 'document')}[/dim]")


@app.command("delete")
def delete_documents(
    file_ids: Annotated[list[str], typer.Argument(help="The ids of the documents.")],
) -> None:
    """Delete documents, every version, and what was read from them, in one step."""
    from memos.api.handlers import handlers_of

    with opened() as runtime:
        deleted = handlers_of(runtime).memory.delete_documents(file_ids)
    out.print(f"deleted {counted(len(set(file_ids)), 'document')}, {counted(deleted, 'memory', 'memories')}")
