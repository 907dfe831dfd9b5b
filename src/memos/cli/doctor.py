"""`memos doctor`: the effective configuration, and every part tried for real."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Annotated, Any

import typer
from rich.table import Table

from memos import __version__
from memos.cli.terminal import out, plain
from memos.errors import BadCompletion, MemosError

MODEL_TIMEOUT_S = 60.0
FREE_BYTES_MIN = 100 * 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("doctor")(doctor)


def doctor(
    settings_only: Annotated[bool, typer.Option("--settings", help="Print the settings and stop.")] = False,
) -> None:
    """Print the effective settings (secrets masked), then try each part. Exit code 1 when one fails."""
    from memos.settings import Settings

    settings = Settings.load()
    out.print(_settings_table(settings.masked()))
    if settings_only:
        return
    from memos.runtime import build

    faults = 0

    def line(part: str, check: Callable[[], str]) -> None:
        nonlocal faults
        try:
            said = check()
        except MemosError as error:
            faults += 1
            out.print(f"[red]fault[/red]  {part:<10}", end=" ")
            out.print(str(error), markup=False)
        else:
            colour = "yellow" if said.startswith("!") else "green"
            out.print(
                f"[{colour}]{'note ' if colour == 'yellow' else 'ok   '}[/{colour}]  {part:<10}", end=" "
            )
            out.print(said.lstrip("! "), markup=False)

    line(
        "python",
        lambda: f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}, memscheduler {__version__}",
    )
    line("disk", lambda: _disk(settings.home))
    try:
        runtime = build(settings, start=False)
    except MemosError as error:
        out.print("[red]fault[/red]  runtime    ", end="")
        out.print(str(error), markup=False)
        raise typer.Exit(1) from error
    with runtime:
        line("embedder", lambda: _embedder(runtime))
        line("store", lambda: _store(runtime))
        line("queue", lambda: _queue(runtime))
        line("chat", lambda: _chat(runtime))
        line("files", _files)
        models = runtime.models
        named = runtime.settings.models
        roles = (  # without a name or a place of its own a role asks the chat's model, which was tried
            ("reader", models.reader_llm, named.reader_model or named.reader_base_url),
            ("scheduler", models.scheduler_llm, named.scheduler_model or named.scheduler_base_url),
            ("vision", models.vision_llm, named.vision_model),
        )
        for role, llm, own in roles:
            if llm is not None and own:
                line(role, partial(_model, llm.inner))
        for name, other in runtime.chat_llms.items():
            if other is not runtime.llm:
                line(f"chat {name}"[:24], partial(_model, other))
        if runtime.models.scheduler_llm is not None:
            line("structured", lambda: _structured(runtime.models.scheduler_llm))
        if runtime.reranker is not None:
            line("reranker", lambda: _reranker(runtime))
    sys.exit(1 if faults else 0)


def _files() -> str:
    """What can be read besides text and Office files, which always can."""
    from importlib.util import find_spec

    from memos.documents import ocr

    extra = [name for name, package in (("PDF", "pypdfium2"), ("images", "PIL")) if find_spec(package)]
    missing = "" if len(extra) == 2 else " (more with pip install 'memscheduler[documents]')"
    seen = "OCR by tesseract" if ocr.installed() else "no OCR (tesseract is not installed)"
    return f"text, HTML, CSV, JSON, Office{''.join(f', {name}' for name in extra)}{missing}; {seen}"


def _settings_table(tree: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for section, values in tree.items():
        if not isinstance(values, dict):
            table.add_row(f"[bold]{section}[/bold]", "", plain(str(values)))
            continue
        for index, (name, value) in enumerate(values.items()):
            table.add_row(f"[bold]{section}[/bold]" if index == 0 else "", name, plain(str(value)))
    return table


def _disk(home: Any) -> str:
    there = home
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    text = f"{free / 2**30:.1f} GiB free for {home}"
    return text if free >= FREE_BYTES_MIN else f"! only {text}"


def _embedder(runtime: Any) -> str:
    if runtime.embedder is None:
        return f"! {runtime.embedder_missing or 'switched off: recall by text and links only'}"
    vectors = runtime.embedder.embed(["a probe sentence"])
    return f"dimension {vectors.shape[1]}, fingerprint {runtime.embedder.fingerprint[:12]}"


def _chat(runtime: Any) -> str:
    if runtime.llm is None:
        key = runtime.settings.models.chat_api_key
        alone = "; an API key alone switches none on: name a model or a base URL" if key else ""
        return f"! no language model: answers are quoted from memory{alone}"
    return _model(runtime.llm)


def _model(llm: Any) -> str:
    """Ask a model for its first words: thoughts count, a whole answer may take minutes."""
    from memos.models.base import ChatMessage

    started = time.monotonic()
    asked = [ChatMessage("user", "Say: ready.")]
    with closing(llm.stream(asked, max_tokens=16, timeout_s=MODEL_TIMEOUT_S)) as pieces:
        first = next(pieces, "")
    if not first:
        raise BadCompletion(f"{llm.name} gives an empty answer", first)
    return f"{llm.name} at {llm.base_url}: first words after {time.monotonic() - started:.1f} s"


def _structured(llm: Any) -> str:
    """Ask the scheduler's model a question of the kind that tasks ask."""
    from datetime import UTC, datetime

    from memos.mem_scheduler.model_steps.intent import recognise

    started = time.monotonic()
    found = recognise(llm, ["What is my boat called?"], (), before=(), today=datetime.now(UTC))
    if not found.answer.usable:
        return f"! {llm.name} gives no usable JSON, so rules will do its work: {found.answer.fault}"
    return f"{llm.name} answers in JSON, after {time.monotonic() - started:.1f} s"


def _reranker(runtime: Any) -> str:
    near, far = runtime.reranker.rerank("What is my boat called?", ["My boat is called Petrel.", "Rain."])
    if near <= far:
        raise BadCompletion(f"the reranker prefers noise to the answer ({far:g} to {near:g})", "")
    chosen = runtime.settings.models
    return f"{chosen.reranker_url or chosen.reranker_folder}: scores {near:.2f} and {far:.2f}"


def _store(runtime: Any) -> str:
    from memos.errors import StoreCorrupt

    faults = runtime.store.verify()
    if faults:
        raise StoreCorrupt("; ".join(faults[:5]))
    cubes = runtime.store.cubes()
    live = sum(s.long_term + s.user + s.preference for s in map(runtime.store.sizes, cubes))
    told = runtime.store.describe()
    note = "! " if told["vectors"].startswith("!") else ""
    return (
        f"{note}{told['backend']} at {told['place']}: {live} live memories in {len(cubes)} cubes; rows, indexes "
        f"and journal agree; {told['vectors'].lstrip('! ')}; {told['durability']}"
    )


def _queue(runtime: Any) -> str:
    depth = runtime.queue.depth(lanes=False)
    text = f"{type(runtime.queue).__name__}: {depth.remaining} waiting, {depth.running} running, {depth.dead} dead"
    if runtime.redis_client is not None:
        from memos.mem_scheduler.queues.redis_streams.doctor import examine

        text = f"{text}; {examine(runtime.queue)}"
    others = [one for one in runtime.store.queues() if one.id != runtime.queue.identity.id]
    if others:
        places = ", ".join(f"{one.place} ({one.id})" for one in others)
        return f"! {text}; the store is served by {places} too, so marks of done tasks are kept: see `memos queue`"
    return f"! {text}; see `memos dead list`" if depth.dead else text
