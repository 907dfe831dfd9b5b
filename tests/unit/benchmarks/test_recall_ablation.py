"""The ablation of recall: its table, and the page that holds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks.recall_ablation import BEGIN, END, GROUPS, NOTHING_TO_MEASURE, WHOLE, Line, table, written

from memos.evaluation.metrics import Scores
from memos.retrieval.stage_table import CUTS, SCORING, TABLE

PAGE = (Path(__file__).parents[3] / "docs" / "recall.md").read_text(encoding="utf-8")


def line(name: str, share: float) -> Line:
    scores = Scores(r5=share, r10=share, r20=share, mrr=share, ndcg10=share)
    return Line(name, scores, scores)


def first_cells(lines: str) -> list[str]:
    rows = [row for row in lines.splitlines() if row.startswith("| ")]
    return [row.split("|")[1].strip().strip("*") for row in rows]


def test_the_page_lists_exactly_the_stages_that_there_are() -> None:
    """Name and kind of each, in the order of the table in the code."""
    section = PAGE.partition("## The stages")[2].partition("\n## ")[0]
    rows = [row.split("|")[1:3] for row in section.splitlines() if row.startswith("| `")]
    listed = [(name, kind.strip()) for names, kind in rows for name in re.findall(r"`(\w+)`", names)]
    kinds = {"second": "second look"}
    assert listed == [(stage.name, kinds.get(stage.kind, stage.kind)) for stage in TABLE]


def test_the_page_measures_every_stage_or_says_why_not() -> None:
    """Scoring stages, groups, then cuts: a row each, and no others; what has nothing to work on is named."""
    rows = first_cells(PAGE.partition(BEGIN)[2].partition(END)[0])
    scoring = [
        stage.name for stage in TABLE if stage.name in SCORING and stage.name not in NOTHING_TO_MEASURE
    ]
    cuts = sorted(CUTS - NOTHING_TO_MEASURE.keys())
    head = ["without", "nothing"]
    assert rows == [*head, *scoring, *GROUPS, "nothing (defaults of a search)", *cuts]
    below = PAGE.partition(END)[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", below)) == set(NOTHING_TO_MEASURE)


def test_the_table_shows_what_is_lost_without_each() -> None:
    """Points against the search with everything, of a cut against the search with the defaults."""
    lines = [
        line(WHOLE, 0.8),
        line("dense", 0.75),
        line(f"defaults: {WHOLE}", 0.7),
        line("defaults: mmr", 0.71),
    ]
    shown = table(lines).splitlines()[2:]
    assert [row.split("|")[2].strip() for row in shown] == ["**.800**", "−5.0", "**.700**", "+1.0"]
    assert first_cells("\n".join(shown)) == ["nothing", "dense", "nothing (defaults of a search)", "mmr"]


def test_writing_replaces_the_table_and_nothing_else() -> None:
    """Twice is as once, and a page without the marks is refused."""
    lines = [line(WHOLE, 0.8), line("dense", 0.75), line(f"defaults: {WHOLE}", 0.7)]
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = written(page, lines)
    assert once == f"before\n{BEGIN}\n{table(lines)}\n{END}\nafter\n" == written(once, lines)
    with pytest.raises(ValueError, match="ablation begins"):
        written("no marks", lines)
