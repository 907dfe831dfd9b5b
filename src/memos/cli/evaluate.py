"""`memos eval locomo DIR`: recall measured on real conversations, through the public path."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from memos.cli.terminal import errors, out
from memos.errors import InvalidInput

app = typer.Typer(help="Measure the system on data sets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure the system on data sets."""


@app.command("locomo")
def locomo(
    folder: Annotated[Path, typer.Argument(help="A folder of LoCoMo conversations, one JSON file each.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here as well.")] = None,
) -> None:
    """Ingest the conversations; print recall@5/10/20, MRR, nDCG@10 by category, the bar, and latency."""
    from memos.evaluation import locomo as data_set
    from memos.runtime import build
    from memos.settings import Settings

    if not folder.is_dir():
        raise InvalidInput(
            f"{str(folder)!r} is not a folder; give the one that holds the conversations' JSON files"
        )
    with tempfile.TemporaryDirectory(prefix="memos-eval-") as home:
        settings = Settings.load().model_copy(update={"home": Path(home)})
        settings = settings.model_copy(update={"store": settings.store.model_copy(update={"path": None})})
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with build(settings, start=False) as runtime, Progress(*columns, console=errors) as progress:
            tasks = {}

            def show(stage: str, finished: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = progress.add_task(stage, total=total)
                progress.update(tasks[stage], completed=finished, total=total)

            report = data_set.evaluate(runtime, folder, on_progress=show)
    out.print(report.table())
    out.print(report.bar_table())
    if json_file is not None:
        json_file.write_text(report.to_json(), encoding="utf-8")
