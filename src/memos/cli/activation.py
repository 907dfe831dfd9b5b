"""`memos activation`: what is kept ready of prompts, making it, and removing it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from memos.cli.terminal import errors, opened, out, plain, shown
from memos.errors import CubeNotFound, InvalidInput

app = typer.Typer(
    no_args_is_help=True, help="Activation memory: prefixes of prompts that need not be read again."
)

Cube = Annotated[str | None, typer.Option("--cube", help="Only this cube.")]
User = Annotated[str | None, typer.Option("--user", help="Only this reader.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for other programs.")]


@app.command("status")
def status(cube: Cube = None, user: User = None, as_json: AsJson = False) -> None:
    """For each reader: the block, the prefix kept of it, how often it was reused, and why not the last time."""
    from memos.memory.activation.status import status_of

    with opened() as runtime:
        activation = runtime.activation
        found = status_of(activation.blocks.index, cube_id=cube, user_id=user)
        kept_by = activation.keeper.name if activation.keeper is not None else None
        builds = activation.keeper is not None and activation.keeper.builds
    if as_json:
        rows = [asdict(one) for one in found]
        told = {"backend": kept_by, "builds": builds, "blocks": rows}
        out.print(json.dumps(told, default=str, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    backend = kept_by or "none: no language model is configured, or the backend is off"
    out.print(plain(f"backend: {backend}{'' if builds or not kept_by else ' (prepares nothing)'}"))
    if not found:
        out.print("no block yet: a chat that a model answers makes one")
        return
    table = Table(box=None, pad_edge=False)
    for name in (
        "reader",
        "cubes",
        "memories",
        "tokens",
        "prefix",
        "bytes",
        "hits",
        "last miss",
        "after update",
        "used",
    ):
        table.add_column(name, overflow="fold")
    for one in found:
        prefix = one.prefix
        rate = "-" if one.hit_rate is None else f"{one.hit_rate:.0%} of {one.hits + one.misses}"
        table.add_row(
            plain(one.user_id),
            plain(", ".join(one.cube_ids)),
            str(one.memories),
            str(one.tokens),
            "-" if prefix is None else f"{prefix.tokens} ({prefix.usable}/{prefix.memories})",
            "-" if prefix is None else str(prefix.bytes),
            rate,
            one.last_miss or "-",
            "-" if one.update_reuse is None else f"{one.update_reuse:.0%}",
            shown(one.used_at),
        )
    out.print(table)


@app.command("build")
def build(
    cube: Annotated[str, typer.Argument(help="The memory cube.")],
    user: User = None,
) -> None:
    """Prepare the prefix of a cube now, for one reader (by default the one of the cube's name)."""
    with opened() as runtime:
        activation = runtime.activation
        if activation.keeper is None or not activation.keeper.builds:
            raise InvalidInput(
                "nothing here prepares prefixes: set MEMOS_ACTIVATION__BACKEND to vllm, sglang, llama_cpp or "
                "transformers, and a chat model"
            )
        if cube not in runtime.store.cubes():
            raise CubeNotFound(f"there is no cube {cube!r}; `memos list` shows what there is")
        runtime.scheduler.update_activation_memory(label="command", user_id=user or cube, mem_cube_id=cube)
        namespace = activation.blocks.namespace(user or cube, (cube,))
        prefix = activation.keeper.newest(namespace)
        _, log = runtime.store.web_logs(cube_id=cube, limit=1)[0]
    if prefix is None:
        errors.print(plain(log.log_content, "red"))
        raise typer.Exit(1)
    out.print(plain(f"{cube}: {len(prefix.item_ids)} memories, {prefix.tokens} tokens, {prefix.bytes} bytes"))


@app.command("drop")
def drop(cube: Cube = None, user: User = None) -> None:
    """Remove kept prefixes; the next chats do without, and the next promotion makes them anew."""
    with opened() as runtime:
        activation = runtime.activation
        keeper = activation.keeper
        if keeper is None:
            raise InvalidInput(
                "nothing here keeps prefixes: no language model is configured, or the backend is off"
            )
        found = activation.blocks.index.blocks(cube_id=cube, user_id=user)
        doomed = keeper.doom([one.namespace for one in found], "dropped")
        swept = keeper.sweep()
    out.print(f"{doomed} prefixes dropped, {swept.bytes} bytes freed")
    if swept.left:
        errors.print(plain(f"{swept.left} could not be removed yet; the scheduler tries again", "yellow"))
        raise typer.Exit(1)
