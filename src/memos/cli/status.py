"""`memos status`: the queue at one moment, or live with `--watch`; on every backend that outlives a process.

Looking changes nothing in the queue, and is bounded: the lanes that lag most, the longest held leases.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from memos.cli.terminal import opened, out, plain
from memos.mem_scheduler.queues.picture import LabelSums, Picture, labels_of

if TYPE_CHECKING:
    from memos.mem_scheduler.queues.base import HeldLease, LaneDepth, TaskQueue

LANES_SHOWN = 50
LEASES_SHOWN = 20
_LEFT = frozenset({"user", "cube", "label", "name", "lane", "labels", "held by"})


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("status")(status)


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it live, until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=3_600, help="Seconds between two looks.")
    ] = 1.0,
    looks: Annotated[int | None, typer.Option("--looks", min=1, help="End after so many looks.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each look.")] = False,
) -> None:
    """Who claims, what waits, runs and was given up, how far behind it is, and how long tasks take."""
    with opened() as runtime:
        if not watch:
            _show(Picture.of(runtime.queue, time.time(), leases_max=LEASES_SHOWN), as_json=as_json)
            return
        _watch(runtime.queue, interval=interval, looks=looks, as_json=as_json)


def _show(picture: Picture, *, as_json: bool) -> None:
    if as_json:
        out.print(json.dumps(as_dict(picture), ensure_ascii=False), markup=False, soft_wrap=True)
    else:
        out.print(frame(picture))


def _watch(queue: TaskQueue, *, interval: float, looks: int | None, as_json: bool) -> None:
    before: Picture | None = None
    with Live(console=out, auto_refresh=False, transient=False) as live:
        while looks is None or looks > 0:
            now = Picture.of(queue, time.time(), leases_max=LEASES_SHOWN)
            if as_json:
                _show(now, as_json=True)
            else:
                live.update(frame(now, before), refresh=True)
            before = now
            looks = None if looks is None else looks - 1
            if looks != 0:
                time.sleep(interval)


def frame(picture: Picture, before: Picture | None = None) -> RenderableType:
    """The tables for people; with the picture `before` also how fast the backlog changes."""
    depth = picture.depth
    parts: list[RenderableType] = [
        Text(
            f"{depth.queued} queued, {depth.delayed} delayed, {depth.parked} parked, "
            f"{depth.running} running, {depth.dead} dead"
        )
    ]
    if picture.instances:
        parts.append(_instances(picture))
    labels = picture.by_label()
    if labels or depth.times:
        parts.append(_labels(picture, labels, before))
    if depth.lanes:
        parts.append(_lanes(depth.lanes))
        if len(depth.lanes) > LANES_SHOWN:
            parts.append(Text(f"… and {len(depth.lanes) - LANES_SHOWN} more lanes", style="dim"))
    if picture.leases:
        parts.append(_leases(picture.leases))
    return Group(*parts)


def _table(*names: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", justify="left" if name in _LEFT else "right")
    return table


def _instances(picture: Picture) -> Table:
    table = _table("name", "labels", "pid", "up", "seen")
    for one in picture.instances:
        table.add_row(
            plain(one.name),
            plain(", ".join(sorted(one.labels))),
            str(one.pid),
            span(picture.at - one.since),
            f"{span(picture.at - one.seen_at)} ago",
        )
    return table


def _labels(picture: Picture, sums: Mapping[str, LabelSums], before: Picture | None) -> Table:
    names = (
        "label", "queued", "delayed", "parked", "running", "lag", "change/s", "waiting p50", "p95",
        "running p50", "p95",
    )  # fmt: skip
    rows: list[list[str]] = []
    earlier = before.by_label() if before is not None else {}
    for label in sorted({*sums, *picture.depth.times}):
        one = sums.get(label, LabelSums())
        change = ""
        if before is not None and picture.at > before.at:
            delta = one.waiting - earlier.get(label, LabelSums()).waiting
            change = f"{delta / (picture.at - before.at):+.1f}"
        times = picture.depth.times.get(label)
        seconds = (
            (None,) * 4
            if times is None
            else (times.waiting_p50, times.waiting_p95, times.running_p50, times.running_p95)
        )
        rows.append(
            [
                label,
                *(str(number or "") for number in (one.queued, one.delayed, one.parked, one.running)),
                span(one.lag_s) if one.waiting else "",
                change,
                *("–" if s is None else f"{s * 1000:.1f} ms" for s in seconds),
            ]
        )
    # Columns without a figure are left out: all of them do not fit in 80 columns.
    kept = [number for number in range(len(names)) if any(row[number] for row in rows)]
    table = _table(*(names[number] for number in kept))
    for row in rows:
        table.add_row(*(plain(row[number]) for number in kept))
    return table


def _lanes(lanes: tuple[LaneDepth, ...]) -> Table:
    table = _table("user", "cube", "label", "queued", "delayed", "parked", "running", "lag")
    worst = sorted(lanes, key=lambda lane: -max(lane.oldest_s.values(), default=0.0))
    for lane in worst[:LANES_SHOWN]:
        counts = (lane.queued, lane.delayed, lane.parked, lane.running)
        for label in labels_of(lane):
            numbers = [str(count.get(label, 0) or "") for count in counts]
            lag = lane.oldest_s.get(label)
            table.add_row(
                plain(lane.lane.user_id),
                plain(lane.lane.mem_cube_id),
                plain(label),
                *numbers,
                "" if lag is None else span(lag),
            )
    return table


def _leases(leases: tuple[HeldLease, ...]) -> Table:
    table = _table("lane", "labels", "slot", "epoch", "held by", "for", "expires in")
    for one in leases:
        expires = span(one.expires_in_s)
        table.add_row(
            plain(f"{one.lane.user_id} · {one.lane.mem_cube_id} · {one.lane.task_class}"),
            plain(", ".join(f"{label} {number}" for label, number in sorted(one.labels.items()))),
            str(one.slot),
            str(one.epoch),
            plain(one.instance),
            span(one.held_s),
            expires if one.expires_in_s > 0 else Text(expires, style="red"),
        )
    return table


def span(seconds: float) -> str:
    """A length of time for people: 0.4 s, 12 s, 3 min, 5.2 h."""
    size = abs(seconds)
    if size < 10:
        return f"{seconds:.1f} s"
    if size < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if size < 7_200 else f"{seconds / 3_600:.1f} h"


def as_dict(picture: Picture) -> dict[str, Any]:
    """The picture for other programs. Ages and spans are seconds."""
    depth = picture.depth
    return {
        "at": picture.at,
        "queued": depth.queued,
        "delayed": depth.delayed,
        "parked": depth.parked,
        "running": depth.running,
        "dead": depth.dead,
        "instances": [
            {
                "name": one.name,
                "host": one.host,
                "pid": one.pid,
                "labels": sorted(one.labels),
                "up_s": picture.at - one.since,
                "seen_s": picture.at - one.seen_at,
            }
            for one in picture.instances
        ],
        "lanes": [
            {
                "user_id": lane.lane.user_id,
                "mem_cube_id": lane.lane.mem_cube_id,
                "class": lane.lane.task_class,
                "label": label,
                "queued": lane.queued.get(label, 0),
                "delayed": lane.delayed.get(label, 0),
                "parked": lane.parked.get(label, 0),
                "running": lane.running.get(label, 0),
                "lag_s": lane.oldest_s.get(label),
            }
            for lane in depth.lanes[:1_000]
            for label in labels_of(lane)
        ],
        "leases": [
            {
                "user_id": one.lane.user_id,
                "mem_cube_id": one.lane.mem_cube_id,
                "class": one.lane.task_class,
                "slot": one.slot,
                "epoch": one.epoch,
                "instance": one.instance,
                "labels": dict(one.labels),
                "held_s": one.held_s,
                "expires_in_s": one.expires_in_s,
            }
            for one in picture.leases
        ],
        "labels": {
            label: {
                "waiting_p50_s": times.waiting_p50,
                "waiting_p95_s": times.waiting_p95,
                "running_p50_s": times.running_p50,
                "running_p95_s": times.running_p95,
            }
            for label, times in depth.times.items()
        },
    }
