"""A user who is erased is gone from every file, and nothing brings them back; nobody else loses anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memos.cli.main import app as command_line
from memos.erasure import erase
from memos.errors import Discard
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.item import ItemStatus
from memos.memory.store import ItemFilter, SetStatus
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import run_until_idle

SECRET = "The vault of Alice is behind the blue painting in Tavira."


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with build(Settings(home=tmp_path / "data", models={"embedder": "none"}), start=False) as built:
        yield built


def say(runtime: Runtime, user: str, text: str, *, cubes: tuple[str, ...] = ()) -> str:
    written = runtime.chat.writer.write(text, user_id=user, cube_ids=cubes or (user,), read="later")
    return written.items[0].id


def in_files(runtime: Runtime, text: str) -> list[str]:
    home = runtime.settings.store_path.parent
    return [path.name for path in home.iterdir() if path.is_file() and text.encode() in path.read_bytes()]


def ask(runtime: Runtime, user: str, cube: str, text: str) -> None:
    runtime.scheduler.submit_messages(
        ScheduleMessageItem(user_id=user, mem_cube_id=cube, label="query", content=text)
    )


def test_nothing_of_the_user_is_left_in_any_file(runtime: Runtime) -> None:
    """Memories of every status, working memory, journal, logs, state, waiting tasks and dead letters."""

    def refuse(messages: list[ScheduleMessageItem]) -> None:
        raise Discard(f"cannot do {messages[0].content}")

    say(runtime, "alice", SECRET)
    archived = say(runtime, "alice", SECRET + " Long ago.", cubes=("team",))
    say(runtime, "bob", "Bob keeps bees in Tavira.", cubes=("team",))
    runtime.scheduler.register_handlers({"refused": refuse})
    runtime.scheduler.start()
    ask(runtime, "alice", "alice", "Where is the vault of Alice behind the painting?")
    ask(runtime, "bob", "team", "What is behind the blue painting of Alice in Tavira?")
    runtime.scheduler.submit_messages(
        ScheduleMessageItem(user_id="alice", mem_cube_id="alice", label="refused", content=SECRET)
    )
    run_until_idle(runtime.scheduler)
    runtime.store.apply([SetStatus((archived,), ItemStatus.ARCHIVED, "put away")])
    runtime.scheduler.stop()
    ask(runtime, "alice", "alice", SECRET)
    assert in_files(runtime, SECRET)
    receipt = erase(runtime, "alice")
    assert in_files(runtime, "behind the blue painting in Tavira") == []
    assert receipt.traces == 0 and receipt.canaries >= 2 and receipt.log_emptied
    assert receipt.counts["items"] >= 2 and receipt.counts["tasks_cancelled"] == 1
    assert receipt.counts["journal_rows_redacted"] > 0 and receipt.counts["web_logs"] > 0
    assert in_files(runtime, "behind the blue painting in Tavira") == []
    assert in_files(runtime, "Where is the vault") == []
    assert runtime.store.find(ItemFilter(user_ids=("alice",), statuses=tuple(ItemStatus))).total == 0
    assert runtime.store.verify() == []
    [bees] = runtime.store.find(ItemFilter(cube_ids=("team",), user_ids=("bob",), raw=True)).items
    assert bees.memory == "Bob keeps bees in Tavira."


def test_a_late_task_brings_nothing_back(runtime: Runtime) -> None:
    """A reading that was taken before the erasure and ends after it adds no memory."""
    say(runtime, "alice", "I live in Tavira. My boat is called Petrel.")
    [status] = runtime.queue.statuses(user_id="alice")
    [batch] = runtime.queue.claim({status.label}, lanes_max=1)
    receipt = erase(runtime, "alice")
    assert receipt.counts["tasks_running"] >= 1
    runtime.scheduler.dispatcher.run(batch)
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    assert runtime.store.find(ItemFilter(cube_ids=("alice",))).total == 0
    assert in_files(runtime, "Petrel") == []


def test_erasing_again_finds_nothing(runtime: Runtime) -> None:
    """The second receipt counts nothing, and one for somebody unknown neither."""
    say(runtime, "alice", SECRET)
    erase(runtime, "alice")
    for user in ("alice", "nobody"):
        counts = erase(runtime, user).counts
        assert {name: count for name, count in counts.items() if count} == {}


def test_users_with_like_names_are_kept_apart(runtime: Runtime) -> None:
    """Only the very user goes, not one whose name begins the same."""
    say(runtime, "al", "I keep bees."), say(runtime, "alice", SECRET)
    erase(runtime, "al")
    assert runtime.store.find(ItemFilter(user_ids=("alice",))).total == 1
    assert runtime.store.journal(cube_id="alice")[0].after is not None


def test_the_command_prints_the_receipt(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks first, and what it prints is the receipt."""
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    runner = CliRunner()
    assert runner.invoke(command_line, ["add", SECRET, "--user", "alice"]).exit_code == 0
    assert runner.invoke(command_line, ["erase", "alice"], input="n\n").exit_code == 1
    done = runner.invoke(command_line, ["erase", "alice", "--yes"])
    assert done.exit_code == 0, done.output
    receipt = json.loads(done.output)
    assert receipt["counts"]["items"] >= 1 and receipt["traces"] == 0 and receipt["not_reached"]
