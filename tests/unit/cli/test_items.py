"""`memos add | list | search | edit | delete`: what they change in the store and what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memos.cli.main import main
from memos.memory.item import ItemStatus
from memos.memory.store import ItemFilter
from memos.runtime import build
from memos.settings import Settings


class Ran:
    """One call of the console script, inside this process."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def memos(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call `memos …` and get its exit code and output."""
    from memos.cli import terminal

    monkeypatch.setattr(terminal.out, "_width", 200)

    def run(*words: str) -> Ran:
        monkeypatch.setattr("sys.argv", ["memos", *words])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def stored(**conditions: Any) -> list[str]:
    """The texts in the store, read past the command line."""
    with build(Settings.load(), start=False) as runtime:
        return [item.memory for item in runtime.store.find(ItemFilter(**conditions)).items]


def test_what_is_added_is_stored_listed_and_found(memos: Any) -> None:
    """An added memory stands in the store, in the list and in the hits of a search."""
    assert memos("add", "Max is allergic to chicken", "--cube", "pets", "--user", "ann").code == 0
    assert stored(cube_ids=("pets",), user_ids=("ann",)) == ["Max is allergic to chicken"]
    assert [row["memory"] for row in memos("list", "--cube", "pets", "--json").rows()] == [
        "Max is allergic to chicken"
    ]
    hits = memos("search", "what is Max allergic to", "--cube", "pets", "--json").rows()
    assert hits[0]["memory"] == "Max is allergic to chicken"
    assert "chicken" in memos("search", "chicken", "--cube", "pets").out


def test_a_conversation_file_is_added_whole(memos: Any, tmp_path: Path) -> None:
    """Every message of the file becomes a memory, with its speaker and time."""
    file = tmp_path / "talk.json"
    file.write_text(
        json.dumps(
            [
                {
                    "role": "user",
                    "name": "Ann",
                    "content": "We moved to Lyon",
                    "chat_time": "2026-05-08T13:56:00",
                },
                {"role": "assistant", "content": "How is the new flat?"},
            ]
        )
    )
    assert memos("add", "--messages", str(file), "--cube", "home", "--session", "s1").code == 0
    rows = memos("list", "--cube", "home", "--session", "s1", "--json").rows()
    assert {row["memory"] for row in rows} == {"We moved to Lyon", "How is the new flat?"}
    (ann,) = [row for row in rows if "Ann" in row["participants"]]
    assert ann["happened_at"].startswith("2026-05-08")


def test_an_edit_changes_text_and_index(memos: Any) -> None:
    """After an edit the new text is found, the old one is not, and the version has risen."""
    memos("add", "The flight leaves at 9:40", "--cube", "c")
    (row,) = memos("list", "--cube", "c", "--json").rows()
    assert memos("edit", row["id"], "The flight leaves at 9:45").code == 0
    (after,) = memos("list", "--cube", "c", "--json").rows()
    assert (after["memory"], after["version"]) == ("The flight leaves at 9:45", row["version"] + 1)
    assert "9:40" not in memos("search", "when does the flight leave", "--cube", "c", "--json").out


def test_a_deleted_memory_is_gone_everywhere(memos: Any) -> None:
    """A deleted memory is neither listed nor found, and its row holds no text any more."""
    memos("add", "The code word is swordfish", "--cube", "c")
    (row,) = memos("list", "--cube", "c", "--json").rows()
    assert memos("delete", row["id"]).code == 0
    assert memos("list", "--cube", "c", "--json").rows() == []
    assert memos("search", "swordfish", "--cube", "c", "--json").rows() == []
    assert stored(cube_ids=("c",), statuses=(ItemStatus.DELETED,)) == [""]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("add", "", "--cube", "c"), "empty"),
        (("add", "text", "--cube", "c", "--at", "whenever"), "whenever"),
        (("add", "text", "--cube", "c", "--role", "pirate"), "pirate"),
        (("search", " ", "--cube", "c"), "empty"),
        (("list", "--kind", "nonsense"), "nonsense"),
        (("edit", "no-such-id", "text"), "no-such-id"),
        (("delete", "no-such-id"), "no-such-id"),
        (("add", "--messages", "/no/such/file.json"), "/no/such/file.json"),
        (("eval", "locomo", "/no/such/folder"), "/no/such/folder"),
    ],
)
def test_bad_calls_are_one_line_that_names_the_value(memos: Any, words: tuple[str, ...], named: str) -> None:
    """A call that cannot work exits with 1 and one line naming the value, without a traceback."""
    ran = memos(*words)
    assert ran.code == 1
    assert named in ran.err
    assert "Traceback" not in ran.err


def test_search_shows_the_parts_of_a_score(memos: Any) -> None:
    """`--parts` says what each stage of recall gave."""
    memos("add", "Max is allergic to chicken", "--cube", "pets")
    assert "lexical" in memos("search", "chicken", "--cube", "pets", "--parts").out


def test_stages_are_switched_on_the_command_line_and_by_a_setting(
    memos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--stage -NAME` and MEMOS_RECALL__STAGES take a stage out of a search: its share is told no more."""
    memos("add", "Max is allergic to chicken", "--cube", "pets")
    memos("add", "Is Max fond of chicken?", "--cube", "pets")
    words = ("search", "Max and chicken", "--cube", "pets", "--json")

    def told(*more: str) -> set[str]:
        return {stage for row in memos(*words, *more).rows() for stage in row["parts"]}

    assert {"lexical", "episode", "substance"} <= told()
    assert "episode" not in told("--stage", "-episode") and "lexical" in told("--stage", "-episode")
    assert told("--stage", "lexical") == {"lexical"}
    monkeypatch.setenv("MEMOS_RECALL__STAGES", "-substance,-episode")
    assert "lexical" in told() and told().isdisjoint({"substance", "episode"})


def test_version_is_printed(memos: Any) -> None:
    """`memos --version` names the package and its version."""
    ran = memos("--version")
    assert ran.code == 0
    assert ran.out.startswith("memscheduler ")


def test_what_an_add_announces_has_run_when_the_command_ends(memos: Any) -> None:
    """The task of an added memory is done before the process leaves: its web log stands in the store."""
    memos("add", "Max is allergic to chicken", "--cube", "pets")
    with build(Settings.load(), start=False) as runtime:
        assert len(runtime.store.web_logs(cube_id="pets")) >= 1


def _as_process(*words: str, **fields: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | fields.pop("env", {})
    return subprocess.run(
        [sys.executable, "-m", "memos.cli", *words],
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        **fields,
    )


def test_a_terminal_of_another_script_shows_the_memory_escaped(memos: Any) -> None:
    """What an encoding cannot show does not end the command."""
    memos("add", "Anna mag 鸡肉", "--cube", "food")
    ran = _as_process("list", "--cube", "food", stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Anna mag" in ran.stdout


def test_output_that_cannot_be_written_is_one_line(memos: Any) -> None:
    """An output that takes no writes is told in a line, not in a traceback."""
    memos("add", "Max is allergic to chicken", "--cube", "pets")
    with Path(os.devnull).open("r") as for_reading_only:
        ran = _as_process("list", "--cube", "pets", stdout=for_reading_only)
    assert ran.returncode == 1
    assert ran.stderr.startswith("memos: OSError: ")
    assert "Traceback" not in ran.stderr


def test_an_id_can_be_copied_from_the_list(memos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow the terminal, an id stands in one line: edit and delete take it whole."""
    from memos.cli import terminal

    memos("add", "Max is allergic to chicken and to the feathers of most other birds", "--cube", "pets")
    [row] = memos("list", "--cube", "pets", "--json").rows()
    monkeypatch.setattr(terminal.out, "_width", 80)
    assert row["id"] in memos("list", "--cube", "pets").out
    assert row["id"] in memos("search", "chicken", "--cube", "pets").out


def test_no_memory_steers_the_terminal(memos: Any) -> None:
    """What looks like markup is shown as it stands, and control characters are shown escaped."""
    hostile = "[/foo] [red]shown[/red] \x1b[2Jcleared \x9bagain 👩\u200d🌾"
    added = memos("add", hostile, "--cube", "[/c]", "--user", "[/u]")
    [row] = memos("list", "--cube", "[/c]", "--json").rows()
    assert row["memory"] == hostile
    for ran in (
        added,
        memos("list", "--cube", "[/c]"),
        memos("search", "cleared again", "--cube", "[/c]"),
        memos("edit", row["id"], hostile + " edited"),
    ):
        assert ran.code == 0, ran.err
        assert "[/foo] [red]shown[/red] \\x1b[2Jcleared \\x9bagain 👩\u200d🌾" in ran.out
        assert "\x1b" not in ran.out
        assert "\x9b" not in ran.out
