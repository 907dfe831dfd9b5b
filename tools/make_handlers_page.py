"""Writes docs/handlers.md: what each built-in handler does to the rows of the store, before and after.

    python tools/make_handlers_page.py          # writes the page
    python tools/make_handlers_page.py --check  # says whether it is up to date

Every table is what a run over a temporary runtime leaves: no model, a clock that stands still, ids made
readable. So the same code gives the same page everywhere.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memos.clock import utc
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.extract import as_item, derive
from memos.memory.item import ItemStatus, MemoryItem, ReadState, WorkingEntry
from memos.memory.store import AddItems, ItemFilter, ReplaceWorking
from memos.runtime import Runtime, build
from memos.settings import ModelSettings, Settings
from memos.testing import ManualClock

PAGE = Path(__file__).resolve().parents[1] / "docs" / "handlers.md"
USER, CUBE = "mia", "home"
DAY_S = 86_400.0
STATE_NAMES = (f"activity/{USER}", f"answers/{USER}", f"searches/{USER}")
OTHER_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


@dataclass(frozen=True)
class Scene:
    """One label: what is there before, and the message."""

    label: str
    about: str
    prepare: Callable[[Stage], None]
    content: str
    info: dict[str, object] | None = None


class Stage:
    """A runtime over a temporary folder, driven by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        settings = Settings(home=folder, models=ModelSettings(embedder="none"))
        self.runtime: Runtime = build(settings, start=False, clock=self.clock)

    def say(
        self, text: str, item_id: str, *, derived: Sequence[str] = (), read: ReadState = ReadState.NONE
    ) -> None:
        """A turn of the user, and what was read from it."""
        self.clock.advance(DAY_S)
        at = utc(self.clock.now())
        turn = MemoryItem(
            id=item_id, cube_id=CUBE, user_id=USER, memory=text, role="user", session_id="s1",
            position=self.runtime.store.sizes(CUBE).long_term, read=read, created_at=at, updated_at=at,
            happened_at=at,
        )  # fmt: skip
        found = derive([turn]).derived[: len(derived)]
        readings = [
            as_item(one, item_id=name, now=at, raw=[turn]) for name, one in zip(derived, found, strict=True)
        ]
        self.add(turn, *readings)

    def add(self, *items: MemoryItem) -> None:
        self.runtime.store.apply([AddItems(tuple(self.runtime.indexer.index(items)))])

    def hold(self, *ids: str) -> None:
        """Put items into working memory."""
        entries = tuple(WorkingEntry(one, 1.0 - 0.1 * place) for place, one in enumerate(ids))
        self.runtime.store.apply([ReplaceWorking(CUBE, entries, None, "before")])

    def run(self, message: ScheduleMessageItem) -> None:
        """Run the message alone: what it chains stays in the queue."""
        self.clock.advance(60.0)
        self.runtime.scheduler.submit_messages(message)
        self.runtime.scheduler.run_once()


def _query(stage: Stage) -> None:
    stage.say("I adopted a puppy called Max.", "turn1")


def _answer(stage: Stage) -> None:
    stage.say("I adopted a puppy called Max.", "turn1")
    stage.say("I am allergic to nuts.", "turn2")


def _add(stage: Stage) -> None:
    stage.say("I adopted a puppy called Max.", "turn1")


def _update(stage: Stage) -> None:
    stage.say("I adopted a puppy called Max.", "turn1")
    stage.say("The weather in Oslo was fine.", "turn2")
    stage.hold("turn2")


def _read(stage: Stage) -> None:
    stage.say("I live in Paris.", "turn1", derived=["fact1"])
    stage.say("I live in Berlin now. I love sushi.", "turn2", read=ReadState.DUE)
    stage.hold("fact1")


def _organize(stage: Stage) -> None:
    stage.say("I live in Paris.", "turn1", derived=["fact1"])
    stage.say("I live in Berlin.", "turn2", derived=["fact2"])
    stage.say("I love sushi.", "turn3", derived=["fact3"])
    stage.say("I love sushi.", "turn4", derived=["fact4"])
    stage.hold("fact1", "fact4")


def _preference(stage: Stage) -> None:
    stage.say("I love sushi and I hate olives.", "turn1")


def _feedback(stage: Stage) -> None:
    stage.say("I live in Paris.", "turn1", derived=["fact1"])
    stage.hold("fact1")


def _mix(stage: Stage) -> None:
    stage.say("The red bicycle costs 900 euros.", "turn1")
    stage.say("The blue bicycle costs 300 euros.", "turn2")


SCENES = (
    Scene("query", "A question is told, and working memory is to follow: a `mem_update` is chained.", _query,
          "What is my puppy called?"),
    Scene("answer", "The memories that the answer used gain a use; the answer joins the window.", _answer,
          "Your puppy is called Max.", {"memory_ids": ["turn1"]}),
    Scene("add", "What was stored is told. Rows stay as they are.", _add, '["turn1"]'),
    Scene("mem_update", "Working memory becomes what the question needs; the question joins the window.",
          _update, "What is my puppy called?"),
    Scene("mem_read", "A raw turn is read: new facts, the fact that no longer holds, and the mark on the turn.",
          _read, '["turn2"]'),
    Scene("mem_organize", "A contradicted fact is archived with its end, duplicates become one; turns stay.",
          _organize, '{"scope": "cube"}'),
    Scene("pref_add", "Likes, dislikes, allergies, habits and instructions become preference memories.",
          _preference, '["turn1"]'),
    Scene("mem_feedback", "The correction takes the place of the fact; the turn stays and is marked.", _feedback,
          json.dumps({"feedback_content": "No, I live in Berlin.", "retrieved_memory_ids": ["fact1"]})),
    Scene("api_mix_search", "What a fine recall finds for a search joins the window of searches.", _mix,
          json.dumps({"search_req": {"query": "How much is the bicycle?"}, "memory_ids": ["turn1"]})),
    Scene("mem_activate", "Prefixes are looked after, no memory changes. Here no model is configured: the log says so.",
          _add, "working memory at version 1"),
)  # fmt: skip


class Names:
    """Readable names for ids that were made at run time, in the order in which they appear."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def of(self, item_id: str) -> str:
        if OTHER_ID.fullmatch(item_id):
            return self._names.setdefault(item_id, f"new{len(self._names) + 1}")
        return item_id

    def within(self, text: str) -> str:
        return OTHER_ID.sub(lambda match: self.of(match[0]), text)


def _items(stage: Stage) -> list[MemoryItem]:
    every = ItemFilter(cube_ids=(CUBE,), statuses=tuple(ItemStatus))
    found = stage.runtime.store.find(every, limit=100).items
    return sorted(
        found,
        key=lambda one: (
            one.id.startswith("fact"),
            OTHER_ID.match(one.id) is not None,
            one.created_at,
            one.memory,
        ),
    )


def _table(stage: Stage, names: Names, before: dict[str, MemoryItem] | None = None) -> list[str]:
    lines = ["| id | text | type | status | uses | holds until | notes |", "|---|---|---|---|---|---|---|"]
    for item in _items(stage):
        changed = before is not None and before.get(item.id) != item
        until = f"{item.valid_until:%Y-%m-%d %H:%M}" if item.valid_until else ""
        notes = [] if item.raw else ["derived"]
        if item.read is not ReadState.NONE:
            notes.append(f"read: {item.read.value}")
        for key in ("superseded_by", "corrected_by", "merged_from"):
            if key in item.extra:
                value = item.extra[key]
                ids = [value] if isinstance(value, str) else value
                notes.append(f"{key}: {', '.join(names.of(one) for one in ids)}")
        cells = [
            names.of(item.id),
            item.memory,
            item.kind.value,
            item.status.value,
            str(item.use_count),
            until,
            "; ".join(notes),
        ]
        lines.append("| " + " | ".join(f"**{one}**" if changed and one else one for one in cells) + " |")
    working = [names.of(item.id) for item in stage.runtime.store.working(CUBE).items]
    states = [name.split("/")[0] for name in STATE_NAMES if stage.runtime.store.state(CUBE, name) is not None]
    lines += [
        "",
        f"Working memory: {', '.join(working) or 'empty'}. State: {', '.join(states) or 'none'}.",
        "",
    ]
    return lines


def _told(stage: Stage, names: Names) -> list[str]:
    lines = []
    journal = [row for row in reversed(stage.runtime.store.journal(cube_id=CUBE)) if row.cause.message_key]
    done = [f"`{row.op}` {names.of(row.item_id) or 'working memory'}" for row in journal]
    lines.append(f"Journal: {', '.join(done) or 'no row'}.")
    logs = [log for _, log in reversed(stage.runtime.store.web_logs(cube_id=CUBE))]
    told = [f"`{log.label}` ({names.within(log.log_content)})" for log in logs]
    lines.append(f"Web logs: {'; '.join(told) or 'none'}.")
    waiting = [one.label for one in stage.runtime.queue.statuses() if one.state == "waiting"]
    lines.append(f"Chained: {', '.join(f'`{one}`' for one in waiting) or 'nothing'}.")
    return [*lines, ""]


def _section(scene: Scene) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        try:
            scene.prepare(stage)
            names = Names()
            first = _table(stage, names)
            before = {item.id: item for item in _items(stage)}
            message = ScheduleMessageItem(
                user_id=USER,
                mem_cube_id=CUBE,
                session_id="s1",
                label=scene.label,
                content=scene.content,
                info=scene.info,
            )
            stage.run(message)
            # The row versions and times of an untouched item are the same: only what changed is bold.
            after = _table(stage, names, {key: replace(one) for key, one in before.items()})
            said = f"Message: `{scene.content}`" + (
                f", info `{json.dumps(scene.info)}`" if scene.info else ""
            )
            return [
                f"### {scene.label}", "", scene.about, "", said, "", "Before", "", *first, "After", "", *after,
                *_told(stage, names),
            ]  # fmt: skip
        finally:
            stage.runtime.close()


def render() -> str:
    """The page."""
    lines = [
        "# What the handlers do",
        "",
        "The rows of the store before and after one message of each label, as a run leaves them (made by",
        "`python tools/make_handlers_page.py`, without a model). Changed and new rows are bold. What a message does is",
        "one transaction: rows, indexes, working memory, state, journal, web logs, chained messages and the mark that",
        "it ran. A message that is delivered again changes nothing.",
        "",
        "What a handler of your own recalls (`mem_scheduler.retriever.search`, `current_mem_cube.text_mem.search`,",
        "`process_session_turn`) is everything but the chat turn of the message that it runs: the question, the answer and",
        "what was read out of them, as with the built-in ones; the same question asked before is found. Of several messages",
        "in a call it is the turn of those whose `content` is the query, and for a query in other words that of all of them.",
        "It holds in coroutines and in threads that are given the context (`memos.context.run_in_context`,",
        "`asyncio.to_thread`). A turn is known by `turn_id` in the message's `info`: `model_copy` keeps it, a fresh message",
        "that you chain has to be given it.",
        "",
    ]
    for scene in SCENES:
        lines += _section(scene)
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: Sequence[str]) -> int:
    page = render()
    if "--check" in arguments:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
        sys.stdout.write(
            f"{PAGE.name} is {'up to date' if same else 'out of date: run this without --check'}\n"
        )
        return 0 if same else 1
    PAGE.write_text(page, encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
