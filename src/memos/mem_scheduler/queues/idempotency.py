"""Explicit idempotency keys: their scope, what they were used for, and the bound on them. Pure.

A key belongs to one user and cube. A repeat within its time is given the first call's answer; the same
key with other messages is a mistake of the caller and said so. What tells calls apart is the label, the
content and the business task of each message: ids and times are made anew for each call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from memos.errors import InvalidInput, QueueFull
from memos.mem_scheduler.queues.base import Lane
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem, check_text

KEY_CHARS_MAX = 512


@dataclass(frozen=True, slots=True)
class ScopedKey:
    """`scope` is user, cube and key, percent-encoded between slashes; `used_for` a digest."""

    scope: str
    used_for: str

    @classmethod
    def of(cls, key: str, messages: Sequence[ScheduleMessageItem]) -> ScopedKey:
        """Raises InvalidInput: an empty or too long key, no message, or messages of several cubes."""
        check_text("idempotency_key", key)
        if len(key) > KEY_CHARS_MAX:
            raise InvalidInput(f"idempotency_key has {len(key)} characters; at most {KEY_CHARS_MAX}")
        owners = {(message.user_id, message.mem_cube_id) for message in messages}
        if len(owners) != 1:
            raise InvalidInput(
                f"one idempotency_key is for the messages of one user and cube, not of {len(owners)}; "
                "submit them one cube at a time"
            )
        ((user_id, mem_cube_id),) = owners
        told = [(message.label, message.content, message.task_id) for message in messages]
        digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()
        return cls(str(Lane(user_id, mem_cube_id, key)), digest)

    def check(self, used_for: str) -> None:
        """InvalidInput when the key was used for other messages."""
        if used_for != self.used_for:
            raise InvalidInput(
                f"idempotency key {self.scope} was used for other messages; give each call its own, "
                "or repeat it with the same labels, contents and task"
            )


def refuse_more_keys(keys_max: int) -> QueueFull:
    """What is raised when that many keys are within their time."""
    return QueueFull(
        f"{keys_max} idempotency keys are remembered already (queue.idempotency_keys_max); "
        "raise it, shorten queue.idempotency_ttl_s, or submit without a key"
    )
