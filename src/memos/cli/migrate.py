"""`memos migrate`: make and upgrade the tables of a store on PostgreSQL, as their owner. Forward only."""

from __future__ import annotations

from typing import Annotated

import typer

from memos.cli.terminal import out, plain


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("migrate")(migrate)


def migrate(
    url: Annotated[
        str | None,
        typer.Option(
            "--url", envvar="MEMOS_MIGRATE_URL", help="The owner's address; default: MEMOS_STORE__URL."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is missing and change nothing.")
    ] = False,
) -> None:
    """Bring the tables of a PostgreSQL store to the layout of this version."""
    from memos.runtime_store import migrate_postgres
    from memos.settings import Settings

    report = migrate_postgres(Settings.load(), url, dry_run=dry_run)
    for step in report.steps:
        out.print(plain(f"{'missing' if dry_run else 'done'}  {step}"))
    state = f"{len(report.steps)} steps missing" if dry_run and report.steps else "the layout is the newest"
    out.print(plain(f"{report.place}: {state}; {report.vectors}"))
