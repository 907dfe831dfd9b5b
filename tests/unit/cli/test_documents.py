"""`memos add --file`, `memos documents list | delete`: files from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.documents import builders

from memos.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    made = tmp_path / "files"
    (made / "inner").mkdir(parents=True)
    (made / "pump.pdf").write_bytes(builders.pdf([["The pump manual."], ["The warranty lasts seven years."]]))
    (made / "inner" / "team.md").write_text("# Team\n\nWe eat at noon.\n")
    (made / ".hidden.md").write_text("hidden")
    (made / "tool.exe").write_bytes(b"MZ\x90")
    return made


def memos(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    from memos.cli import terminal

    monkeypatch.setattr(terminal.out, "_width", 200)
    monkeypatch.setattr("sys.argv", ["memos", *words])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def rows(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def test_a_folder_is_added_once_and_deleted_by_id(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readable files below a folder are stored; again, nothing is; a list names them; deleting takes all."""

    def run(*words: str) -> tuple[int, str, str]:
        return memos(capsys, monkeypatch, *words)

    code, printed, _ = run("add", "--file", str(folder), "--cube", "c", "--json")
    assert code == 0
    assert [(row["name"], row["state"], row["parts"]) for row in rows(printed)] == [
        ("team.md", "stored", 1),
        ("pump.pdf", "stored", 2),
    ]
    code, printed, _ = run(
        "add", "-f", str(folder / "*.pdf"), "-f", str(folder / "pump.pdf"), "-c", "c", "--json"
    )
    assert code == 0 and [row["state"] for row in rows(printed)] == ["stored already"]
    code, printed, _ = run("search", "warranty", "--cube", "c", "--json")
    assert rows(printed)[0]["document"]["place"] == "page 2"
    code, printed, _ = run("search", "warranty", "--cube", "c")
    assert "pump.pdf, page 2" in printed
    code, printed, _ = run("documents", "list", "--cube", "c", "--json")
    ids = {row["name"]: row["id"] for row in rows(printed)}
    code, printed, _ = run("documents", "list")
    assert code == 0 and "2 documents" in printed and ids["pump.pdf"] in printed
    code, printed, _ = run("documents", "delete", ids["pump.pdf"])
    assert (code, printed.strip()) == (0, "deleted 1 document, 2 memories")
    code, printed, _ = run("list", "--cube", "c", "--json")
    assert [row["document"]["name"] for row in rows(printed)] == ["team.md"]


def test_what_cannot_be_read_is_named_and_costs_the_others_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One damaged file among sound ones: exit code 1, its reason on stderr, the others stored."""
    (folder / "a.pdf").write_bytes(b"%PDF-1.4 cut")
    code, printed, err = memos(capsys, monkeypatch, "add", "--file", str(folder), "--cube", "c")
    assert code == 1 and "2 of 3 files" in printed
    assert "a.pdf: DocumentUnreadable" in err.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add", "--file", "nothing/*.pdf"), "names no file"),
        (("add", "--file", "missing.pdf"), "missing.pdf"),
        (("add", "text", "--file", "x"), "not several"),
        (("documents", "delete", "doc-0"), "no document"),
    ],
)
def test_wrong_calls(
    words: tuple[str, ...],
    says: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What names nothing, or two things, is refused with a reason."""
    code, _, err = memos(capsys, monkeypatch, *words)
    assert code == 1 and says in err
