"""The bounds of a queue, the refusals that name them, and the weights of users. For every backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from memos.errors import ConfigError, InvalidInput, QueueFull
from memos.mem_scheduler.queues.base import Lane
from memos.mem_scheduler.queues.entries import LaneId
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

WEIGHT_MIN = 0.001


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
        for message in messages:
            content = message.content
            if len(content) * 4 > limit and len(content.encode(errors="surrogatepass")) > limit:
                raise InvalidInput(
                    f"content of message {message.item_id!r} has more than {limit} bytes "
                    "(queue.payload_bytes_max): split it"
                )

    def check_room(self, lane_ids: Sequence[LaneId], *, held: int, held_by: Callable[[LaneId], int]) -> None:
        """QueueFull when these messages do not all fit beside the `held` ones, `held_by` lane."""
        if held + len(lane_ids) > self.messages_max:
            raise QueueFull(
                f"the queue holds {held} messages of at most {self.messages_max} (queue.messages_max); "
                f"none of these {len(lane_ids)} was queued, submit them again later"
            )
        for lane_id, number in Counter(lane_ids).items():
            in_lane = held_by(lane_id)
            if in_lane + number > self.lane_messages_max:
                raise QueueFull(
                    f"lane {Lane(*lane_id)} holds {in_lane} messages of at most {self.lane_messages_max} "
                    f"(queue.lane_messages_max); none of these {len(lane_ids)} was queued, "
                    "submit them again later"
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
