"""The page on security names, for each answer, tests that are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_answer_is_shown_by_a_test_that_is_there() -> None:
    """Each row of a table of answers names tests, and each of them exists under that name."""
    rows = [
        line
        for table in re.findall(
            r"^\| answer \|.*\n\|---\|---\|\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.M
        )
        for line in table.splitlines()
    ]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        missing = [f"{path}::{name}" for path, name in named if name not in names_in(path)]
        assert not missing
