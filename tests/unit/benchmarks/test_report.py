"""The table of a benchmark, and the pages that hold it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from benchmarks.report import Bar, Row, markdown, put_between_marks

ROWS = [
    Row("fast", Bar(">=", 0.5, 0.8), 0.456, "of floor", "28,772 of 63,918 | quiet"),
    Row("lost", Bar("<=", 0), 0, "messages"),
    Row("slow", Bar("<=", 3), None, "ms", "not in --quick"),
]


def test_a_missed_bar_says_so_and_a_row_without_a_figure_stays() -> None:
    """Each row is one line of the table, in order, whatever came of it."""
    lines = markdown(ROWS, {"cores": "2"}).splitlines()
    assert lines[0] == "cores 2."
    assert lines[4:] == [
        "| fast | ≥ 0.5 | 0.8 | 0.456 | of floor | **no** | 28,772 of 63,918 \\| quiet |",
        "| lost | ≤ 0 |  | 0 | messages | yes |  |",
        "| slow | ≤ 3 |  |  | ms |  | not in --quick |",
    ]


def test_only_what_stands_between_the_marks_of_the_benchmark_changes() -> None:
    """Another benchmark's table and the text around both stay, and writing twice is writing once."""
    page = "a\n<!-- rows of queue -->\nold\n<!-- end of rows of queue -->\nb\n<!-- rows of recall -->\nc\n<!-- end of rows of recall -->\n"
    once = put_between_marks(page, "queue", "new")
    assert once == page.replace("old", "new")
    assert put_between_marks(once, "queue", "new") == once
    with pytest.raises(ValueError, match="rows of api"):
        put_between_marks(page, "api", "new")


def test_a_run_writes_its_table_into_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--write` fills the page under the benchmark's own name, and a missed bar still ends with 1."""
    package = tmp_path / "benchmarks_here"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "pretend.py").write_text(
        "from benchmarks.report import Bar, Row, main\n"
        "main('Pretend', lambda options: [Row('lost', Bar('<=', 0), 3, 'messages')], settings={'seed': 1})\n",
        encoding="utf-8",
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- rows of pretend -->\n<!-- end of rows of pretend -->\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pretend", "--write", str(page)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks_here.pretend", run_name="__main__", alter_sys=True)
    assert ended.value.code == 1
    said = page.read_text(encoding="utf-8")
    assert "seed 1." in said
    assert "| lost | ≤ 0 |  | 3 | messages | **no** |  |" in said
