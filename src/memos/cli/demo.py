"""`memos demo`: one conversation and its questions through the whole system, every step shown.

No key, no server, unless `--llm` names an endpoint whose model then answers; a data directory of its own that is removed at the end (or `--home` to keep it). What
it prints is read back from the system (web logs, working set, status), never composed by the demo.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.markup import escape
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table

from memos.cli.terminal import opened, out

if TYPE_CHECKING:
    from memos.mem_chat.chat import ChatAnswer
    from memos.memory.item import WorkingSet
    from memos.runtime import Runtime
    from memos.settings import ModelSettings

USER = "demo_user"
CUBE = "demo_cube"
IDLE_TIMEOUT_S = 30.0
IDLE_WITH_MODEL_TIMEOUT_S = 900.0  # a small model on a CPU takes a minute for a question
SHOWN = 5  # places of working memory

# (session, when, who says what); written for this demo after the pet conversation of the documents.
CONVERSATION = (
    ("puppy", "2026-02-28 09:10", "user", "I just adopted a golden retriever puppy named Max."),
    (
        "puppy",
        "2026-02-28 09:10",
        "assistant",
        "Congratulations! Max is a great name for a golden retriever.",
    ),
    (
        "puppy",
        "2026-02-28 09:12",
        "user",
        "He is nine weeks old and has already chewed two pairs of running shoes.",
    ),
    ("puppy", "2026-02-28 09:12", "assistant", "That sounds like teething. A frozen washcloth may help him."),
    ("puppy", "2026-02-28 09:15", "user", "Max loves peanut butter treats, but I am allergic to nuts."),
    ("puppy", "2026-02-28 09:15", "assistant", "Noted: peanut butter only for Max, and no nuts for you."),
    (
        "vet",
        "2026-03-03 18:40",
        "user",
        "Our vet is Doctor Lindqvist on Harbour Street; the vaccination is on 14 March.",
    ),
    (
        "vet",
        "2026-03-03 18:40",
        "assistant",
        "I will remember the vaccination on 14 March with Doctor Lindqvist.",
    ),
    ("vet", "2026-03-03 18:44", "user", "She says he may not jump stairs until he is half a year old."),
    ("vet", "2026-03-03 18:44", "assistant", "Then carry him up the stairs until late June."),
    (
        "weekend",
        "2026-03-08 20:05",
        "user",
        "Today we walked along the old canal with my neighbour Priya and her beagle Coco.",
    ),
    (
        "weekend",
        "2026-03-08 20:05",
        "assistant",
        "A golden retriever and a beagle by the canal: a fine Sunday.",
    ),
    (
        "weekend",
        "2026-03-08 20:09",
        "user",
        "Priya recommends the puppy class at Oakfield Hall, Thursdays at 18:30.",
    ),
    ("weekend", "2026-03-08 20:09", "assistant", "Shall I remind you of the puppy class on Thursdays?"),
    (
        "work",
        "2026-03-12 07:50",
        "user",
        "I work night shifts at the hospital, so my sister Elena feeds him on Tuesdays.",
    ),
    (
        "work",
        "2026-03-12 07:50",
        "assistant",
        "Good that Elena helps on Tuesdays while you are on night shift.",
    ),
    (
        "work",
        "2026-03-12 07:55",
        "user",
        "My shift plan changes in April: then I am free on Mondays and Wednesdays.",
    ),
    ("work", "2026-03-12 07:55", "assistant", "Mondays and Wednesdays free from April on: noted."),
    (
        "trip",
        "2026-03-20 21:30",
        "user",
        "In May I fly to Lisbon for a week and need a place for Max to stay.",
    ),
    ("trip", "2026-03-20 21:30", "assistant", "Would Priya take him, or a dog hotel?"),
    ("trip", "2026-03-20 21:33", "user", "Priya offered, if Coco and Max get along indoors as well."),
    ("trip", "2026-03-20 21:33", "assistant", "A trial evening before May would show that."),
    ("trip", "2026-03-20 21:36", "user", "My flight to Lisbon leaves at 9:40 on the second of May."),
    ("trip", "2026-03-20 21:36", "assistant", "Flight to Lisbon on 2 May at 9:40: saved."),
)

QUESTIONS = (
    "What is my dog's name again?",
    "What am I allergic to?",
    "Which day does my sister feed Max?",
    "When does my flight to Lisbon leave?",
    "When does my flight to Lisbon leave?",
)


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("demo")(demo)


def demo(
    home: Annotated[
        Path | None, typer.Option("--home", help="Keep the data here instead of removing it.")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            "--llm",
            metavar="URL",
            help="Let the model of this OpenAI-compatible endpoint answer (/v1 included).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Which model; needed where the endpoint serves more than one."),
    ] = None,
) -> None:
    """Show MemScheduler at work: a conversation about a puppy, then questions, step by step."""
    from memos.settings import Settings

    settings = Settings.load()
    with contextlib.ExitStack() as stack:
        folder = home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memos-demo-")))
        store = settings.store.model_copy(update={"path": None})
        models = _models(settings.models, llm, model)
        settings = settings.model_copy(update={"home": folder, "store": store, "models": models})
        runtime = stack.enter_context(opened(settings, start=True))
        _introduce(runtime)
        _remember(runtime)
        for number, question in enumerate(QUESTIONS, start=1):
            _ask(runtime, number, question)
        _summarise(runtime)


def _models(models: ModelSettings, llm: str | None, model: str | None) -> ModelSettings:
    """The models with `--llm` and `--model` in force. The configured key goes only where it belongs."""
    if llm is None:
        return models.model_copy(update={"chat_model": model}) if model else models
    own = urlsplit(models.chat_base_url or "").netloc == urlsplit(llm).netloc
    return models.model_copy(
        update={
            "chat_base_url": llm,
            "chat_model": model or (models.chat_model if own else None),
            "chat_api_key": models.chat_api_key if own else None,
        }
    )


def _introduce(runtime: Runtime) -> None:
    chosen = runtime.settings.models
    embedder = (
        f"{chosen.embedder_model or 'all-MiniLM-L6-v2'}, {runtime.embedder.dim} dimensions"
        if runtime.embedder
        else runtime.embedder_missing
    )
    model = runtime.llm.name if runtime.llm else "none: answers are quoted from memory"
    out.print(
        Panel(
            f"queue     {type(runtime.queue).__name__}\n"
            f"store     {escape(runtime.settings.store_place)}\n"
            f"embedder  {embedder}\nmodel     {model}",
            title="MemScheduler",
            title_align="left",
            border_style="cyan",
        )
    )


def _remember(runtime: Runtime) -> None:
    from memos.api.handlers import handlers_of
    from memos.api.product_models import APIADDRequest

    out.print(Rule("1  A conversation is added", align="left", style="cyan"))
    started, stored = time.perf_counter(), 0
    for session, turns in groupby(CONVERSATION, key=lambda turn: turn[0]):
        messages = [{"role": role, "content": text, "chat_time": at} for _, at, role, text in turns]
        out.print(f"  [dim]{messages[0]['chat_time'][:10]}, session {session}[/dim]")
        for message in messages:
            out.print(f"  [bold]{message['role']:<9}[/bold] {escape(message['content'])}")
        response = handlers_of(runtime).add.handle_add_memories(
            APIADDRequest(
                user_id=USER,
                writable_cube_ids=[CUBE],
                session_id=session,
                messages=messages,
                async_mode="sync",
            )
        )
        stored += len(response.data or [])
    took_ms = (time.perf_counter() - started) * 1000
    out.print(
        f"  [green]{stored} memories stored, indexed and journaled[/green] [dim]in {took_ms:.0f} ms[/dim]"
    )
    _settle(runtime)


def _ask(runtime: Runtime, number: int, question: str) -> None:
    from memos.context import bound, new_trace_id

    out.print()
    out.print(Rule(f"{number + 1}  {question}", align="left", style="cyan"))
    trace = new_trace_id()
    before = runtime.store.working(CUBE)
    with bound(trace=trace, user=USER, cube=CUBE):
        answer, seconds = _answer(runtime, question)
    out.print(f"  [bold green]{escape(answer.response)}[/bold green]  [dim]{seconds * 1000:.0f} ms[/dim]")
    if runtime.llm is not None and answer.reasoning:
        out.print(f"[bold]reason[/bold]   [dim]{escape(_first_line(answer.reasoning))}[/dim]")
    _settle(runtime)
    _show_intent(runtime, before)
    _show_recall(runtime, question)
    _show_working(runtime, before)
    _show_logs(runtime, trace)


def _show_intent(runtime: Runtime, before: WorkingSet) -> None:
    """What the scheduler decided, as its web log says it."""
    ((_, decision),) = runtime.store.web_logs(cube_id=CUBE, label="scheduleMemory", limit=1)
    replaced = runtime.store.working(CUBE).version != before.version
    verdict = "[yellow]recall is needed[/yellow]" if replaced else "[green]working memory suffices[/green]"
    out.print(f"[bold]intent[/bold]   {verdict}  [dim]{escape(_first_line(decision.log_content))}[/dim]")


def _show_recall(runtime: Runtime, question: str) -> None:
    from memos.retrieval.hybrid import RecallRequest

    recall = runtime.retriever.search(RecallRequest(query=question, cube_ids=(CUBE,), user_id=USER, top_k=3))
    out.print("[bold]recall[/bold]   [dim]the best three, with what the stages of recall gave[/dim]")
    for hit in recall.hits:
        parts = ", ".join(f"{stage} {share:.2f}" for stage, share in hit.parts.items() if share > 0)
        out.print(f"  {hit.relativity:.2f}  {escape(hit.item.memory)}  [dim]{parts}[/dim]")


def _answer(runtime: Runtime, question: str) -> tuple[ChatAnswer, float]:
    from memos.api.handlers import handlers_of
    from memos.api.product_models import APIChatCompleteRequest

    started = time.perf_counter()
    answer = handlers_of(runtime).chat_service.answer(
        APIChatCompleteRequest(
            user_id=USER,
            query=question,
            readable_cube_ids=[CUBE],
            writable_cube_ids=[CUBE],
            session_id="questions",
            add_message_on_answer=False,
        )
    )
    return answer, time.perf_counter() - started


def _settle(runtime: Runtime) -> None:
    """Wait until the scheduler has nothing left to do."""
    limit_s = IDLE_TIMEOUT_S if runtime.llm is None else IDLE_WITH_MODEL_TIMEOUT_S
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        status = runtime.scheduler.get_tasks_status()
        if not status["remaining"] and not status["running"]:
            return
        time.sleep(0.02)


def _show_working(runtime: Runtime, before: WorkingSet) -> None:
    working = runtime.store.working(CUBE)
    known = {entry.item_id for entry in before.entries}
    table = Table(
        title=f"working   [dim]version {working.version}, {len(working.entries)} of {runtime.store.capacities.working} places[/dim]",
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="dim",
        pad_edge=False,
    )
    for name in ("", "score", "memory", "why it is here"):
        table.add_column(name, overflow="fold", no_wrap=name in ("", "score"))
    for entry, item in list(zip(working.entries, working.items, strict=True))[:SHOWN]:
        mark = " " if entry.item_id in known else "[green]+[/green]"
        table.add_row(mark, f"{entry.score:.2f}", escape(item.memory), f"[dim]{escape(entry.reason)}[/dim]")
    if len(working.entries) > SHOWN:
        table.add_row("", "", f"[dim]… and {len(working.entries) - SHOWN} more[/dim]", "")
    out.print(table)


def _show_logs(runtime: Runtime, trace: str) -> None:
    out.print(f"[bold]log[/bold]      [dim]trace {trace[:8]}[/dim]")
    for _, entry in reversed(runtime.store.web_logs(trace_id=trace, limit=20)):
        move = f"{entry.from_memory_type} → {entry.to_memory_type}"
        out.print(f"  [cyan]{entry.label:<15}[/cyan] {move:<34} {escape(_first_line(entry.log_content))}")


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 110 else line[:109] + "…"


def _rows(runtime: Runtime) -> Iterator[tuple[str, str]]:
    depth = runtime.queue.depth(lanes=False)
    done = [status for status in runtime.queue.statuses() if status.state == "completed"]
    yield (
        "queue",
        f"{len(done)} tasks done, {depth.remaining} waiting, {depth.running} running, {depth.dead} dead",
    )
    for label, times in sorted(depth.times.items()):
        yield (
            f"  {label}",
            f"waiting {_ms(times.waiting_p50)} / {_ms(times.waiting_p95)}, running {_ms(times.running_p50)} / {_ms(times.running_p95)}  [dim](p50 / p95)[/dim]",
        )
    sizes, capacities = runtime.store.sizes(CUBE), runtime.store.capacities
    yield (
        "memory",
        (
            f"long-term {sizes.long_term}/{capacities.long_term}, user {sizes.user}/{capacities.user}, "
            f"working {sizes.working}/{capacities.working}"
        ),
    )
    yield (
        "journal",
        f"{len(runtime.store.journal(cube_id=CUBE, limit=1000))} changes, chain intact: {not runtime.store.verify()}",
    )


def _ms(seconds: Any) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.1f} ms"


def _summarise(runtime: Runtime) -> None:
    out.print()
    out.print(Rule("What it took", align="left", style="cyan"))
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _rows(runtime):
        table.add_row(f"[bold]{name}[/bold]", value)
    out.print(table)
