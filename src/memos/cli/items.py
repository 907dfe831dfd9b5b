"""`memos add | list | search | edit | delete`: the memories of a cube from the command line.

Every command goes through the same public path as the HTTP server: what is added here is indexed,
journaled and logged like anything else.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from memos.cli.documents import add_files
from memos.cli.terminal import NARROW_COLUMNS, counted, moment, opened, out, plain, shown
from memos.errors import InvalidInput
from memos.memory.document_items import document_of
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind

Cube = Annotated[str, typer.Option("--cube", "-c", help="The memory cube.", show_default=True)]
User = Annotated[str, typer.Option("--user", "-u", help="The user who owns or asks.", show_default=True)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for other programs.")]

UUID_CHARS = 36


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command("add")(add)
    app.command("list")(list_items)
    app.command("search")(search)
    app.command("edit")(edit)
    app.command("delete")(delete)


def _as_dict(item: MemoryItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "cube_id": item.cube_id,
        "user_id": item.user_id,
        "memory": item.memory,
        "kind": item.kind.value,
        "status": item.status.value,
        "version": item.version,
        "participants": list(item.participants),
        "session_id": item.session_id,
        "happened_at": item.happened_at.isoformat() if item.happened_at else None,
        "created_at": item.created_at.isoformat(),
        "tags": list(item.tags),
        **({"document": dict(told)} if (told := document_of(item)) else {}),
    }


def _table(items: list[MemoryItem], scores: list[str] | None = None) -> Table:
    """One row an item. An id is never broken: where the terminal is narrow it stands below its text."""
    narrow = out.width < NARROW_COLUMNS
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (
        *([] if narrow else ["id"]),
        "when",
        "who",
        "kind",
        "memory",
        *(["score"] if scores else []),
    ):
        table.add_column(
            name,
            overflow="fold",
            no_wrap=name in ("id", "when", "score"),
            min_width=UUID_CHARS if narrow and name == "memory" else None,
        )
    for index, item in enumerate(items):
        kind = item.kind.value.removesuffix("Memory") if narrow else item.kind.value
        row = [
            plain(shown(item.happened_at or item.created_at)),
            plain(item.key if document_of(item) else ", ".join(item.participants) or item.role),
            plain(kind + ("" if item.live else f" ({item.status.value})")),
            plain(item.memory),
        ]
        if narrow:
            row[-1] = row[-1].append("\n").append_text(plain(item.id, "dim"))
        else:
            row.insert(0, plain(item.id))
        table.add_row(*row, *([scores[index]] if scores else []))
    return table


def add(
    text: Annotated[str, typer.Argument(help="The text, or - to read it from standard input.")] = "",
    user: User = "me",
    cube: Cube = "",
    messages: Annotated[
        Path | None,
        typer.Option("--messages", help="A JSON file with a list of {role, content, …} messages."),
    ] = None,
    session: Annotated[str, typer.Option("--session", help="The conversation it belongs to.")] = "",
    at: Annotated[str, typer.Option("--at", help="When it was said (ISO); default: now.")] = "",
    role: Annotated[str, typer.Option("--role", help="user, assistant, system or tool.")] = "user",
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", help="A document, a folder or a pattern such as 'docs/*.pdf'; repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store a memory, a conversation of messages, or documents; searchable when the command returns."""
    from memos.api.handlers import handlers_of
    from memos.api.product_models import APIADDRequest

    if files:
        if text or messages is not None:
            raise InvalidInput("give either a text, --messages or --file, not several of them")
        add_files(files, user=user, cube=cube or user, as_json=as_json)
        return
    given: list[dict[str, Any]]
    if messages is not None:
        given = _read_messages(messages)
    else:
        content = sys.stdin.read() if text == "-" else text
        given = [{"role": role, "content": content}]
        when = moment(at)
        if when is not None:
            given[0]["chat_time"] = when.isoformat()
    with opened(start=True) as runtime:
        request = APIADDRequest(
            user_id=user,
            writable_cube_ids=[cube or user],
            messages=given,
            session_id=session or None,
            async_mode="async",
        )
        response = handlers_of(runtime).add.handle_add_memories(request)
    for row in response.data or []:
        if as_json:
            out.print(json.dumps(row, ensure_ascii=False), markup=False, soft_wrap=True)
        else:
            out.print(plain(f"{row['memory_id']}  {row['memory']}"), soft_wrap=True)
    if not as_json:
        out.print(plain(response.message, "dim"))


def _read_messages(path: Path) -> list[dict[str, Any]]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from error
    if not isinstance(loaded, list):
        raise InvalidInput(f"{path} must hold a list of messages, not {type(loaded).__name__}")
    return loaded


def list_items(
    cube: Annotated[str, typer.Option("--cube", "-c", help="Only this cube; default: all.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", help="Only this user's.")] = "",
    kind: Annotated[str, typer.Option("--kind", help="LongTermMemory, UserMemory or PreferenceMemory.")] = "",
    status: Annotated[str, typer.Option("--status", help="activated, archived, quarantined … or all.")] = "",
    session: Annotated[str, typer.Option("--session", help="Only this conversation.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List memories, newest first."""
    from memos.memory.store import ItemFilter

    wanted = ItemFilter(
        cube_ids=(cube,) if cube else (),
        user_ids=(user,) if user else (),
        session_ids=(session,) if session else (),
        kinds=(_member(MemoryKind, kind, "kind"),) if kind else (),
    )
    if status:
        chosen = tuple(ItemStatus) if status == "all" else (_member(ItemStatus, status, "status"),)
        wanted = replace(wanted, statuses=chosen)
    with opened() as runtime:
        page = runtime.store.find(wanted, limit=limit)
    items = list(page.items)
    if as_json:
        for item in items:
            out.print(json.dumps(_as_dict(item), ensure_ascii=False), markup=False, soft_wrap=True)
        return
    if items:
        out.print(_table(items))
    out.print(f"[dim]{len(items)} of {counted(page.total, 'memory', 'memories')}[/dim]")


def _member(kind: Any, text: str, name: str) -> Any:
    for member in kind:
        if text.lower() in (member.value.lower(), member.name.lower()):
            return member
    raise InvalidInput(f"{text!r} is no {name}; there are: {', '.join(m.value for m in kind)}")


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    user: User = "me",
    cube: Cube = "",
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, max=1_000)] = 10,
    relativity: Annotated[
        float, typer.Option("--relativity", min=0, max=1, help="Leave out weaker hits.")
    ] = 0.0,
    stages: Annotated[
        list[str] | None, typer.Option("--stage", help="A stage that runs; '-NAME': one that does not.")
    ] = None,
    valid_at: Annotated[str, typer.Option("--valid-at", help="What held then: a date, or a time.")] = "",
    known_at: Annotated[str, typer.Option("--known-at", help="What was known then.")] = "",
    reference_time: Annotated[
        str, typer.Option("--reference-time", help="The 'now' of words such as yesterday.")
    ] = "",
    parts: Annotated[
        bool, typer.Option("--parts", help="Show what each stage of recall contributed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recall memories for a query, best first."""
    from memos.api.shapes import way_shape
    from memos.mem_scheduler.schemas.message_schemas import check_text
    from memos.retrieval.hybrid import RecallRequest

    check_text("query", query)
    with opened() as runtime:
        recall = runtime.retriever.search(
            RecallRequest(
                query=query,
                cube_ids=(cube or user,),
                user_id=user,
                top_k=top_k,
                relativity=relativity,
                stages=tuple(stages or ()),
                valid_at=moment(valid_at),
                known_at=moment(known_at),
                reference_time=moment(reference_time),
            )
        )
    if as_json:
        for hit in recall.hits:
            line = _as_dict(hit.item) | {
                "score": hit.score,
                "relativity": hit.relativity,
                "parts": dict(hit.parts),
                "found_by": [way_shape(way) for way in hit.ways],
            }
            out.print(json.dumps(line, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    scores = [f"{hit.relativity:.2f}" for hit in recall.hits]
    if recall.hits:
        out.print(_table([hit.item for hit in recall.hits], scores))
    if parts:
        for hit in recall.hits:
            told = "  ".join(f"{name} {value:.3f}" for name, value in hit.parts.items())
            ways = "; ".join(
                " ".join(
                    [
                        way.stage,
                        *(["from", way.from_id[:8]] if way.from_id else []),
                        *([f"by {way.by}"] if way.by else []),
                    ]
                )
                for way in hit.ways
            )
            out.print(plain(f"{hit.item.id[:8]}  {told}  found by: {ways}", "dim"))
    out.print(plain("; ".join([counted(len(recall.hits), "memory", "memories"), *recall.degraded]), "dim"))


def edit(
    item_id: Annotated[str, typer.Argument(help="The memory's id.")],
    text: Annotated[str, typer.Argument(help="The new text.")],
) -> None:
    """Replace the text of a memory; indexes and working memory follow, the journal keeps the old text."""
    from memos.api.handlers import handlers_of

    with opened() as runtime:
        item = handlers_of(runtime).memory.edit(item_id, text)
    out.print(plain(f"{item.id}  version {item.version}  {item.memory}"))


def delete(
    item_ids: Annotated[list[str], typer.Argument(help="The ids of the memories.")],
) -> None:
    """Delete memories: text, vectors, links and working memory forget them in one step."""
    from memos.api.handlers import handlers_of

    with opened() as runtime:
        deleted = handlers_of(runtime).memory.delete(tuple(item_ids))
    out.print(f"deleted {deleted}")
