"""The page of guarantees cannot rot: every test it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_named_test_exists() -> None:
    """Each file and each test function that ARCHITECTURE.md names is in the suite."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`(tests/[\w/]+\.py)", text))
    assert [path for path in sorted(files) if not (ROOT / path).is_file()] == []
    functions = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"::(test_\w+)", text))
    assert [name for name in sorted(named) if f"def {name}(" not in functions] == []
