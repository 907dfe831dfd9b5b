"""Random requests made from the description of the API, route by route: a table of what they came to.

    python tools/api_report.py [--examples 200] [--seed 1] [--write]

Every operation of /openapi.json gets up to so many requests that fit its description and as many that just do not,
over a fresh runtime with some memories in it. An answer fails when it is a fault of the server (5xx), has a status or
a content type that is not described, or a body that does not fit its schema. `--write` puts the table into
benchmarks/README.md between its marks. Exits with 1 when anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from memos.api.app import create_app
from memos.runtime import Runtime, build
from memos.settings import Settings

README = Path(__file__).resolve().parents[1] / "benchmarks" / "README.md"
MARKS = ("<!-- api report -->", "<!-- end of api report -->")
ENDLESS = "/scheduler/wait|/logs/stream|/metrics"  # they wait, never end, or have a form of their own
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)


@dataclass
class Line:
    """What the requests of one operation came to."""

    name: str
    examples: Counter[str] = field(default_factory=Counter)  # by mode
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        said = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"| `{self.name}` | {self.examples['positive']} | {self.examples['negative']} "
            f"| {said} | {len(self.faults)} |"
        )


def fill(runtime: Runtime) -> None:
    """Something to find, to read and to fail on."""
    for user in ("alice", "0"):
        runtime.chat.writer.write("My boat is called Petrel.", user_id=user, cube_ids=(user,), read="now")


def ask_all(
    operation: schemathesis.schemas.APIOperation,
    line: Line,
    mode: schemathesis.GenerationMode,
    *,
    examples: int,
    seed: int,
) -> None:
    """Send up to so many requests of one kind and note what came back."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.generate,),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        line.examples[mode.value] += 1
        answer = case.call()
        line.statuses[answer.status_code] += 1
        try:
            case.validate_response(answer, checks=CHECKS)
        except BaseException as fault:  # every kind of failed check; counted, so that the run goes on
            line.faults.append(f"{fault}"[:2_000])

    # Unsatisfiable: nothing about it can be wrong, as it takes no input.
    with contextlib.suppress(hypothesis.errors.Unsatisfiable):
        ask()


def tried(schema: schemathesis.BaseSchema, *, examples: int, seed: int) -> list[Line]:
    """Every operation with so many requests of each mode."""
    lines: list[Line] = []
    for found in schema.exclude(path_regex=ENDLESS).get_all_operations():
        operation = found.ok()
        line = Line(f"{operation.method.upper()} {operation.path}")
        lines.append(line)
        for mode in MODES:
            ask_all(operation, line, mode, examples=examples, seed=seed)
    return lines


def table(lines: list[Line], *, examples: int, seed: int) -> str:
    """As it stands in the README."""
    head = [
        f"{len(lines)} operations, up to {examples} requests that fit and {examples} that do not, seed {seed};",
        f"{sum(sum(line.examples.values()) for line in lines):,} requests,",
        f"{sum(len(line.faults) for line in lines)} failures.",
        "",
        "| route | fitting | not fitting | answers | failures |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(line.row() for line in lines)])


def main() -> None:
    """Run, print, perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        plain = Settings(home=Path(home), models={"embedder": "none"}, api={"enable_chat": True})
        with build(plain, start=True) as runtime:
            fill(runtime)
            schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(runtime))
            lines = tried(schema, examples=chosen.examples, seed=chosen.seed)
    text = table(lines, examples=chosen.examples, seed=chosen.seed)
    print(text)
    for line in lines:
        for fault in line.faults[:3]:
            print(f"\n{line.name}\n{fault}", file=sys.stderr)
    if chosen.write:
        before = README.read_text(encoding="utf-8")
        pattern = f"{re.escape(MARKS[0])}.*{re.escape(MARKS[1])}"
        README.write_text(
            re.sub(pattern, lambda _: f"{MARKS[0]}\n{text}\n{MARKS[1]}", before, flags=re.S), encoding="utf-8"
        )
    sys.exit(any(line.faults for line in lines))


if __name__ == "__main__":
    main()
