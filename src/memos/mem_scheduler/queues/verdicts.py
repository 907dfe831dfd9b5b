"""What becomes of a message after a run: the retry rules that every backend applies. Pure.

Retry: counted ones spend `max_attempts`; the pause is exponential with full jitter (Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015) unless the outcome names one. In an ordered lane with
strict order the message stays at the head and blocks the lane, for at most `block_s_max` counted from
its first failure there; a last run then decides. Otherwise it steps aside and joins the end when due.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Retry


class Fate(Enum):
    """Where a message goes that is not done."""

    HEAD = "head"  # back to the head of its lane, which it blocks until it is due
    ASIDE = "aside"  # delayed, then the end of its lane
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`attempts` is the new count; `delay_s` the pause before it may run again."""

    fate: Fate
    attempts: int
    delay_s: float
    error: str


def backoff_s(policy: TaskPolicy, attempts: int, *, source: random.Random) -> float:
    """A random pause after the `attempts`-th failure."""
    ceiling = policy.backoff_max_s
    if attempts < 64:  # beyond, 2 ** attempts is above any ceiling
        ceiling = min(ceiling, policy.backoff_base_s * 2.0**attempts)
    return source.uniform(0.0, ceiling)


def judge_retry(
    outcome: Retry, policy: TaskPolicy, *, attempts: int, blocked_s: float | None, source: random.Random
) -> Verdict:
    """The fate of a message whose run asks for another one.

    `attempts`: failed runs before this one. `blocked_s`: for how long it has blocked its lane so far
    (None: it has not).
    """
    failed = attempts + 1 if outcome.counts else attempts
    if failed >= policy.max_attempts and outcome.counts:
        return Verdict(Fate.DEAD, failed, 0.0, outcome.error)
    delay_s = outcome.delay_s if outcome.delay_s is not None else backoff_s(policy, failed, source=source)
    delay_s = max(0.0, delay_s)
    if not policy.ordered or policy.retry_order == "aside":
        return Verdict(Fate.ASIDE, failed, delay_s, outcome.error)
    left_s = policy.block_s_max - (blocked_s or 0.0)
    if blocked_s is not None and left_s <= 0:
        error = f"{outcome.error} (it blocked its lane for {blocked_s:.0f} s; at most {policy.block_s_max:g})"
        return Verdict(Fate.DEAD, failed, 0.0, error)
    return Verdict(Fate.HEAD, failed, min(delay_s, max(left_s, 0.0)), outcome.error)


def judge_lost(policy: TaskPolicy, *, recoveries: int) -> Fate:
    """The fate of a message whose lease was lost `recoveries` times, this time included."""
    return Fate.DEAD if recoveries > policy.max_recoveries else Fate.HEAD
