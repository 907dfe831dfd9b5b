"""The reference cannot rot: whatever a user can name has a heading."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import typer

from memos import errors, metrics
from memos.mem_scheduler.schemas import task_schemas
from memos.settings import ALIASES, WITHOUT_EFFECT, known_names

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def headings(page: str) -> set[str]:
    """The third-level headings of a page of the reference."""
    return set(re.findall(r"^### (.+?)\s*$", (REFERENCE / page).read_text(encoding="utf-8"), re.M))


def test_every_setting_has_a_heading() -> None:
    """Each canonical name is described, and no heading names a setting that is gone."""
    assert headings("settings.md") == set(known_names()) | set(WITHOUT_EFFECT)


def test_every_alias_is_named() -> None:
    """Each documented alias stands in the page of settings."""
    text = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    assert [name for name in ALIASES if f"`{name}`" not in text] == []


def test_every_label_has_a_heading() -> None:
    """Each label constant is described, and no heading names a label that is gone."""
    labels = {value for name, value in vars(task_schemas).items() if name.endswith("_TASK_LABEL")}
    assert headings("labels.md") == labels


def test_every_error_has_a_heading() -> None:
    """Each class of the error tree is described, and no heading names one that is gone."""
    tree = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.MemosError)
    }
    assert headings("errors.md") == tree


def test_every_command_has_a_heading() -> None:
    """Each command of the console script is described, and no heading names one that is gone."""
    from memos.cli.main import app

    def walk(command: Any, path: str) -> set[str]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return {path}
        return {found for name in inner for found in walk(inner[name], f"{path} {name}")}

    assert headings("commands.md") == walk(typer.main.get_command(app), "memos")


def test_every_metric_has_a_heading() -> None:
    """Each metric of the table is described, and no heading names a metric that is gone."""
    assert headings("metrics.md") == set(metrics.table())
