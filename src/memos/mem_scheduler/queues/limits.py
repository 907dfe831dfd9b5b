"""The bounds of a queue, the refusals that name them, and the weights of users. For every backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from memos.errors import ConfigError, InvalidInput, LeaseLost, QueueFull, QueueUnavailable
from memos.mem_scheduler.queues.base import Batch, Dead, Done, Lane, Outcome, Release, Retry, Settled
from memos.mem_scheduler.queues.packs import LaneId
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

if TYPE_CHECKING:
    from memos.memory.store import Followup

WEIGHT_MIN = 0.001
_content_of = attrgetter("content")


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds; 0 is no cap for `user_batches_max`, nothing else may be below 1. Raises ConfigError."""

    messages_max: int
    lane_messages_max: int
    payload_bytes_max: int
    dead_letters_max: int
    status_entries_max: int
    idempotency_keys_max: int = 100_000
    idempotency_ttl_s: float = 86_400.0
    user_batches_max: int = 0  # 0: no cap

    def __post_init__(self) -> None:
        for name, value in (
            ("messages_max", self.messages_max),
            ("lane_messages_max", self.lane_messages_max),
            ("payload_bytes_max", self.payload_bytes_max),
            ("dead_letters_max", self.dead_letters_max),
            ("status_entries_max", self.status_entries_max),
            ("idempotency_keys_max", self.idempotency_keys_max),
        ):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value!r}")
        if not self.idempotency_ttl_s > 0:
            raise ConfigError(f"idempotency_ttl_s must be above 0, not {self.idempotency_ttl_s!r}")
        if self.user_batches_max < 0:
            raise ConfigError(f"user_batches_max must be 0 (no cap) or above, not {self.user_batches_max!r}")

    def check_payloads(self, messages: Sequence[ScheduleMessageItem]) -> None:
        """InvalidInput for a content that is too long."""
        limit = self.payload_bytes_max
        contents = list(map(_content_of, messages))
        if max(map(len, contents), default=0) * 4 <= limit:
            return
        for message, content in zip(messages, contents, strict=True):
            if len(content) * 4 > limit and len(content.encode(errors="surrogatepass")) > limit:
                raise InvalidInput(
                    f"content of message {message.item_id!r} has more than {limit} bytes "
                    "(queue.payload_bytes_max): split it"
                )

    def check_room(
        self, numbers: Mapping[LaneId, int], *, held: int, held_by: Callable[[LaneId], int]
    ) -> None:
        """QueueFull when so many messages by lane do not all fit beside the `held` ones, `held_by` lane."""
        total = sum(numbers.values())
        if held + total > self.messages_max:
            raise self.refusal("", held=held, number=total)
        for lane_id, number in numbers.items():
            in_lane = held_by(lane_id)
            if in_lane + number > self.lane_messages_max:
                raise self.refusal(str(Lane(*lane_id)), held=in_lane, number=total)

    def refusal(self, lane: str, *, held: int, number: int) -> QueueFull:
        """What a call of `number` messages is told when the lane ("": the queue) holds `held` already."""
        place, limit, setting = "the queue", self.messages_max, "queue.messages_max"
        if lane:
            place, limit, setting = f"lane {lane}", self.lane_messages_max, "queue.lane_messages_max"
        return QueueFull(
            f"{place} holds {held} messages of at most {limit} ({setting}); none of these {number} was "
            "queued, submit them again later"
        )


def weight_function(
    weights: Mapping[str, float] | Callable[[str], float] | None,
) -> Callable[[str], float]:
    """A user's weight: 1 where nothing is said. Raises ConfigError for one that is too small."""
    if weights is None:
        return lambda user_id: 1.0
    if isinstance(weights, Mapping):
        for user_id, weight in weights.items():
            if not weight >= WEIGHT_MIN:
                raise ConfigError(
                    f"the weight of user {user_id!r} must be at least {WEIGHT_MIN}, not {weight!r}"
                )
        fixed = dict(weights)
        return lambda user_id: fixed.get(user_id, 1.0)
    asked = weights
    return lambda user_id: max(WEIGHT_MIN, asked(user_id))


_OUTCOMES = frozenset({Done, Retry, Dead, Release})


def check_claim(lanes_max: int, batch_max: int | None) -> None:
    """InvalidInput for a claim of nothing."""
    if lanes_max < 1 or (batch_max is not None and batch_max < 1):
        raise InvalidInput(f"lanes_max={lanes_max!r}, batch_max={batch_max!r}: both must be at least 1")


def check_delays(delay_s: float, followups: Sequence[Followup]) -> None:
    """InvalidInput for a delay that never ends or is no number."""
    for one in (delay_s, *(followup.delay_s for followup in followups)):
        if not math.isfinite(one):
            raise InvalidInput(f"a message cannot be delayed by {one!r} seconds; give a finite number")


def only_answer(answers: Sequence[list[Settled] | LeaseLost | QueueUnavailable]) -> list[Settled]:
    """What `finish` says, of what `finish_all` says of one batch."""
    (answer,) = answers
    if isinstance(answer, LeaseLost | QueueUnavailable):
        raise answer
    return answer


def lease_lost(batch: Batch) -> LeaseLost:
    """What a late finish is told."""
    return LeaseLost(f"the lease of a batch of lane {batch.lane} was lost (epoch {batch.epoch})")


def check_outcomes(batch: Batch, outcomes: Sequence[Outcome]) -> None:
    """InvalidInput when they are not one outcome for each message of the batch."""
    if len(outcomes) != len(batch.deliveries):
        raise InvalidInput(f"{len(outcomes)} outcomes for a batch of {len(batch.deliveries)} messages")
    if unknown := set(map(type, outcomes)) - _OUTCOMES:
        raise InvalidInput(f"not an outcome: {unknown.pop().__name__}; give Done, Retry, Dead or Release")
