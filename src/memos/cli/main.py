"""`memos`: the command line. One module per group of commands; this one joins them.

Every expected failure is one line on stderr and exit code 1 (2 for a wrong call), never a traceback;
`MEMOS_LOG__LEVEL=DEBUG` shows the rest. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import io
import sys
from typing import NoReturn

import typer
from pydantic import ValidationError

from memos import __version__
from memos.cli import (
    activation,
    bundles,
    chaos,
    compact,
    cubes,
    demo,
    doctor,
    documents,
    erase,
    evaluate,
    explain,
    hygiene,
    items,
    keys,
    logs,
    mcp,
    migrate,
    models,
    queue,
    serve,
    status,
    tasks,
    worker,
)
from memos.cli.terminal import errors
from memos.errors import MemosError

app = typer.Typer(
    name="memos",
    help="MemScheduler: a memory operating system for LLM agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memscheduler {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", callback=_version, is_eager=True
    ),
) -> None:
    """MemScheduler: a memory operating system for LLM agents."""


for module in (
    demo,
    serve,
    mcp,
    worker,
    items,
    explain,
    cubes,
    bundles,
    erase,
    compact,
    hygiene,
    status,
    tasks,
    queue,
    logs,
    doctor,
    migrate,
    chaos,
):
    module.register(app)
app.add_typer(models.app, name="models")
app.add_typer(activation.app, name="activation")
app.add_typer(documents.app, name="documents")
app.add_typer(keys.app, name="keys")
app.add_typer(evaluate.app, name="eval")
models.register(app)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A memory in another script is shown escaped on a terminal that cannot show it.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except MemosError as error:
        _fail(type(error).__name__, str(error))
    except ValidationError as error:  # a request that the API would refuse
        _fail(
            "InvalidInput", "; ".join(fault["msg"].removeprefix("Value error, ") for fault in error.errors())
        )
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:  # where the output goes, or a file that was named
        _fail("OSError", str(error))


def _fail(kind: str, text: str) -> NoReturn:
    errors.print(f"[red]memos: {kind}:[/red] ", end="")
    errors.print(text, markup=False, soft_wrap=True)
    sys.exit(1)
