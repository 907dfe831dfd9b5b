"""Batches and outcomes as the scripts take and give them. Pure."""

from __future__ import annotations

import json
import random as random_module
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

from pydantic_core import to_json

from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import (
    Batch,
    Dead,
    Delivery,
    Done,
    Finish,
    Outcome,
    Release,
    Settled,
)
from memos.mem_scheduler.queues.columns import build_deliveries, build_settled
from memos.mem_scheduler.queues.redis_streams.wire import (
    decode,
    decode_all,
    encode,
    followup_arguments,
    lane_of,
    lane_text,
    row_of,
    task_text,
)
from memos.mem_scheduler.queues.verdicts import Fate, judge_retry
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState, class_of

SAMPLES_A_BATCH = 32
_LETTERS = {Fate.DEAD: "X", Fate.HEAD: "H", Fate.ASIDE: "A"}
_STATES = {
    "C": TaskState.COMPLETED,
    "X": TaskState.FAILED,
    "R": TaskState.WAITING,
    "K": TaskState.CANCELLED,
    "H": TaskState.RETRYING,
    "A": TaskState.RETRYING,
}


def by_lane(
    keys: Sequence[str], messages: Sequence[ScheduleMessageItem]
) -> tuple[int, list[Any], dict[str, list[str]]]:
    """How many lanes, what the script takes of each, and the members of business tasks."""
    lanes: dict[tuple[str, str, str], list[Any]] = {}
    tasks: dict[str, list[str]] = {}
    for number, (key, message) in enumerate(zip(keys, messages, strict=True)):
        lane_id = (message.user_id, message.mem_cube_id, class_of(message.label))
        rows = lanes.get(lane_id)
        if rows is None:
            rows = lanes[lane_id] = [lane_text(*lane_id), 0]
        rows += (key, message.label, row_of(number, message), encode(message))
        if message.task_id:
            task = task_text(message.user_id, message.task_id)
            tasks.setdefault(task, []).append(f"{key} {rows[0]}")
    arguments: list[Any] = []
    for rows in lanes.values():
        rows[1] = (len(rows) - 2) // 4
        arguments += rows
    return len(lanes), arguments, tasks


def delivery_of(
    lane: str, text: str, attempts: int, recoveries: int, payloads: Sequence[Sequence[str]]
) -> Delivery:
    """A delivery from the text of its message; `payloads`: key and message of those that it runs for."""
    key, _, at, parent, message = text.split("\n", 4)
    return Delivery(
        key,
        decode(message, key=key, stream=lane),
        parent,
        int(attempts),
        int(recoveries),
        float(at),
        tuple([decode(one, key=name, stream=lane) for name, one in payloads]),
    )


def batch_of(reply: list[Any], call: str) -> tuple[Batch, list[float], float]:
    """A batch of the reply to `call`, how long each message waited, and the length of the lease in seconds."""
    epoch, stream, slot, length, now, wall_text, states, *texts = reply
    wall, length_s = float(wall_text), float(length)
    rows = [text.split("\n", 4) for text in texts]
    keys, _, at_texts, parents, bodies = zip(*rows, strict=True)
    at = list(map(float, at_texts))
    waited_s = [wall - one for one in at]
    if not states:
        made = decode_all(bodies, keys=keys, stream=stream)
        deliveries = build_deliveries(keys, made, parents, repeat(0), repeat(0), at, repeat(()))
        return Batch(lane_of(stream), int(slot), epoch, deliveries, wall + length_s, call), waited_s, length_s
    exceptional = json.loads(states)
    several = []
    for place, (key, text) in enumerate(zip(keys, texts, strict=True)):
        state = exceptional.get(key, {})
        several.append(delivery_of(stream, text, state.get("a", 0), state.get("r", 0), state.get("p", ())))
        if ready := state.get("y"):  # on the clock of leases; a fresh message has only its wall time
            waited_s[place] = float(now) - float(ready)
    return Batch(lane_of(stream), int(slot), epoch, tuple(several), wall + length_s, call), waited_s, length_s


def finish_arguments(
    finish: Finish,
    times: Mapping[str, str],
    policy_of: Callable[[str], TaskPolicy],
    source: random_module.Random,
) -> list[Any]:
    """What the script takes of one batch behind its epoch: a letter for each message, what the letters need, the
    followups."""
    batch, outcomes = finish.batch, finish.outcomes
    special: list[Any] = []
    if set(map(type, outcomes)) == {Done}:
        fates = "C" * len(outcomes)
    else:
        fates, special = _fates_of(batch, outcomes, policy_of, source)
    return [
        batch.claim,
        fates,
        to_json(times),
        len(special) // 4,
        *special,
        len(finish.followups),
        *followup_arguments(finish.followups),
    ]


def _fates_of(
    batch: Batch,
    outcomes: Sequence[Outcome],
    policy_of: Callable[[str], TaskPolicy],
    source: random_module.Random,
) -> tuple[str, list[Any]]:
    """A letter for each message, and what the letter needs: index, attempts, delay, error."""
    letters: list[str] = []
    special: list[Any] = []
    for number, (delivery, outcome) in enumerate(zip(batch.deliveries, outcomes, strict=True), 1):
        if isinstance(outcome, Done):
            letters.append("C")
        elif isinstance(outcome, Release):
            letters.append("R")
        elif isinstance(outcome, Dead):
            letters.append("X")
            special += (number, delivery.attempts, 0, outcome.error)
        else:
            verdict = judge_retry(
                outcome,
                policy_of(delivery.message.label),
                attempts=delivery.attempts,
                blocked_s=None,  # the server knows for how long, and bounds it
                source=source,
            )
            letters.append(_LETTERS[verdict.fate])
            special += (number, verdict.attempts, verdict.delay_s, verdict.error)
    return "".join(letters), special


def settled_of(batch: Batch, answer: str) -> list[Settled]:
    """What `finish` answered: a letter for each message, and errors by place."""
    letters, errors = json.loads(answer)
    if not letters.strip("C"):
        return build_settled([delivery.key for delivery in batch.deliveries], TaskState.COMPLETED)
    errors = errors or {}
    return [
        Settled(delivery.key, _STATES[letter], errors.get(str(number), ""))
        for number, (delivery, letter) in enumerate(zip(batch.deliveries, letters, strict=True), 1)
    ]


def samples_of(finish: Finish, waited_s: Sequence[float], took_s: float) -> dict[str, str]:
    """How long messages that are done waited, and for how long the batch ran: [took, [waited, …]] by label.

    Of a large batch some stand for all: one in so many that there are SAMPLES_A_BATCH.
    """
    outcomes, deliveries = finish.outcomes, finish.batch.deliveries
    waits: dict[str, list[str]] = {}
    step = 1 + len(outcomes) // SAMPLES_A_BATCH
    for place in range(0, len(outcomes), step):
        if isinstance(outcomes[place], Done):
            waits.setdefault(deliveries[place].message.label, []).append(f"{waited_s[place]:.6f}")
    return {label: f"[{took_s:.6f},[{','.join(own)}]]" for label, own in waits.items()}
