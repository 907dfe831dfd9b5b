"""`memos serve`: the HTTP server on the embedded default."""

from __future__ import annotations

from typing import Annotated

import typer

from memos.cli.terminal import errors, plain


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("serve")(serve)


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Default: MEMOS_API__HOST or 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="Default: MEMOS_API__PORT or 8000.")
    ] = None,
) -> None:
    """Serve the HTTP API; data lives under MEMOS_HOME. Stop with Ctrl-C: running tasks are finished first."""
    from memos.api.app import run
    from memos.settings import Settings

    settings = Settings.load()
    changes = {
        name: value
        for name, value in (
            ("host", host),
            ("port", port),
            ("enable_chat", True if settings.api.enable_chat is None else None),
        )
        if value is not None
    }
    settings = settings.model_copy(update={"api": settings.api.model_copy(update=changes)})
    where = f"http://{settings.api.host}:{settings.api.port}"
    errors.print(plain(f"MemScheduler on {where}  (data: {settings.store_place})"))
    run(settings)
