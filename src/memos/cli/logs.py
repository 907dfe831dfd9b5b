"""`memos logs`: the web logs that the store keeps, newest first: what was done to memory, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from memos.cli.terminal import opened, out

TEXT_CHARS = 2_000


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("logs")(logs)


def logs(
    cube: Annotated[str | None, typer.Option("--cube", help="Only of this cube.")] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="Only these, as scheduleMemory or modelFault.")
    ] = None,
    trace: Annotated[str | None, typer.Option("--trace", help="Only of this trace.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what the scheduler told of its work; a `modelFault` with the model's reply as it came."""
    with opened() as runtime:
        found = runtime.store.web_logs(cube_id=cube, label=label, trace_id=trace, limit=limit)
    for _, entry in found:
        if as_json:
            typer.echo(entry.model_dump_json())
            continue
        when = f"{entry.timestamp.astimezone():%Y-%m-%d %H:%M:%S}"
        out.print(f"[dim]{when}[/dim] [cyan]{entry.label:<15}[/cyan] ", end="")
        out.print(f"{entry.mem_cube_id}  {entry.log_content}", markup=False)
        for row in entry.memcube_log_content or () if entry.label == "modelFault" else ():
            raw = str(row.get("content", ""))[:TEXT_CHARS]
            out.print(f"  {row.get('model', '')}: {row.get('reason', '')}", markup=False)
            if raw:
                out.print("\n".join(f"  | {line}" for line in raw.splitlines()), markup=False)
