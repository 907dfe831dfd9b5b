"""What is read from Redis without changing it: status rows, and the picture that `depth` gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import redis

from memos.mem_scheduler.queues.base import HeldLease, Instance, LabelTimes, LaneDepth, QueueDepth, TaskStatus
from memos.mem_scheduler.queues.label_times import SAMPLES_MAX, percentile
from memos.mem_scheduler.queues.redis_streams.wire import encoded, lane_of, task_text
from memos.mem_scheduler.schemas.task_schemas import TaskState

KEPT_S = 7 * 86_400.0
_LANES_A_CALL = 200
_ENDED = {"C": TaskState.COMPLETED, "K": TaskState.CANCELLED, "F": TaskState.FAILED}


def everything_under(client: redis.Redis, bases: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Each key below the bases, and what stands there, one piece after the other."""
    for base in bases:
        for name in names_under(client, base):
            yield name, "\n".join(_pieces(client, name)).encode(errors="surrogatepass")


def names_under(client: redis.Redis, base: str) -> Iterator[str]:
    """The keys that begin with `base`, whatever signs it holds."""
    pattern = re.sub(r"([][*?\\])", r"\\\1", base) + "*"
    return map(str, client.scan_iter(pattern, count=1_000))


def _pieces(client: Any, name: str) -> Iterator[str]:
    yield name
    kind = client.type(name)
    if kind == "string":
        yield client.get(name) or ""
    elif kind == "hash":
        for field, value in client.hscan_iter(name, count=1_000):
            yield from (field, value)
    elif kind == "list":
        yield from client.lrange(name, 0, -1)
    elif kind == "set":
        yield from client.sscan_iter(name, count=1_000)
    elif kind == "zset":
        yield from (member for member, _ in client.zscan_iter(name, count=1_000))
    elif kind == "stream":
        for _, fields in client.xrange(name):
            for field, value in fields.items():
                yield from (field, value)


def depth_of(*texts: str) -> QueueDepth:
    """The reply of the script `depth`, or those of all parts of a queue as one."""
    parts = [json.loads(text) for text in texts]
    sums = {name: sum(part[name] for part in parts) for name in _SUMMED}
    samples: dict[str, list[list[str]]] = {}
    for part in parts:
        for label, own in dict(part["times"]).items():
            samples.setdefault(label, []).append(list(own))
    return QueueDepth(
        remaining=sums["queued"] + sums["delayed"],
        running=sums["running"],
        queued=sums["queued"] - sums["parked"],
        delayed=sums["delayed"],
        parked=sums["parked"],
        dead=sums["dead"],
        lanes=tuple(
            LaneDepth(
                lane_of(one["lane"]),
                queued={} if one["parked"] else dict(one["q"]),
                delayed=dict(one["d"]),
                parked=dict(one["q"]) if one["parked"] else {},
                running=dict(one["r"]),
                oldest_s=dict(one["lag"]),
            )
            for part in parts
            for one in part["lanes"]
        ),
        times={
            label: _times([one for turn in zip_longest(*own) for one in turn if one is not None])
            for label, own in samples.items()
            if any(own)
        },
    )


_SUMMED = ("queued", "delayed", "running", "parked", "dead")


def _times(samples: Sequence[str]) -> LabelTimes:
    """Samples are [seconds of the run, [seconds each message waited]], newest first."""
    waiting: list[float] = []
    running: list[float] = []
    for text in samples:
        ran_s, waited_s = json.loads(text)
        waiting += waited_s
        running += [ran_s] * len(waited_s)
        if len(waiting) >= SAMPLES_MAX:
            break
    waiting, running = waiting[:SAMPLES_MAX], running[:SAMPLES_MAX]
    return LabelTimes(
        waiting_p50=percentile(waiting, 0.5),
        waiting_p95=percentile(waiting, 0.95),
        running_p50=percentile(running, 0.5),
        running_p95=percentile(running, 0.95),
    )


def leases_of(text: str) -> list[HeldLease]:
    """The reply of the script `operators` to "leases"."""
    return [
        HeldLease(
            lane_of(one["lane"]),
            int(one["slot"]),
            int(one["epoch"]),
            one["instance"],
            dict(one["labels"]),
            held_s=float(one["held"]),
            expires_in_s=float(one["left"]),
        )
        for one in json.loads(text)
    ]


def instances_of(text: str) -> list[Instance]:
    """The reply of the script `operators` to "instances"."""
    found = [
        Instance(
            one["name"],
            one["host"],
            int(one["pid"]),
            frozenset(one["labels"]),
            one["since"],
            float(one["seen"]),
        )
        for one in json.loads(text)
    ]
    return sorted(found, key=lambda one: one.name)


class StatusRows:
    """Status rows of the queue whose keys begin with `base`.

    `info:<lane>` has a row for each message since it was submitted, and one under "=" and its key since it
    ended; what lies between follows from the leases and the exceptional states, read in the same step.
    """

    def __init__(self, client: redis.Redis, base: str, *, run: Callable[..., Any]) -> None:
        """`run` runs a script."""
        self._client = client
        self._base = base
        self._run = run

    def find(
        self,
        *,
        wall: float,
        user_id: str | None = None,
        item_id: str | None = None,
        task_id: str | None = None,
        limit: int | None = None,
    ) -> list[TaskStatus]:
        """Newest submit first."""
        found: list[tuple[tuple[int, int], TaskStatus]] = []
        if user_id is not None and task_id:
            members: Any = self._client.smembers(f"{self._base}task:{task_text(user_id, task_id)}")
            keys_of: dict[str, list[str]] = {}
            for member in members:
                key, _, lane = member.partition(" ")
                keys_of.setdefault(lane, []).append(key)
            lanes: Sequence[str] = list(keys_of)
        else:
            keys_of = {}
            lanes = self._lanes(user_id)
        for first in range(0, len(lanes), _LANES_A_CALL):
            for row in self._rows(lanes[first : first + _LANES_A_CALL], keys_of, wall):
                status = row[1]
                if item_id in (None, status.item_id) and task_id in (None, status.task_id):
                    found.append(row)
        found.sort(key=lambda row: row[0], reverse=True)
        return [status for _, status in found[:limit]]

    def _lanes(self, user_id: str | None) -> list[str]:
        if user_id is None:
            lanes: Any = self._client.zrange(f"{self._base}rows", 0, -1)
        else:  # "0" is the character behind "/"
            user = encoded(user_id)
            lanes = self._client.zrangebylex(f"{self._base}rows", f"[{user}/", f"({user}0")
        return list(lanes)

    def _rows(
        self, lanes: Sequence[str], keys_of: Mapping[str, list[str]], wall: float
    ) -> Iterable[tuple[tuple[int, int], TaskStatus]]:
        arguments: list[Any] = [len(lanes)]
        for lane in lanes:
            keys = keys_of.get(lane, ())
            arguments += (lane, len(keys), *keys)
        leases, *replies = self._run("rows", *arguments)
        running = _running_since(leases)
        for number, lane in enumerate(lanes):
            rows, states = map(_pairs, replies[2 * number : 2 * number + 2])
            for key, text in rows.items():
                if key.startswith("="):
                    continue
                row = _row(lane, key, text, rows.get(f"={key}"), states, running, wall)
                if row is not None:
                    yield row


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    """A hash as a script gives it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _running_since(leases: Iterable[str]) -> dict[str, float]:
    running: dict[str, float] = {}
    for text in leases:
        head, _, keys = text.split("\n")
        since = float(json.loads(head)["wall"])
        running.update((key, since) for key in json.loads(keys))
    return running


def _row(
    lane: str,
    key: str,
    info: str,
    out: str | None,
    states: Mapping[str, str],
    running: Mapping[str, float],
    wall: float,
) -> tuple[tuple[int, int], TaskStatus] | None:
    sequence, submitted, body = info.split(" ", 2)
    number, item_id, task_id, label = json.loads(body)
    started: float | None
    finished: float | None = None
    if out is not None:
        head, error = out.split("\n", 1)
        letter, start, end, attempts = head.split(" ")
        state, started, finished = _ENDED[letter], _time(start), _time(end)
        if letter != "F" and finished is not None and finished <= wall - KEPT_S:
            return None
        tries = int(float(attempts))
    else:
        runner = key
        x = json.loads(states.get(key, "{}"))
        if "i" in x:  # another message runs for this one
            runner = x["i"]
            x = json.loads(states.get(runner, "{}"))
        state = TaskState.RETRYING if x.get("t") else TaskState.WAITING
        if runner in running:
            state = TaskState.IN_PROGRESS
        started = running.get(runner, _time(x.get("s")))
        tries, error = int(x.get("a", 0)), x.get("e", "")
    place = lane_of(lane)
    status = TaskStatus(
        key=key,
        item_id=item_id,
        task_id=task_id,
        user_id=place.user_id,
        mem_cube_id=place.mem_cube_id,
        label=label,
        state=state,
        submitted_at=float(submitted),
        started_at=started,
        finished_at=finished,
        attempts=tries,
        error=error,
    )
    return (int(sequence), number), status


def _time(text: str | None) -> float | None:
    return None if text is None or text == "-" else float(text)
