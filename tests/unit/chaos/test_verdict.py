"""Forged ledgers: the judge finds each kind of broken promise, and only where there is one."""

from __future__ import annotations

import pytest

from memos.chaos.ledger import Accepted, Began, Claimed, Ended, Event, Killed, Settled, Stood, Tried
from memos.chaos.verdict import Outcome, Verdict, judge

A, B = 101, 102  # two workers
SUBMITTER = 100
ORDERED, PLAIN, EFFECT, CHILD, HOPELESS = (
    f"chaos_{name}" for name in ("ordered", "plain", "effect", "child", "hopeless")
)


class Story:
    """A ledger written by hand; each call moves time on by a second."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.at = 0.0
        self.epoch = 0
        self.states: dict[str, str] = {}
        self.effects: dict[str, int] = {}

    def tick(self) -> float:
        self.at += 1.0
        return self.at

    def submit(self, *items: str, answered: bool = True) -> None:
        label = items[0].split(":")[0]
        self.events.append(Tried(self.tick(), SUBMITTER, items, label, f"u/{label}"))
        if answered:
            self.events.append(Accepted(self.tick(), SUBMITTER, items))

    def claim(self, pid: int, *items: str) -> int:
        self.epoch += 1
        self.events.append(Claimed(self.tick(), pid, self.epoch, items))
        return self.epoch

    def begin(self, pid: int, *items: str) -> None:
        label = items[0].split(":")[0]
        self.events.append(Began(self.tick(), pid, self.epoch, f"u/{label}", items))

    def end(self, pid: int, *items: str, ok: bool = True, state: str = "completed") -> None:
        self.events.append(Ended(self.tick(), pid, self.epoch, ok))
        self.events.append(Settled(self.tick(), pid, self.epoch, items, (state,) * len(items)))
        self.states.update(dict.fromkeys(items, state))

    def run(self, pid: int, *items: str) -> None:
        """Claimed, handled, settled, without a fault."""
        self.claim(pid, *items)
        self.begin(pid, *items)
        self.end(pid, *items)

    def kill(self, pid: int) -> None:
        self.events.append(Killed(self.tick(), pid, "random"))

    def verdict(self, *, in_memory: bool = False) -> Verdict:
        outcome = Outcome(self.effects, None if in_memory else self.states)
        return judge(sorted(self.events, key=lambda event: event.at), outcome, lease_s=1.0)


def test_a_run_without_faults_is_clean() -> None:
    """Everything done once and in order: nothing is broken, and everything is counted."""
    story = Story()
    story.submit(f"{ORDERED}:1", f"{ORDERED}:2")
    story.submit(f"{EFFECT}:3")
    story.run(A, f"{ORDERED}:1")
    story.run(B, f"{ORDERED}:2")
    story.run(A, f"{EFFECT}:3")
    story.run(B, f"{CHILD}:3")
    story.effects = {f"{EFFECT}:3": 1, f"{CHILD}:3": 1}
    found = story.verdict()
    assert found.broken == {}
    assert (found.submitted, found.done, found.repeats, found.kills) == (3, 4, 0, 0)


def test_a_message_that_is_nowhere_is_lost() -> None:
    """An answered submit without a state in the queue is lost."""
    story = Story()
    story.submit(f"{PLAIN}:1")
    assert story.verdict().broken == {"lost": 1}


def test_a_submit_without_an_answer_promises_nothing() -> None:
    """A call whose process died before it was answered may be there or not."""
    story = Story()
    story.submit(f"{PLAIN}:1", answered=False)
    found = story.verdict()
    assert (found.broken, found.unanswered) == ({}, 1)


def test_done_without_a_run_is_lost() -> None:
    """A queue that says "completed" of a message that no handler finished lies."""
    story = Story()
    story.submit(f"{PLAIN}:1")
    story.states[f"{PLAIN}:1"] = "completed"
    assert story.verdict().broken == {"lost": 1}


def test_a_message_that_still_waits_is_lost() -> None:
    """What has not come to an end when all is drained never will."""
    story = Story()
    story.submit(f"{PLAIN}:1")
    story.states[f"{PLAIN}:1"] = "waiting"
    assert story.verdict().broken == {"lost": 1}


def test_dead_letters_are_right_for_the_hopeless_alone() -> None:
    """A hopeless message has to die; any other one that dies is a fault."""
    story = Story()
    story.submit(f"{HOPELESS}:1")
    story.submit(f"{PLAIN}:2")
    story.states = {f"{HOPELESS}:1": "failed", f"{PLAIN}:2": "failed"}
    found = story.verdict()
    assert (found.dead, found.broken) == (1, {"wrongly dead": 1})


def test_an_effect_that_is_there_twice() -> None:
    """Two rows of one message in the store."""
    story = Story()
    story.submit(f"{EFFECT}:1")
    story.run(A, f"{EFFECT}:1")
    story.run(A, f"{CHILD}:1")
    story.effects = {f"{EFFECT}:1": 2, f"{CHILD}:1": 1}
    assert story.verdict().broken == {"effects applied twice": 1}


@pytest.mark.parametrize(
    ("effects", "broken"),
    [
        ({}, {"effects lost": 2}),  # both are done and neither is there
        ({f"{EFFECT}:1": 1}, {"effects lost": 2}),  # what it chained is missing, and is said to be done
    ],
)
def test_an_effect_that_is_missing(effects: dict[str, int], broken: dict[str, int]) -> None:
    """Done, and nothing in the store."""
    story = Story()
    story.submit(f"{EFFECT}:1")
    story.run(A, f"{EFFECT}:1")
    story.run(A, f"{CHILD}:1")
    story.effects = effects
    assert story.verdict().broken == broken


def test_a_chained_message_that_never_came() -> None:
    """The parent is done, its child is nowhere: lost, and its effect too."""
    story = Story()
    story.submit(f"{EFFECT}:1")
    story.run(A, f"{EFFECT}:1")
    story.effects = {f"{EFFECT}:1": 1}
    assert story.verdict().broken == {"lost": 1, "effects lost": 1}


def test_a_repeat_after_a_kill_is_allowed_and_counted() -> None:
    """The killed process held it: it runs again, and the time to the next claim is measured."""
    story = Story()
    story.submit(f"{PLAIN}:1")
    story.claim(A, f"{PLAIN}:1")
    story.begin(A, f"{PLAIN}:1")
    story.kill(A)
    story.run(B, f"{PLAIN}:1")
    found = story.verdict()
    assert found.broken == {}
    assert (found.repeats, found.in_flight, found.recoveries) == (1, 1, [1.0])


def test_a_repeat_without_a_fault() -> None:
    """Claimed twice while its holder was alive and awake."""
    story = Story()
    story.submit(f"{PLAIN}:1")
    story.claim(A, f"{PLAIN}:1")
    story.run(B, f"{PLAIN}:1")
    assert story.verdict().broken == {"repeats without a fault": 1}


def test_a_repeat_of_what_was_settled() -> None:
    """A kill does not excuse a second run of what was answered for as done."""
    story = Story()
    story.submit(f"{PLAIN}:1")
    story.run(A, f"{PLAIN}:1")
    story.kill(A)
    story.run(B, f"{PLAIN}:1")
    assert story.verdict().broken == {"repeats without a fault": 1}


def test_a_retry_is_no_repeat() -> None:
    """A failed handler runs again by right."""
    story = Story()
    story.submit(f"{PLAIN}:1")
    story.claim(A, f"{PLAIN}:1")
    story.begin(A, f"{PLAIN}:1")
    story.end(A, f"{PLAIN}:1", ok=False, state="retrying")
    story.run(B, f"{PLAIN}:1")
    found = story.verdict()
    assert (found.broken, found.repeats) == ({}, 0)


def test_a_younger_message_that_overtakes() -> None:
    """In an ordered lane the second began before the first was done."""
    story = Story()
    story.submit(f"{ORDERED}:1", f"{ORDERED}:2")
    story.run(A, f"{ORDERED}:2")
    story.run(A, f"{ORDERED}:1")
    assert story.verdict().broken == {"out of order": 1}


def test_a_younger_message_that_does_not_wait_for_a_retry() -> None:
    """The first failed, the second ran before its retry."""
    story = Story()
    story.submit(f"{ORDERED}:1", f"{ORDERED}:2")
    story.claim(A, f"{ORDERED}:1")
    story.begin(A, f"{ORDERED}:1")
    story.end(A, f"{ORDERED}:1", ok=False, state="retrying")
    story.run(A, f"{ORDERED}:2")
    story.run(A, f"{ORDERED}:1")
    assert story.verdict().broken == {"out of order": 1}


def test_an_unordered_label_may_overtake() -> None:
    """Order is promised inside ordered lanes only."""
    story = Story()
    story.submit(f"{PLAIN}:1", f"{PLAIN}:2")
    story.run(A, f"{PLAIN}:2")
    story.run(B, f"{PLAIN}:1")
    assert story.verdict().broken == {}


def test_two_holders_at_once() -> None:
    """Handlers of one ordered lane ran in two processes at the same time, both awake."""
    story = Story()
    story.submit(f"{ORDERED}:1")
    story.claim(A, f"{ORDERED}:1")
    story.begin(A, f"{ORDERED}:1")
    first = story.epoch
    story.run(B, f"{ORDERED}:1")
    story.events.append(Ended(story.tick(), A, first, True))
    assert story.verdict().broken == {"repeats without a fault": 1, "lease overlaps": 1}


def test_a_process_that_stood_still_is_a_zombie() -> None:
    """After a pause longer than its lease another holder is right, and the late end changes nothing."""
    story = Story()
    story.submit(f"{ORDERED}:1")
    story.claim(A, f"{ORDERED}:1")
    story.begin(A, f"{ORDERED}:1")
    first, since = story.epoch, story.tick()
    story.run(B, f"{ORDERED}:1")
    story.events.append(Stood(since, story.tick(), A, "paused"))
    story.events.append(Ended(story.tick(), A, first, True))
    found = story.verdict()
    assert (found.broken, found.repeats) == ({}, 1)


def test_memory_goes_with_its_process_only() -> None:
    """With the queue in memory a kill takes what waited; without a kill the same is lost."""
    for killed in (True, False):
        story = Story()
        story.submit(f"{PLAIN}:1")
        if killed:
            story.kill(SUBMITTER)
        found = story.verdict(in_memory=True)
        assert (found.gone, found.lost) == ((1, 0) if killed else (0, 1))
