"""The pure rules of a queue: batch sizes, retries, timers, policies, served labels, percentiles."""

from __future__ import annotations

import random

import pytest

from memos.mem_scheduler.orchestrator import REGISTERED_DEFAULT, TaskPolicy
from memos.mem_scheduler.queues.adaptive import BatchSizes, next_size
from memos.mem_scheduler.queues.base import Retry
from memos.mem_scheduler.queues.label_times import percentile
from memos.mem_scheduler.queues.policies import MemoryPolicyTable
from memos.mem_scheduler.queues.served import SERVED_S, ServedLabels
from memos.mem_scheduler.queues.timers import Timers
from memos.mem_scheduler.queues.verdicts import Fate, backoff_s, judge_lost, judge_retry

STRICT = TaskPolicy(ordered=True, concurrency=1, max_attempts=3, block_s_max=60.0)


@pytest.mark.parametrize(
    ("size", "taken", "took_s", "after"),
    [
        (1, 1, 0.0, 2),
        (128, 128, 0.049, 256),
        (256, 256, 0.01, 256),
        (8, 3, 0.01, 8),  # it was not full: nothing is learnt about eight
        (64, 64, 0.05, 32),
        (64, 64, 0.5, 6),
        (256, 256, 60.0, 1),
        (1, 1, 60.0, 1),
    ],
)
def test_batch_size_rule(size: int, taken: int, took_s: float, after: int) -> None:
    """Double when a full batch is fast, come down to what fits when it is slow."""
    assert next_size(size, taken, took_s) == after


def test_batch_sizes_are_kept_by_label() -> None:
    """One slow label does not slow another; a lost lease begins again at one."""
    sizes = BatchSizes()
    sizes.record(["fast"], 1, 0.0)
    sizes.record(["fast", "slow"], 2, 0.0)
    assert (sizes.of("fast"), sizes.of("slow"), sizes.of("new")) == (4, 2, 1)
    sizes.reset(["fast"])
    assert sizes.of("fast") == 1


def judge(outcome: Retry, policy: TaskPolicy, *, attempts: int = 0, blocked_s: float | None = None):
    return judge_retry(outcome, policy, attempts=attempts, blocked_s=blocked_s, source=random.Random(1))


def test_the_last_attempt_is_dead() -> None:
    """max_attempts counts runs, the first included; an uncounted retry spends none."""
    assert judge(Retry("x"), STRICT, attempts=1).fate is Fate.HEAD
    assert judge(Retry("x"), STRICT, attempts=2).fate is Fate.DEAD
    assert judge(Retry("x", counts=False), STRICT, attempts=2).fate is Fate.HEAD


def test_where_a_retry_waits() -> None:
    """Strict order blocks the head for what is left of block_s_max; everything else steps aside."""
    assert judge(Retry("x", 100.0), STRICT).delay_s == 60.0
    assert judge(Retry("x", 100.0), STRICT, blocked_s=50.0).delay_s == 10.0
    assert judge(Retry("x", 0.0), STRICT, blocked_s=60.0).fate is Fate.DEAD
    aside = judge(Retry("x", 100.0), TaskPolicy(ordered=True, retry_order="aside"))
    assert (aside.fate, aside.delay_s) == (Fate.ASIDE, 100.0)
    assert judge(Retry("x", -1.0), TaskPolicy()).delay_s == 0.0


def test_backoff_grows_with_full_jitter_up_to_its_ceiling() -> None:
    """uniform(0, min(max, base * 2^attempts)), also for absurd numbers of attempts."""
    policy = TaskPolicy(backoff_base_s=0.5, backoff_max_s=30.0)
    source = random.Random(3)
    for attempts, ceiling in ((1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (5_000, 30.0)):
        waits = [backoff_s(policy, attempts, source=source) for _ in range(500)]
        assert 0.0 <= min(waits) < ceiling * 0.05
        assert ceiling * 0.95 < max(waits) <= ceiling


def test_lost_leases_have_a_budget_of_their_own() -> None:
    """A message survives max_recoveries lost leases, not one more."""
    policy = TaskPolicy(max_recoveries=2)
    assert [judge_lost(policy, recoveries=n) for n in (1, 2, 3)] == [Fate.HEAD, Fate.HEAD, Fate.DEAD]


def test_timers_come_up_in_order_and_forget_what_no_longer_applies() -> None:
    """A subject whose time was changed comes up at the new time only."""
    due: dict[str, float] = {}
    timers: Timers[str] = Timers(lambda subject, at: due.get(subject) == at)

    def push(at: float, subject: str) -> None:
        due[subject] = at
        timers.push(at, subject)

    push(5.0, "a")
    push(3.0, "b")
    push(1.0, "a")
    assert timers.next_due() == 1.0
    assert timers.pop_due(0.5) is None
    assert timers.pop_due(4.0) == "a"
    del due["a"]
    assert timers.pop_due(9.0) == "b"
    del due["b"]
    assert timers.pop_due(9.0) is None
    assert timers.next_due() is None


def test_timers_are_bounded_by_what_still_applies() -> None:
    """Times that are taken back for ever do not pile up."""
    timers: Timers[int] = Timers(lambda subject, at: subject == 0)
    timers.push(1.0, 0)
    for number in range(1, 10_000):
        timers.push(1e9, number)
    assert len(timers) <= 64
    assert timers.next_due() == 1.0
    timers.clear()
    assert len(timers) == 0


def test_policies_tell_who_listens() -> None:
    """A write raises the version and is told; reading an unknown label writes nothing."""
    told: list[str] = []
    table = MemoryPolicyTable(told.append)
    assert table.get("anything") is REGISTERED_DEFAULT
    assert (table.version, table.labels(), told) == (0, [], [])
    table.put("anything", TaskPolicy(concurrency=2))
    assert table.get("anything").concurrency == 2
    assert (table.version, table.labels(), told) == (1, ["anything"], ["anything"])


def test_labels_are_served_while_claimed_or_leased() -> None:
    """A claim speaks for its labels for a minute, a lease as long as it is held."""
    served = ServedLabels()
    both = frozenset({"a", "b"})
    served.claimed(both, 0.0)
    assert served.now_served(SERVED_S) == {"a", "b"}
    assert served.now_served(SERVED_S + 1) == set()
    served.leased(both)
    served.leased(both)
    served.ended(both)
    assert served.now_served(10_000.0) == {"a", "b"}
    served.ended(both)
    assert served.now_served(10_000.0) == set()


def test_served_labels_are_bounded() -> None:
    """Claims with ever new sets of labels do not pile up; the latest are remembered."""
    served = ServedLabels()
    for number in range(2_000):
        served.claimed(frozenset({str(number)}), float(number) / 1_000)
    assert len(served.now_served(2.0)) == 256
    assert "1999" in served.now_served(2.0)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.95, 3.0), ([3.0, 1.0, 2.0], 0.5, 2.0), (list(range(100)), 0.95, 95)],
)
def test_percentiles(values: list[float], share: float, expected: float | None) -> None:
    """Nearest rank; None of nothing."""
    assert percentile(values, share) == expected


def test_messages_that_are_cheaper_together_come_together() -> None:
    """However slow they are, `mem_update` comes in batches; after a lost lease one by one, until one ran."""
    sizes = BatchSizes()
    sizes.record(["mem_update", "job"], 8, 20.0)
    assert (sizes.of("mem_update"), sizes.of("job")) == (8, 1)
    sizes.reset(["mem_update"])
    assert sizes.of("mem_update") == 1
    sizes.record(["mem_update"], 1, 20.0)
    assert sizes.of("mem_update") == 8
