"""`memos explain`: why a search finds a memory, or at which gate it loses it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from memos.cli.terminal import opened, out, plain
from memos.errors import InvalidInput


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("explain")(explain)


def explain(
    query: Annotated[str, typer.Argument(help="What is searched for.")],
    memory_id: Annotated[str | None, typer.Option("--id", help="The memory that was expected.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="What the expected memory says.")] = None,
    user: Annotated[str, typer.Option("--user", "-u", help="Who asks.", show_default=True)] = "me",
    cube: Annotated[list[str] | None, typer.Option("--cube", "-c", help="The cubes to read.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, max=1_000)] = 10,
    relativity: Annotated[float, typer.Option("--relativity", min=0.0, max=1.0)] = 0.45,
    stages: Annotated[
        list[str] | None, typer.Option("--stage", help="A stage that runs; '-NAME': one that does not.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for other programs.")] = False,
) -> None:
    """Walk every gate between a message and a hit: written, kept, cube, quarantine, filter, channels, cuts."""
    from memos.api.explain_models import ExplainRequest
    from memos.api.handlers import handlers_of

    if (memory_id is None) == (text is None):
        raise InvalidInput("say which memory was expected: its --id, or what it says with --text, not both")
    asked = ExplainRequest(
        query=query,
        memory_id=memory_id,
        expected=text,
        user_id=user,
        readable_cube_ids=cube,
        top_k=top_k,
        relativity=relativity,
        stages=stages,
    )
    with opened() as runtime:
        told = handlers_of(runtime).explain.handle_explain(asked).data
    assert told is not None
    if as_json:
        out.print(json.dumps(told, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    out.print(plain(f"{told['verdict'].replace('_', ' ')}: {told['explanation']}", "bold"))
    if told["memory"] is not None:
        out.print(plain(f"  {told['memory']['memory']}", "dim"))
    for gate in told["gates"]:
        mark = "[green]✓[/green]" if gate["passed"] else "[red]✗[/red]"
        out.print(mark, plain(f"{gate['gate']:<11} {gate['detail']}"))
    for name, one in told["channels"].items():
        out.print(plain(f"  {name:<8} place {one['rank']} of {one['of']}", "dim"))
    for name, score in told["stages"].items():
        out.print(plain(f"  {name:<12} {score:+.3f}", "dim"))
    for task in told["tasks"]:
        ahead = "" if task["ahead"] is None else f", {task['ahead']} ahead"
        error = f": {task['error']}" if task["error"] else ""
        out.print(plain(f"  task {task['key']} {task['label']} {task['state']}{ahead}{error}", "dim"))
