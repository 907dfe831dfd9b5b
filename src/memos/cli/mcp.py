"""`memos mcp`: the memory of one user as an MCP server on stdin and stdout."""

from __future__ import annotations

from typing import Annotated

import typer

from memos.cli.terminal import opened


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("mcp")(serve_mcp)


def serve_mcp(
    user: Annotated[str, typer.Option("--user", "-u", help="Whose memory it is.")] = "me",
    cube: Annotated[
        str, typer.Option("--cube", "-c", help="The cube. Default: the one named like the user.")
    ] = "",
) -> None:
    """Serve add, search, feedback, explain and forget over stdio, for an agent that starts this command."""
    from memos.api.mcp import mcp_server

    with opened(start=True) as runtime:
        mcp_server(runtime, user_id=user, cube_id=cube or user).run("stdio")
