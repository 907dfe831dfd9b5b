"""QueueHandler: what the queue holds by label and lane, and how long its tasks took.

Everybody sees the lanes of the users and cubes of their key. Looks are shared for `LOOK_KEPT_S`, so that
any number of open pages costs the queue one look at a time. Reads only.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from memos.api import access
from memos.api.queue_models import (
    InstanceRow,
    LabelLatency,
    LabelRow,
    LaneRow,
    Latency,
    LatencyResponse,
    LeaseRow,
    Percentiles,
    QueuePicture,
    QueueResponse,
    QueueTotals,
)
from memos.clock import Clock
from memos.mem_scheduler.queues.base import DeadLetter, LabelTimes, Lane, TaskQueue, TaskStatus
from memos.mem_scheduler.queues.label_times import percentile
from memos.mem_scheduler.queues.picture import LabelSums, Picture, labels_of, sums_of
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.mem_scheduler.schemas.task_schemas import TaskState

LOOK_KEPT_S = 0.5
LANES_MAX = 200
LEASES_MAX = 100
LETTERS_LOOKED_AT = 500
TASKS_LOOKED_AT = 3_000
TASKS_KEPT_S = 4.0  # reading so many costs Redis a third of a second
USERS_ASKED_MAX = 8  # users of a key that are asked for one by one
STEPS = 60

_Row = tuple[str, str, str]  # user, cube, label
_ENDED = frozenset({TaskState.COMPLETED, TaskState.FAILED})


@dataclass(slots=True)
class _Kept:
    """The last answer to one question, and when it was given."""

    value: Any = None
    at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class QueueHandler:
    """Thread-safe."""

    def __init__(self, queue: TaskQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._picture = _Kept()
        self._letters = _Kept()
        self._tasks = _Kept()

    def handle_queue(self, *, user_id: str | None, cube_id: str | None) -> QueueResponse:
        """The queue now, narrowed to a user, a cube, and the scope. Raises AccessDenied, QueueUnavailable."""
        _allowed(user_id, cube_id)
        picture: Picture = self._shared(
            self._picture,
            LOOK_KEPT_S,
            lambda: Picture.of(self._queue, self._clock.now(), leases_max=LEASES_MAX),
        )
        letters = self._dead_letters() if picture.depth.dead else []
        lanes = _lane_rows(picture, letters, user_id, cube_id)
        everything = access.current().is_admin and user_id is None and cube_id is None
        return QueueResponse(
            message="Queue retrieved successfully",
            data=QueuePicture(
                at=picture.at,
                totals=_totals_of(picture) if everything else _totals(lanes),
                capacity=self._queue.messages_max,
                labels=_label_rows(lanes, picture.depth.times if access.current().is_admin else {}),
                lanes=lanes[:LANES_MAX],
                lanes_left_out=max(0, len(lanes) - LANES_MAX),
                leases=[
                    _lease_row(one)
                    for one in picture.leases
                    if _shown(one.lane.user_id, one.lane.mem_cube_id, user_id, cube_id)
                ],
                instances=_instance_rows(picture) if access.current().is_admin else [],
                dead_counted=len(letters) < LETTERS_LOOKED_AT,
            ),
        )

    def handle_latency(self, *, minutes: float, user_id: str | None, cube_id: str | None) -> LatencyResponse:
        """Waiting and running times of what finished in the last minutes. Raises AccessDenied."""
        _allowed(user_id, cube_id)
        until = self._clock.now()
        since = until - 60.0 * minutes
        looked_at, complete = self._statuses(user_id, since)
        ended = [
            one
            for one in looked_at
            if one.state in _ENDED
            and one.started_at is not None
            and one.finished_at is not None
            and since <= one.finished_at <= until
            and _shown(one.user_id, one.mem_cube_id, user_id, cube_id)
        ]
        return LatencyResponse(
            message="Latencies retrieved successfully",
            data=Latency(
                since=since,
                until=until,
                step_s=(until - since) / STEPS,
                tasks=len(looked_at),
                complete=complete,
                labels=latencies(ended, since=since, until=until),
            ),
        )

    def _statuses(self, user_id: str | None, since: float) -> tuple[Sequence[TaskStatus], bool]:
        """The newest tasks, and whether those that were submitted since then are all among them."""
        users = None if access.current().is_admin else access.current().users
        names = [user_id] if user_id is not None else sorted(users or ())
        if users is not None and not names:
            return [], True
        if not names or len(names) > USERS_ASKED_MAX:
            found: Sequence[TaskStatus] = self._shared(
                self._tasks, TASKS_KEPT_S, lambda: self._queue.statuses(limit=TASKS_LOOKED_AT)
            )
            return found, _reach(found, since, TASKS_LOOKED_AT)
        limit = TASKS_LOOKED_AT // len(names)
        parts = [self._queue.statuses(user_id=name, limit=limit) for name in names]
        return [one for part in parts for one in part], all(_reach(part, since, limit) for part in parts)

    def _dead_letters(self) -> list[DeadLetter]:
        letters: list[DeadLetter] = self._shared(
            self._letters, LOOK_KEPT_S, lambda: self._queue.dead.list(limit=LETTERS_LOOKED_AT)
        )
        return letters

    def _shared(self, kept: _Kept, seconds: float, look: Callable[[], Any]) -> Any:
        with kept.lock:  # who comes meanwhile waits for this look instead of taking one more
            now = self._clock.monotonic()
            if kept.at is None or now - kept.at >= seconds:
                kept.value = look()
                kept.at = self._clock.monotonic()
            return kept.value


def latencies(ended: Sequence[TaskStatus], *, since: float, until: float) -> list[LabelLatency]:
    """The tasks of each label in `STEPS` equal steps by when they finished; busiest labels first."""
    by_label: dict[str, list[TaskStatus]] = defaultdict(list)
    for one in ended:
        by_label[one.label].append(one)
    rows = []
    for label, tasks in sorted(by_label.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        waiting: list[list[float]] = [[] for _ in range(STEPS)]
        running: list[list[float]] = [[] for _ in range(STEPS)]
        for one in tasks:
            started, finished = one.started_at or 0.0, one.finished_at or 0.0
            step = min(STEPS - 1, int((finished - since) / (until - since) * STEPS))
            waiting[step].append(max(0.0, started - one.submitted_at))
            running[step].append(max(0.0, finished - started))
        rows.append(
            LabelLatency(
                label=label,
                finished=len(tasks),
                failed=sum(one.state is TaskState.FAILED for one in tasks),
                counts=[len(values) for values in waiting],
                waiting=_percentiles(waiting),
                running=_percentiles(running),
            )
        )
    return rows


def _percentiles(steps: Sequence[Sequence[float]]) -> Percentiles:
    def of(values: Sequence[float], share: float) -> float | None:
        found = percentile(values, share)
        return None if found is None else round(found, 6)

    everything = [value for values in steps for value in values]
    return Percentiles(
        p50=[of(values, 0.5) for values in steps],
        p95=[of(values, 0.95) for values in steps],
        all_p50=of(everything, 0.5),
        all_p95=of(everything, 0.95),
    )


def _reach(found: Sequence[TaskStatus], since: float, limit: int) -> bool:
    return len(found) < limit or found[-1].submitted_at < since


def _allowed(user_id: str | None, cube_id: str | None) -> None:
    access.may_read(
        users=[check_id("user_id", user_id)] if user_id is not None else [],
        cubes=[check_id("mem_cube_id", cube_id)] if cube_id is not None else [],
    )


def _shown(user: str, cube: str, user_id: str | None, cube_id: str | None) -> bool:
    """Whether who asks may see it, and asked for it."""
    who = access.current()
    return user_id in (None, user) and cube_id in (None, cube) and who.has_user(user) and who.has_cube(cube)


def _lane_rows(
    picture: Picture, letters: Sequence[DeadLetter], user_id: str | None, cube_id: str | None
) -> list[LaneRow]:
    """Every row that is shown, those that lag most first, then those with most to do."""
    dead: Counter[_Row] = Counter(
        (one.message.user_id, one.message.mem_cube_id, one.message.label)
        for one in letters
        if _shown(one.message.user_id, one.message.mem_cube_id, user_id, cube_id)
    )
    lane_of = {
        (one.message.user_id, one.message.mem_cube_id, one.message.label): one.message.stream_key
        for one in letters
    }
    rows = []
    for depth in picture.depth.lanes:
        lane = depth.lane
        if not _shown(lane.user_id, lane.mem_cube_id, user_id, cube_id):
            continue
        for label in labels_of(depth):
            given_up = dead.pop((lane.user_id, lane.mem_cube_id, label), 0)
            rows.append(_lane_row(lane, label, sums_of(depth, label), given_up))
    for (user, cube, label), count in dead.items():
        task_class = lane_of[user, cube, label].rpartition("/")[2] or label
        rows.append(_lane_row(Lane(user, cube, task_class), label, LabelSums(), count))
    rows.sort(key=lambda row: (-row["lag_s"], -row["queued"] - row["running"], row["lane"], row["label"]))
    return rows


def _lane_row(lane: Lane, label: str, sums: LabelSums, dead: int) -> LaneRow:
    return LaneRow(
        lane=str(lane),
        user_id=lane.user_id,
        mem_cube_id=lane.mem_cube_id,
        task_class=lane.task_class,
        label=label,
        queued=sums.queued,
        delayed=sums.delayed,
        parked=sums.parked,
        running=sums.running,
        dead=dead,
        lag_s=round(sums.lag_s, 3),
    )


def _label_rows(lanes: Sequence[LaneRow], times: Any) -> list[LabelRow]:
    sums: dict[str, LabelSums] = {}
    dead: Counter[str] = Counter()
    for row in lanes:
        own = LabelSums(row["queued"], row["delayed"], row["parked"], row["running"], row["lag_s"])
        sums[row["label"]] = sums.get(row["label"], LabelSums()) + own
        dead[row["label"]] += row["dead"]
    rows = []
    for label in sorted({*sums, *times}):
        one, took = sums.get(label, LabelSums()), times.get(label, LabelTimes())
        rows.append(
            LabelRow(
                label=label,
                queued=one.queued,
                delayed=one.delayed,
                parked=one.parked,
                running=one.running,
                dead=dead[label],
                lag_s=one.lag_s,
                waiting_p50_s=took.waiting_p50,
                waiting_p95_s=took.waiting_p95,
                running_p50_s=took.running_p50,
                running_p95_s=took.running_p95,
            )
        )
    return rows


def _totals_of(picture: Picture) -> QueueTotals:
    depth = picture.depth
    return QueueTotals(
        remaining=depth.remaining,
        queued=depth.queued,
        delayed=depth.delayed,
        parked=depth.parked,
        running=depth.running,
        dead=depth.dead,
    )


def _totals(lanes: Sequence[LaneRow]) -> QueueTotals:
    queued, delayed, parked = (sum(row[name] for row in lanes) for name in ("queued", "delayed", "parked"))
    return QueueTotals(
        remaining=queued + delayed + parked,
        queued=queued,
        delayed=delayed,
        parked=parked,
        running=sum(row["running"] for row in lanes),
        dead=sum(row["dead"] for row in lanes),
    )


def _lease_row(one: Any) -> LeaseRow:
    return LeaseRow(
        lane=str(one.lane),
        user_id=one.lane.user_id,
        mem_cube_id=one.lane.mem_cube_id,
        labels=dict(one.labels),
        instance=one.instance if access.current().is_admin else "",
        held_s=round(one.held_s, 3),
        expires_in_s=round(one.expires_in_s, 3),
    )


def _instance_rows(picture: Picture) -> list[InstanceRow]:
    return [
        InstanceRow(
            name=one.name,
            host=one.host,
            pid=one.pid,
            labels=sorted(one.labels),
            up_s=round(picture.at - one.since, 3),
            seen_s=round(picture.at - one.seen_at, 3),
        )
        for one in picture.instances
    ]
