"""What all benchmarks share: rows, the conditions they were measured under, the table and the JSON file.

A row carries the name of the design's bar, the bar, what was measured in the bar's unit, and whether it
holds. A row that is only informative has no bar; a row that was not measured (`--quick`) has no number.
No row is left out because it falls short.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Bar:
    """`>= value` or `<= value`; `stretch` is where we would like to be."""

    relation: Literal[">=", "<="]
    value: float
    stretch: float | None = None

    def holds(self, measured: float) -> bool:
        return measured >= self.value if self.relation == ">=" else measured <= self.value

    def __str__(self) -> str:
        return f"{self.relation} {_number(self.value)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `measured` None: not measured in this run, `note` says why."""

    name: str
    bar: Bar | None
    measured: float | None
    unit: str
    note: str = ""

    @property
    def ok(self) -> bool | None:
        if self.bar is None or self.measured is None:
            return None
        return self.bar.holds(self.measured)

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "bar": None if self.bar is None else str(self.bar),
            "measured": self.measured,
            "unit": self.unit,
            "ok": self.ok,
        }


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    quick: bool
    json_file: Path | None
    flags: frozenset[str] = frozenset()  # those of the benchmark's own that were given


def conditions() -> dict[str, str]:
    """The machine and its load: a figure means little without them."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0))),
        "load before": load,
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [("row", "bar", "stretch", "measured", "unit", "ok", "")]
    for row in rows:
        stretch = row.bar.stretch if row.bar is not None else None
        verdict = {True: "yes", False: "NO", None: "-"}[row.ok]
        lines.append(
            (
                row.name,
                "-" if row.bar is None else str(row.bar),
                "-" if stretch is None else _number(stretch),
                "-" if row.measured is None else _number(row.measured),
                row.unit,
                verdict,
                row.note,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in text)


def markdown(rows: Sequence[Row], said: Mapping[str, str]) -> str:
    """The rows as a table of Markdown, their conditions above it."""
    lines = ["; ".join(f"{name} {value}" for name, value in said.items()) + ".", ""]
    lines += ["| row | bar | stretch | measured | unit | ok | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        stretch = row.bar.stretch if row.bar is not None else None
        cells = (
            row.name,
            "" if row.bar is None else str(row.bar).replace(">=", "≥").replace("<=", "≤"),
            "" if stretch is None else _number(stretch),
            "" if row.measured is None else _number(row.measured),
            row.unit,
            {True: "yes", False: "**no**", None: ""}[row.ok],
            row.note.replace("|", "\\|"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def put_between_marks(text: str, name: str, table: str) -> str:
    """`text` with what stands between the marks of benchmark `name` replaced by `table`.

    The marks are `<!-- rows of NAME -->` and `<!-- end of rows of NAME -->`; ValueError without them.
    """
    return replaced_between(text, f"<!-- rows of {name} -->", f"<!-- end of rows of {name} -->", table)


def replaced_between(text: str, first: str, last: str, new: str) -> str:
    """`text` with what stands between two marks replaced. Raises ValueError where it has none."""
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"the page has no {first} and {last}")
    return f"{before}{first}\n{new}\n{last}{after}"


def main(
    title: str,
    measure: Callable[[Options], Sequence[Row]],
    *,
    settings: Mapping[str, object],
    flags: Mapping[str, str] | None = None,
    marks: str | None = None,
) -> None:
    """Read the command line, measure, print the table, write the JSON; exits with 1 if a bar is missed.

    `flags`: switches of the benchmark's own (`--NAME`), and what each is for. `marks`: the NAME between whose marks
    `--write` puts the table; None: the benchmark's.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="end within 45 s; slow rows stay empty")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument(
        "--write",
        type=Path,
        nargs="+",
        metavar="FILE",
        default=[],
        help="put the table, as Markdown, between the marks `rows of NAME` of these files",
    )
    for name, meaning in (flags or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    given = parser.parse_args()
    before = conditions()
    chosen = frozenset(name for name in flags or {} if getattr(given, name))
    rows = measure(Options(quick=given.quick, json_file=given.json, flags=chosen))
    print(title)
    print("; ".join(f"{name} {value}" for name, value in before.items()))
    print("settings: " + ", ".join(f"{name}={value}" for name, value in settings.items()))
    print(table(rows))
    if given.json is not None:
        document = {"rows": [row.as_json() for row in rows], "conditions": before}
        given.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for file in given.write:
        said = {"measured on": time.strftime("%Y-%m-%d")} | before | {k: str(v) for k, v in settings.items()}
        file.write_text(
            put_between_marks(file.read_text(encoding="utf-8"), marks or _benchmark(), markdown(rows, said)),
            encoding="utf-8",
        )
    if any(row.ok is False for row in rows):
        sys.exit(1)


def _benchmark() -> str:
    """The name behind `python -m benchmarks.`."""
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        raise RuntimeError("benchmarks are run as `python -m benchmarks.NAME`")
    return spec.name.split(".")[1]


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
