"""docs/handlers.md is what the handlers do, for every label that is served."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from memos.mem_scheduler.handlers import HANDLERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "handlers.md"


def test_the_page_shows_every_label_before_and_after() -> None:
    """Each label of the table has a heading with two tables of rows."""
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^### (\w+)$", text, flags=re.M)[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(sections) == set(HANDLERS)
    assert len(sections) == 10
    for section in sections.values():
        assert section.count("| id | text |") == 2
        assert section.index("\nBefore\n") < section.index("\nAfter\n")


def test_the_page_is_what_a_run_gives() -> None:
    """Running the handlers again writes the same page."""
    made = runpy.run_path(str(ROOT / "tools" / "make_handlers_page.py"))
    assert made["render"]() == PAGE.read_text(encoding="utf-8")
