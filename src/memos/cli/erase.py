"""`memos erase`: everything of a user out of store, indexes, queue, dead letters and logs, with a receipt."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from memos.cli.terminal import errors, opened, out, plain


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("erase")(erase)


def erase(
    user: Annotated[str, typer.Argument(help="Whose data goes.")],
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds for which running tasks of the user may go on.")
    ] = 10.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase everything of a user for good and print the receipt as JSON. Ends with 1 if traces were found."""
    from memos.erasure import erase as erase_user

    if not yes:
        typer.confirm(f"Erase everything of {user!r} for good?", abort=True, err=True)
    with opened() as runtime:
        receipt = erase_user(runtime, user, wait_s=wait)
    told = asdict(receipt) | {"at": receipt.at.isoformat()}
    out.print(json.dumps(told, ensure_ascii=False, indent=2), markup=False, soft_wrap=True)
    if receipt.traces:
        errors.print(plain(f"{receipt.traces} texts are still there: see `files`, and run it again", "red"))
        raise typer.Exit(1)
