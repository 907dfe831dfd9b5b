"""`memos working | journal | backup | restore`: what they show is what the store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.item import ItemStatus, WorkingEntry
from memos.memory.store import Cause, ItemFilter, PutState, ReplaceWorking, TouchItems
from memos.memory.working import Order
from memos.memory.working_record import STATE, Accesses, WorkingRecord
from memos.runtime import build
from memos.settings import Settings

from .test_items import memos, stored  # noqa: F401  (a fixture)


def add(memos: Any, text: str, cube: str = "pets") -> str:  # noqa: F811
    """Store a memory and give its id."""
    return str(memos("add", text, "--cube", cube, "--json").rows()[0]["memory_id"])


def stand(*item_ids: str, cube: str = "pets", reason: str = "recalled [for] a query") -> None:
    """Put items into working memory, as a task does."""
    with build(Settings.load(), start=False) as runtime:
        version = runtime.store.working(cube).version
        entries = tuple(
            WorkingEntry(item_id, 1 / (place + 2), reason) for place, item_id in enumerate(item_ids)
        )
        runtime.store.apply(
            [ReplaceWorking(cube, entries, version, "set by hand")],
            cause=Cause(message_key="m-1", task_id="task-1", label="mem_update"),
        )


def test_working_shows_each_place_and_why(memos: Any) -> None:  # noqa: F811
    """Places are listed best first with score, memory and reason, as a table and as JSON."""
    max_, coco = add(memos, "Max is a [b]dog[/b]"), add(memos, "Coco is a beagle")
    stand(coco, max_)
    rows = memos("working", "pets", "--json").rows()
    assert [(row["place"], row["id"], row["memory"], row["why"]) for row in rows] == [
        (1, coco, "Coco is a beagle", "recalled [for] a query"),
        (2, max_, "Max is a [b]dog[/b]", "recalled [for] a query"),
    ]
    assert rows[0]["score"] == 0.5 and rows[0]["since"].endswith("+00:00")
    table = memos("working", "pets").out
    assert "Max is a [b]dog[/b]" in table and "recalled [for] a query" in table
    assert "version 1, 2 of 20 places" in table


def test_working_draws_the_curve(memos: Any) -> None:  # noqa: F811
    """What was asked of working memory is shown as figures, bars and a sentence, and as one line of JSON."""
    name = add(memos, "Max is a dog")
    assert memos("working", "pets", "--curve").out.strip() == "nothing was asked yet"
    order = Order(("a", "b", name), 1)
    record = WorkingRecord(order=order, uses=Accesses({0: 30.0, 25: 20.0}, 50.0), changes={"recalled": 3})
    with build(Settings.load(), start=False) as runtime:
        runtime.store.apply([PutState("pets", STATE, record.to_json())])
    text = memos("working", "pets").out
    assert (
        "of 100 accesses" in text and "30 % held" in text and "20 % ghosts" in text and "50 % neither" in text
    )
    assert "20 → 40 places would have held 20 % more of what answers used (30 % → 50 %)" in text
    assert "← now" in text and "█" in text and "recalled 3" in text
    assert "Max is a dog" not in memos("working", "pets", "--curve").out
    (figures,) = memos("working", "pets", "--curve", "--json").rows()
    assert (figures["basis"], figures["hit_rate"], figures["gain"], figures["ghosts"]) == (
        "uses",
        0.3,
        0.2,
        2,
    )
    assert {point["capacity"]: point["hit_rate"] for point in figures["curve"]}[40] == 0.5


def test_an_empty_set_and_an_unknown_cube(memos: Any) -> None:  # noqa: F811
    """A cube without working memory shows none; one that never was is an error that names it."""
    add(memos, "Max is a dog")
    assert "version 0, 0 of 20 places" in memos("working", "pets").out
    ran = memos("working", "nowhere")
    assert ran.code == 1 and "nowhere" in ran.err
    assert memos("journal", "--cube", "nowhere").code == 1


def test_the_journal_tells_before_and_after(memos: Any) -> None:  # noqa: F811
    """Of a memory: what was added, what it became, when it was deleted, newest first, and nothing else."""
    name, other = add(memos, "Max eats kibble"), add(memos, "Coco is a beagle")
    memos("edit", name, "Max eats salmon")
    rows = memos("journal", name, "--json").rows()
    assert [(row["op"], row["item_id"]) for row in rows] == [("update", name), ("read", name), ("add", name)]
    assert (rows[0]["before"]["memory"], rows[0]["after"]["memory"]) == ("Max eats kibble", "Max eats salmon")
    table = memos("journal", name).out
    assert "memory: Max eats kibble → Max eats salmon" in table and "edited" in table
    assert other not in table
    assert memos("delete", name).code == 0
    assert memos("journal", name, "--json").rows()[0]["op"] == "delete"


def test_the_journal_of_a_task(memos: Any) -> None:  # noqa: F811
    """A task's id, and its message's key, give the changes that it made."""
    name = add(memos, "Max is a dog")
    stand(name)
    for subject in ("task-1", "m-1"):
        (row,) = memos("journal", subject, "--json").rows()
        assert (row["op"], row["task_id"], row["label"]) == ("replace_working", "task-1", "mem_update")
    table = memos("journal", "task-1").out
    assert "0 → 1 places: 1 came, 0 left" in table and "mem_update task-1" in table and "set by hand" in table


def test_the_journal_is_bounded_and_by_cube(memos: Any) -> None:  # noqa: F811
    """`--limit` gives the newest rows, `--cube` those of one cube."""
    for number in range(4):
        add(memos, f"Fact {number}")
    add(memos, "Elsewhere", "other")
    rows = memos("journal", "--cube", "pets", "--limit", "4", "--json").rows()
    added = [row["after"]["memory"] for row in rows if row["op"] == "add"]
    assert added == ["Fact 3", "Fact 2"]  # each was added, then read
    assert len(memos("journal", "--json").rows()) == 10
    assert "10 changes" in memos("journal").out


@pytest.mark.parametrize("subject", ["unknown", "a\x00b"])
def test_the_journal_of_nothing(subject: str, memos: Any) -> None:  # noqa: F811
    """A subject that the journal does not know is an error, not an empty table."""
    add(memos, "Max is a dog")
    ran = memos("journal", subject)
    assert ran.code == 1 and ran.out == ""
    assert "Traceback" not in ran.err


def test_a_long_text_is_shortened_in_the_table_only(memos: Any) -> None:  # noqa: F811
    """The table keeps cells short; JSON has the whole text."""
    text = "word " * 200
    name = add(memos, text)
    assert "…" in memos("journal", name).out
    (added,) = [row for row in memos("journal", name, "--json").rows() if row["op"] == "add"]
    assert added["after"]["memory"] == text.strip()


def test_a_real_turn_is_in_the_journal(memos: Any) -> None:  # noqa: F811
    """What a query changed is found by its task's id, with the label of the task that did it."""
    add(memos, "The ferry to the island leaves at noon")
    with build(Settings.load(), start=False) as runtime:
        runtime.scheduler.submit_messages(
            ScheduleMessageItem(
                user_id="me", mem_cube_id="pets", label="query", content="When is the ferry?", task_id="t-7"
            )
        )
        while runtime.scheduler.run_once():
            pass
    rows = memos("journal", "t-7", "--json").rows()
    assert [(row["op"], row["label"]) for row in rows] == [("replace_working", "mem_update")]
    assert memos("working", "pets", "--json").rows()[0]["memory"] == "The ferry to the island leaves at noon"


def test_backup_and_restore(memos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A backup, restored where no memory file is, brings back the memories of its moment."""
    name = add(memos, "Max is a dog")
    stand(name)
    ran = memos("backup", str(tmp_path / "copy.db"))
    assert ran.code == 0 and "copy.db" in ran.out
    add(memos, "Later")
    assert memos("backup", str(tmp_path / "copy.db")).code == 1
    refused = memos("restore", str(tmp_path / "copy.db"))
    assert refused.code == 1 and "exists already" in refused.err
    monkeypatch.setenv("MEMOS_HOME", str(tmp_path / "fresh"))
    ran = memos("restore", str(tmp_path / "copy.db"))
    assert ran.code == 0 and "1 cubes, no fault" in ran.out
    assert stored(cube_ids=("pets",)) == ["Max is a dog"]
    assert [row["id"] for row in memos("working", "pets", "--json").rows()] == [name]


def test_a_backup_needs_no_embedder_that_fits(memos: Any, tmp_path: Path) -> None:  # noqa: F811
    """A store whose vectors are of another model can be backed up, before `memos reembed` changes it."""
    name = add(memos, "Max is a dog")
    with build(Settings.load(), start=False) as runtime:
        runtime.store.drop_vectors("another-model", 8)
        runtime.store.apply([TouchItems((name,), "used")])
    assert memos("backup", str(tmp_path / "copy.db")).code == 0


def test_a_restore_of_no_backup(memos: Any, tmp_path: Path, clean_environment: Path) -> None:  # noqa: F811
    """A file that is none is one line on stderr, and no memory file appears."""
    (tmp_path / "text.db").write_text("nothing " * 5_000)
    for name in ("text.db", "missing.db"):
        ran = memos("restore", str(tmp_path / name))
        assert ran.code == 1 and name in ran.err and "Traceback" not in ran.err
    assert not (clean_environment / "memory.db").exists()


def test_the_journal_keeps_quarantine_shut(memos: Any) -> None:  # noqa: F811
    """What a memory in quarantine says stands in no row and no table, from when it was held to when it was
    dropped, unless it is asked for."""
    secret = "hunter2-but-longer"
    memos("add", f"My password is {secret}.", "--cube", "pets")
    with build(Settings.load(), start=False) as runtime:
        [item] = runtime.store.find(ItemFilter(statuses=(ItemStatus.QUARANTINED,))).items
    for again in range(2):
        for shape in (("--json",), ()):
            assert secret not in memos("journal", *shape).out
            assert secret not in memos("journal", item.id, *shape).out
            assert secret in memos("journal", item.id, "--reveal", *shape).out
        if not again:
            memos("quarantine", "drop", item.id)
    ops = {row["op"] for row in memos("journal", item.id, "--json").rows()}
    assert "add" in ops and len(ops) > 1
