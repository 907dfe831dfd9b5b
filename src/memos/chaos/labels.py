"""The labels that a chaos run submits, and what each of them has to come to."""

from __future__ import annotations

from memos.mem_scheduler.orchestrator import TaskPolicy

ORDERED = "chaos_ordered"  # an ordered lane; now and then the handler fails and is retried in its place
PLAIN = "chaos_plain"  # a user's function: may run again after a kill
EFFECT = "chaos_effect"  # a built-in effect: an item, and a chained message, in one transaction with the mark
CHILD = "chaos_child"  # what EFFECT chains; the same once more
RELAY = "chaos_relay"  # a user's function that submits another message
RELAYED = "chaos_relayed"
FLAKY = "chaos_flaky"  # fails every other time
HOPELESS = "chaos_hopeless"  # fails always: a dead letter
POISON = "chaos_poison"  # kills its process always: a dead letter

# Out of the sum; what chains is not submitted.
SUBMITTED = {ORDERED: 30, PLAIN: 25, EFFECT: 25, RELAY: 8, FLAKY: 8, HOPELESS: 2, POISON: 1}
CHAINS = {EFFECT: CHILD, RELAY: RELAYED}
WITH_EFFECT = frozenset({EFFECT, CHILD})
TO_DIE = frozenset({HOPELESS, POISON})
_MANY = 1_000_000


def policies(lease_s: float) -> dict[str, TaskPolicy]:
    """Budgets so large that only what has to die dies: the faults come far more often than in life."""
    lease_ms = int(lease_s * 1_000)

    def policy(*, ordered: bool = False, attempts: int = _MANY, recoveries: int = _MANY) -> TaskPolicy:
        return TaskPolicy(
            ordered=ordered,
            concurrency=1 if ordered else 4,
            batch_size_max=16,
            max_attempts=attempts,
            max_recoveries=recoveries,
            min_idle_ms=lease_ms,
            backoff_base_s=0.05,
            backoff_max_s=0.5,
            block_s_max=86_400.0,
        )

    chosen = {label: policy() for label in (PLAIN, EFFECT, CHILD, RELAY, RELAYED, FLAKY)}
    chosen[ORDERED] = policy(ordered=True)
    chosen[HOPELESS] = policy(attempts=3)
    chosen[POISON] = policy(recoveries=2)
    return chosen
