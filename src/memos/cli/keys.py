"""`memos keys create | list | revoke`: who may use the HTTP API, and for whom.

Works on the file of keys beside the memory; a server that runs sees a change with its next request.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from memos.cli.terminal import counted, errors, out, plain, shown
from memos.errors import InvalidInput

if TYPE_CHECKING:
    from memos.api.keys import ApiKey, KeyFile

app = typer.Typer(help="API keys: make, list, revoke.", no_args_is_help=True)

ROLES = ("admin", "user", "read-only")


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Annotated[
        str, typer.Option("--role", help="admin, user (reads and writes) or read-only.")
    ] = "user",
    user: Annotated[
        list[str] | None, typer.Option("--user", "-u", help="A user it is for, with the cube of that name.")
    ] = None,
    cube: Annotated[list[str] | None, typer.Option("--cube", "-c", help="A further cube it is for.")] = None,
    any_user: Annotated[bool, typer.Option("--any-user", help="For every user.")] = False,
    any_cube: Annotated[bool, typer.Option("--any-cube", help="For every cube.")] = False,
    rate: Annotated[
        int | None,
        typer.Option("--rate", min=0, help="Requests a minute; 0: no limit. Default: the server's."),
    ] = None,
    days: Annotated[
        int | None, typer.Option("--days", min=1, help="How long it is good. Default: for ever.")
    ] = None,
) -> None:
    """Make a key and print it: once, it cannot be shown again."""
    from memos.api.access import Role

    if role not in ROLES:
        raise InvalidInput(f"--role {role!r} is unknown; roles are {', '.join(ROLES)}")
    if (any_user and user) or (any_cube and cube):
        raise InvalidInput("give single users or cubes, or all of them, not both")
    everything = role == "admin"
    made, text = _file().create(
        name,
        role=Role(role),
        users=None if any_user or everything else tuple(user or ()),
        cubes=None if any_cube or everything else tuple(cube or ()),
        rate_per_minute=rate,
        expires_at=datetime.now(UTC) + timedelta(days=days) if days else None,
    )
    errors.print(plain(f"key {made.id} ({made.name}): {_scope(made)}"))
    out.print(text, markup=False, soft_wrap=True)


@app.command("list")
def list_keys(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, for other programs.")
    ] = False,
) -> None:
    """Every key that was made, with its scope and state; never the key itself."""
    now = datetime.now(UTC)
    known = _file().all()
    if as_json:
        for key in known:
            out.print(json.dumps(_as_dict(key, now), ensure_ascii=False), markup=False, soft_wrap=True)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("id", "name", "role", "scope", "made", "state"):
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "role"))
    for key in known:
        state = _state(key, now)
        table.add_row(
            key.id, plain(key.name), str(key.role), plain(_scope(key)), shown(key.created_at), state
        )
    if known:
        out.print(table)
    out.print(f"[dim]{counted(len(known), 'key')}[/dim]")


@app.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="The id, as `memos keys list` shows it.")]) -> None:
    """Let a key open nothing any more, from the next request on."""
    known = _file().revoke(key_id)
    out.print(f"{known.id} revoked", markup=False)


def _file() -> KeyFile:
    from memos.api.keys import KeyFile
    from memos.settings import Settings

    return KeyFile(Settings.load().keys_path)


def _scope(key: ApiKey) -> str:
    if key.role.value == "admin":
        return "everything"
    users = "every user" if key.users is None else ", ".join(key.users) or "no user"
    cubes = "every cube" if key.cubes is None else ", ".join(key.cubes)
    return f"{users} | {cubes}" if cubes else users


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "good" if key.is_good(now) else "expired"


def _as_dict(key: ApiKey, now: datetime) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role.value,
        "users": key.users,
        "cubes": key.cubes,
        "rate_per_minute": key.rate_per_minute,
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "state": _state(key, now),
    }
