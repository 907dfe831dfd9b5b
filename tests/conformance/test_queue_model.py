"""Any sequence of commands leaves every backend where the reference model says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.conformance.queue_model import BACKENDS, QueueModel, message
from tests.conformance.redis_keys import check_queue

from memos.errors import LeaseLost, QueueFull
from memos.mem_scheduler.orchestrator import BUILT_IN_CLASSES, TaskPolicy
from memos.mem_scheduler.queues.base import Batch, Dead, Done, Finish, Release, Retry, TaskQueue
from memos.memory.store import Followup
from memos.testing import ManualClock

_SHORT = {"max_attempts": 3, "max_recoveries": 1, "min_idle_ms": 10_000, "block_s_max": 15.0}
POLICIES: dict[str, TaskPolicy] = {
    "query": replace(BUILT_IN_CLASSES["turn"], **_SHORT),
    "answer": replace(BUILT_IN_CLASSES["turn"], **{**_SHORT, "min_idle_ms": 5_000}),
    "mem_update": replace(BUILT_IN_CLASSES["memory"], **_SHORT, coalesce=True),
    "pref_add": replace(BUILT_IN_CLASSES["memory"], **_SHORT),
    "free": TaskPolicy(concurrency=2, batch_size_max=3, **_SHORT),
    "aside": TaskPolicy(ordered=True, concurrency=1, retry_order="aside", **_SHORT),
}
LABELS = sorted(POLICIES)

messages = st.builds(
    lambda label, user, cube: message(label, user=user, cube=cube),
    st.sampled_from(LABELS),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["x", "y"]),
)
outcomes = st.sampled_from(
    [
        Done(),
        Done(),
        Retry("again", 0.0),
        Retry("later", 2.0),
        Retry("much later", 40.0),
        Retry("not a failure", 3.0, counts=False),
        Dead("never"),
        Release(),
    ]
)


class QueueMachine(RuleBasedStateMachine):
    """Drives one backend and the model side by side."""

    backend = "local"

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.batches: list[Batch] = []
        self.children = 0
        self.tokens = 0
        self.queue: TaskQueue | None = None

    @initialize(cap=st.sampled_from([0, 0, 1, 2]))
    def open(self, cap: int) -> None:
        bounds = {"messages_max": 30, "lane_messages_max": 9, "user_batches_max": cap}
        self.queue = BACKENDS[self.backend](self.clock, **bounds)
        for label, policy in POLICIES.items():
            self.queue.policies.put(label, policy)
        self.model = QueueModel(POLICIES, **bounds)

    def teardown(self) -> None:
        if self.queue is not None:
            self.queue.close()

    @rule(
        ones=st.lists(messages, min_size=1, max_size=5),
        delay_s=st.sampled_from([0.0, 0.0, 0.0, 4.0]),
        when_full=st.sampled_from(["reject", "coalesce"]),
    )
    def submit(self, ones: list, delay_s: float, when_full: str) -> None:
        if self.model.refuses(ones, coalesce=when_full == "coalesce" and not delay_s):
            with pytest.raises(QueueFull):
                self.queue.submit(ones, delay_s=delay_s, when_full=when_full)
            return
        keys = self.queue.submit(ones, delay_s=delay_s, when_full=when_full)
        assert not set(keys) & set(self.model.messages), "a key came twice"
        self.model.submitted(keys, ones, delay_s)

    @rule(one=messages, pick=st.randoms(use_true_random=False))
    def submit_from_inside(self, one, pick) -> None:
        """Followups are never refused, and one that is live is queued once."""
        known = sorted(self.model.messages)
        if known and pick.random() < 0.5:
            key = pick.choice(known)
            if key not in self.model.live():
                return
        else:
            self.children += 1
            key = f"{'C' * 20}{self.children:06d}"
        followup = Followup(key, "parent", one)
        assert self.queue.submit([], followups=[followup], inside_handler=True) == [key]
        self.model.submitted([key], [one], 0.0)

    @rule(
        labels=st.one_of(
            st.just(frozenset(LABELS)), st.frozensets(st.sampled_from(LABELS), min_size=1, max_size=3)
        ),
        lanes_max=st.integers(1, 6),
        batch_max=st.one_of(st.none(), st.integers(1, 4)),
    )
    def claim(self, labels: frozenset[str], lanes_max: int, batch_max: int | None) -> None:
        batches = self.queue.claim(labels, lanes_max=lanes_max, batch_max=batch_max, timeout_s=0)
        self.model.took(batches, labels, lanes_max)
        assert batch_max is None or all(len(batch.deliveries) <= batch_max for batch in batches)
        self.batches += batches

    @precondition(lambda self: self.batches)
    @rule(chosen=st.data())
    def finish(self, chosen) -> None:
        batch = chosen.draw(st.sampled_from(self.batches))
        size = len(batch.deliveries)
        results = chosen.draw(st.lists(outcomes, min_size=size, max_size=size))
        if not self.model.holds(batch):
            with pytest.raises(LeaseLost):
                self.queue.finish(batch, results)
            self.batches.remove(batch)
            return
        settled = self.queue.finish(batch, results)
        assert [one.key for one in settled] == [delivery.key for delivery in batch.deliveries]
        assert [one.state for one in settled] == self.model.finished(batch, results)

    @precondition(lambda self: len(self.batches) > 1)
    @rule(chosen=st.data())
    def finish_several(self, chosen) -> None:
        """In one call, each as if it were alone and they came one after the other."""
        batches = chosen.draw(
            st.lists(st.sampled_from(self.batches), min_size=2, max_size=4, unique_by=lambda one: one.epoch)
        )
        results = [
            chosen.draw(st.lists(outcomes, min_size=len(one.deliveries), max_size=len(one.deliveries)))
            for one in batches
        ]
        answers = self.queue.finish_all(
            [Finish(batch, own) for batch, own in zip(batches, results, strict=True)]
        )
        for batch, own, answer in zip(batches, results, answers, strict=True):
            if not self.model.holds(batch):
                assert isinstance(answer, LeaseLost)
                self.batches.remove(batch)
                continue
            assert [one.key for one in answer] == [delivery.key for delivery in batch.deliveries]
            assert [one.state for one in answer] == self.model.finished(batch, own)

    @precondition(lambda self: self.batches)
    @rule()
    def renew(self) -> None:
        lost = self.queue.renew(self.batches)
        assert lost == [batch for batch in self.batches if not self.model.holds(batch)]
        for batch in self.batches:
            if batch not in lost:
                self.model.renewed(batch)

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds

    @precondition(lambda self: self.model.messages)
    @rule(pick=st.data())
    def cancel(self, pick) -> None:
        key = pick.draw(st.sampled_from(sorted(self.model.messages)))
        taken = self.queue.cancel([key])
        assert (taken == [key]) == self.model.cancels(key)
        assert taken in ([], [key])

    @precondition(lambda self: self.model.letters)
    @rule(pick=st.data(), purge=st.booleans())
    def dead_letters(self, pick, purge: bool) -> None:
        key = pick.draw(st.sampled_from(self.model.letters))
        if purge:
            assert self.queue.dead.purge([key]) == 1
            self.model.purged([key])
        else:
            assert self.queue.dead.retry([key]) == 1
            self.model.retried_letters([key])

    @rule(ones=st.lists(messages, min_size=1, max_size=3))
    def submit_that_lost_its_reply(self, ones: list) -> None:
        """The same token once more answers with the same keys and queues nothing, full or not."""
        if self.model.refuses(ones):
            return
        self.tokens += 1
        keys = self.queue.submit(ones, token=f"token-{self.tokens}")
        self.model.submitted(keys, ones, 0.0)
        assert self.queue.submit(ones, token=f"token-{self.tokens}") == keys

    @precondition(lambda self: self.model.letters)
    @rule(pick=st.data())
    def edit_a_dead_letter(self, pick) -> None:
        """The new content is shown and changes nothing else."""
        key = pick.draw(st.sampled_from(self.model.letters))
        assert self.queue.dead.edit(key, "mended").message.content == "mended"
        assert self.queue.dead.show(key).message.content == "mended"

    @precondition(lambda self: self.model.messages)
    @rule()
    def look_up(self) -> None:
        """`get` gives what is live and not dead, each once; what a dead letter would run for is dead with it."""
        waiting = {
            key
            for key in self.model.live()
            if self.model._root(self.model.messages[key]).key not in self.model.letters
        }
        assert {one.key for one in self.queue.get(sorted(self.model.messages))} == waiting

    @precondition(lambda self: len(self.model.messages) > 12)
    @rule()
    def clear(self) -> None:
        assert self.queue.clear() == self.model.cleared()

    @invariant()
    def keys_agree(self) -> None:
        if self.queue is not None:
            check_queue(self.queue)

    @invariant()
    def agrees(self) -> None:
        self.model.check_depth(self.queue.depth())
        self.model.check_leases(self.queue.leases())
        assert self.queue.live(self.model.messages) == self.model.live()
        assert {row.key: row.state for row in self.queue.statuses()} == {
            key: self.model.state(key) for key in self.model.messages
        }
        letters = self.queue.dead.list()
        assert sorted(letter.key for letter in letters) == sorted(self.model.letters)
        assert [letter.died_at for letter in letters] == sorted(
            (letter.died_at for letter in letters), reverse=True
        )


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_any_sequence_of_commands_agrees_with_the_model(backend: str) -> None:
    """After every command each message is in exactly the one place that the model names."""
    machine = type("Machine", (QueueMachine,), {"backend": backend})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15
            if backend == "redis-shards"
            else 60,  # three shards are recounted after each step
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_long_sequences_agree_with_the_model(backend: str) -> None:
    """The same over many more and longer sequences, seeded anew each time."""
    machine = type("LongMachine", (QueueMachine,), {"backend": backend})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=1_500,
            stateful_step_count=120,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
