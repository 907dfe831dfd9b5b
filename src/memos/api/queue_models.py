"""Answers about the queue: what each lane holds, how long tasks took, and the dead letters."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel
from typing_extensions import TypedDict  # pydantic refuses the one of `typing` before Python 3.12

from memos.api.model_base import BaseResponse, ItemIds, example
from memos.errors import InvalidInput


class QueueTotals(TypedDict):
    """Messages by state. `remaining` = queued + delayed + parked."""

    remaining: int
    queued: int
    delayed: int
    parked: int
    running: int
    dead: int


class LabelRow(TypedDict):
    """One label over all lanes that are shown. `lag_s`: for how long its oldest message has been ready.

    The four times are seconds over the label's last finished messages, of every user: for admins only.
    """

    label: str
    queued: int
    delayed: int
    parked: int
    running: int
    dead: int
    lag_s: float
    waiting_p50_s: float | None
    waiting_p95_s: float | None
    running_p50_s: float | None
    running_p95_s: float | None


class LaneRow(TypedDict):
    """One label in one lane. `lane` is the lane's name (its `stream_key`)."""

    lane: str
    user_id: str
    mem_cube_id: str
    task_class: str
    label: str
    queued: int
    delayed: int
    parked: int
    running: int
    dead: int
    lag_s: float


class LeaseRow(TypedDict):
    """A batch that a worker holds. Below 0 in `expires_in_s`: lost, until somebody claims it again."""

    lane: str
    user_id: str
    mem_cube_id: str
    labels: dict[str, int]
    instance: str
    held_s: float
    expires_in_s: float


class InstanceRow(TypedDict):
    """A process that claims from the queue."""

    name: str
    host: str
    pid: int
    labels: list[str]
    up_s: float
    seen_s: float


class QueuePicture(TypedDict):
    """The queue at one moment (`at`: seconds since 1970), of the users and cubes of who asks.

    `capacity` is what the whole queue may hold. `lanes` are those that lag most, `lanes_left_out` how many
    rows are not shown. `dead_counted` false: more dead letters than were looked at, so counts by label and
    lane are of the newest. `instances` is empty but for admins.
    """

    at: float
    totals: QueueTotals
    capacity: int
    labels: list[LabelRow]
    lanes: list[LaneRow]
    lanes_left_out: int
    leases: list[LeaseRow]
    instances: list[InstanceRow]
    dead_counted: bool


class QueueResponse(BaseResponse[QueuePicture]):
    """What the queue holds now, label by label and lane by lane."""


class Percentiles(TypedDict):
    """Seconds, a value for each step (null where nothing finished), and over all of them."""

    p50: list[float | None]
    p95: list[float | None]
    all_p50: float | None
    all_p95: float | None


class LabelLatency(TypedDict):
    """How long the tasks of a label waited (from submit until they ran) and ran, step by step."""

    label: str
    finished: int
    failed: int
    counts: list[int]
    waiting: Percentiles
    running: Percentiles


class Latency(TypedDict):
    """Tasks finished between `since` and `until` (seconds since 1970), in steps of `step_s`.

    `complete` false: more tasks than were looked at (`tasks`), so the oldest steps may lack some.
    """

    since: float
    until: float
    step_s: float
    tasks: int
    complete: bool
    labels: list[LabelLatency]


class LatencyResponse(BaseResponse[Latency]):
    """How long tasks waited and ran over the last minutes, by label."""


class DeadRow(TypedDict):
    """A message that was given up. `content` is cut short; `content_chars` is its whole length."""

    key: str
    label: str
    user_id: str
    mem_cube_id: str
    item_id: str
    task_id: str
    trace_id: str
    content: str
    content_chars: int
    error: str
    attempts: int
    recoveries: int
    submitted_at: float
    died_at: float


class DeadResponse(BaseResponse[list[DeadRow]]):
    """Dead letters, newest first. `total` is how many there are in all; null but for admins."""

    total: int | None = None


def _some(value: list[str]) -> list[str]:
    if not value:
        raise InvalidInput("keys is an empty list; name at least one dead letter")
    return value


class DeadKeysRequest(BaseModel):
    """The dead letters that are meant, by key."""

    model_config = example(keys=["01JC7Q0Z9T4R8W2N5M6K3H1F0E"])

    keys: Annotated[ItemIds, AfterValidator(_some)]


class DeadHandled(TypedDict):
    """How many letters were there and were handled; `unknown` are the keys of the others."""

    handled: int
    unknown: list[str]


class DeadHandledResponse(BaseResponse[DeadHandled]):
    """What became of the letters that were named."""
