"""A result as rows for people and as JSON for programs."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from memos.chaos.conductor import Result, Wanted


def rows(result: Result) -> list[tuple[str, str, str]]:
    """(what, how many, what is promised)."""
    found = result.verdict
    numbers: list[tuple[str, object, str]] = [
        ("submitted (answered)", found.submitted, ""),
        ("submits without an answer", found.unanswered, "there or not: both are right"),
        ("done, chained ones included", found.done, ""),
        ("dead letters", found.dead, "hopeless and poisonous ones only"),
    ]
    if found.gone:
        numbers.append(("gone with a killed process", found.gone, "the queue was in its memory"))
    numbers += [
        ("lost", found.lost, "0"),
        ("dead that should not be", found.wrongly_dead, "0"),
        ("effects", found.effects, ""),
        ("effects applied twice", found.effects_twice, "0"),
        ("effects lost", found.effects_lost, "0"),
        ("repeats of plain handlers", found.repeats, f"at most {found.in_flight}: in flight at a fault"),
        ("repeats without a fault", found.repeats_unexplained, "0"),
        ("out of order", found.out_of_order, "0"),
        ("lease overlaps", found.overlaps, "0"),
        ("kills", found.kills, ", ".join(f"{k} {v}" for k, v in sorted(found.kills_by_place.items()))),
        (
            "other faults",
            sum(_others(result).values()),
            ", ".join(f"{k} {v}" for k, v in _others(result).items()),
        ),
        ("recovery p50 / max", _recovery(found.recoveries), "from the kill to the next claim of its work"),
    ]
    return [
        (name, f"{value:,}" if isinstance(value, int) else str(value), said) for name, value, said in numbers
    ]


def as_json(result: Result, wanted: Wanted) -> dict[str, Any]:
    """Everything, with what is needed to run it again."""
    found = result.verdict
    recoveries = sorted(found.recoveries)
    names = [name for name in found.__slots__ if name != "recoveries"]
    return {
        "backend": wanted.backend,
        "seed": wanted.seed,
        "lease_s": wanted.lease_s,
        "seconds": round(result.seconds, 1),
        "drained": result.drained,
        "ok": ok(result),
        "broken": found.broken,
        **{name: getattr(found, name) for name in names},
        "faults": result.faults,
        "recovery_p50_s": statistics.median(recoveries) if recoveries else None,
        "recovery_max_s": recoveries[-1] if recoveries else None,
    }


def write_json(result: Result, wanted: Wanted, path: Path) -> None:
    path.write_text(json.dumps(as_json(result, wanted), indent=2) + "\n", encoding="utf-8")


def ok(result: Result) -> bool:
    """Whether every guarantee held."""
    return result.drained and not result.verdict.broken


def again(wanted: Wanted) -> str:
    """The command that runs the same plan."""
    parts = [f"memos chaos --backend {wanted.backend} --seed {wanted.seed} --minutes {wanted.seconds / 60:g}"]
    if wanted.kills:
        parts.append(f"--kills {wanted.kills}")
    if wanted.lease_s != Wanted("local").lease_s:
        parts.append(f"--lease {wanted.lease_s:g}")
    if wanted.shards > 1:
        parts.append(f"--shards {wanted.shards}")
    if wanted.url:
        parts.append("--url URL")
    return " ".join(parts)


def _others(result: Result) -> dict[str, int]:
    return {name: count for name, count in sorted(result.faults.items()) if name != "kill"}


def _recovery(seconds: list[float]) -> str:
    if not seconds:
        return "–"
    return f"{statistics.median(seconds):.2f} / {max(seconds):.2f} s"
