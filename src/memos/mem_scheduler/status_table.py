"""The documented print form of a queue's status."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from memos.mem_scheduler.queues.base import LabelTimes


def status_lines(
    status: Mapping[str, Any],
    *,
    unserved: Mapping[str, int],
    times: Mapping[str, LabelTimes],
    streams: bool = False,
) -> list[str]:
    """The lines of `print_tasks_status`: totals, then per user and cube a table of labels, then by label
    how long messages waited and ran.

    A backend that keeps no `streams` gets its totals alone.
    """
    lines = [
        f"Task Queue Status | running={status.get('running', 0)}, remaining={status.get('remaining', 0)}"
    ]
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for key, counts in status.items():
        if isinstance(counts, Mapping):
            owner, _, label = key.rpartition(":")
            groups[owner].append((label, counts))
    for owner in sorted(groups):
        rows = sorted(groups[owner])
        width = max(len("Task Label"), *(len(label) for label, _ in rows))
        lines.append(f"[{owner}]")
        lines.append(f"  {'Task Label':<{width}} | {'Running':>7} | {'Remaining':>9}")
        lines.extend(
            f"  {label:<{width}} | {counts.get('running', 0):>7} | {counts.get('remaining', 0):>9}"
            for label, counts in rows
        )
    if not groups and not streams:
        lines.append("[Local Queue Totals]")
        lines.append(f"  {'Running':>7} | {'Remaining':>9}")
        lines.append(f"  {status.get('running', 0):>7} | {status.get('remaining', 0):>9}")
    if times:
        width = max(len("Task Label"), *map(len, times))
        lines.append("[Times]")
        lines.append(
            f"  {'Task Label':<{width}} | {'Waiting p50':>11} | {'p95':>9} | {'Running p50':>11} | {'p95':>9}"
        )
        lines.extend(
            f"  {label:<{width}} | {_ms(one.waiting_p50):>11} | {_ms(one.waiting_p95):>9}"
            f" | {_ms(one.running_p50):>11} | {_ms(one.running_p95):>9}"
            for label, one in sorted(times.items())
        )
    lines.extend(f"Waiting for a handler: {label} ({count})" for label, count in sorted(unserved.items()))
    return lines


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.1f} ms"


def print_status(
    status: Mapping[str, Any],
    *,
    unserved: Mapping[str, int],
    times: Mapping[str, LabelTimes],
    streams: bool = False,
) -> None:
    """Print the lines, as the documented program does, to stdout."""
    print("\n".join(status_lines(status, unserved=unserved, times=times, streams=streams)), flush=True)  # noqa: T201
