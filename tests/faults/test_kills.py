"""Processes that are really killed and stopped, at the points where that is hardest to make good."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from tests.faults.processes import Site, until

from memos.chaos import labels
from memos.chaos.ledger import Began, Claimed, Ended, Refused, Stood, now
from memos.chaos.nursery import alive
from memos.chaos.witness import COMMIT_FINISH, FINISH_REPLY, IN_HANDLER, SUBMIT_CHAIN, SUBMIT_REPLY

KINDS = (labels.ORDERED, labels.PLAIN, labels.EFFECT, labels.RELAY)


@pytest.mark.parametrize("point", [COMMIT_FINISH, FINISH_REPLY, SUBMIT_CHAIN, IN_HANDLER])
def test_a_worker_killed_at_an_exact_point(site: Site, point: str) -> None:
    """Whichever step its process dies at, nothing is lost, no effect is doubled, lanes keep their order,
    and only what was in flight runs again."""
    site.submit(60, *KINDS)
    first = site.worker(die_at=point, die_nth=3)
    until(lambda: not alive(first))
    site.worker()
    site.drain()
    found = site.verdict()
    assert (found.broken, found.examples) == ({}, [])
    assert found.kills_by_place == {point: 1}
    assert found.submitted >= 60
    assert found.repeats <= found.in_flight


def test_a_submitter_killed_before_its_answer(site: Site) -> None:
    """What was answered is there; the call that was not answered is there whole or not at all."""
    submitter = site.submitter(0, *KINDS, die_at=SUBMIT_REPLY, die_nth=5)
    until(lambda: not alive(submitter))
    site.worker()
    site.drain()
    found = site.verdict()
    assert (found.broken, found.examples) == ({}, [])
    assert found.submitted > 0 and found.unanswered > 0


def test_a_stopped_worker_is_a_zombie(site: Site) -> None:
    """SIGSTOP for longer than the lease: another worker runs what it held, and when it comes back its finish
    is refused and nothing takes effect twice."""
    site.submit(24, labels.EFFECT, labels.ORDERED)
    stopped = site.worker(handler_s=0.3)
    until(lambda: any(isinstance(one, Began) for one in site.events()))
    since = now()
    os.kill(stopped, signal.SIGSTOP)
    begun = {(one.pid, one.run): one.items for one in site.events() if isinstance(one, Began)}
    ended = {(one.pid, one.run) for one in site.events() if isinstance(one, Ended)}
    held = {item for run, items in begun.items() if run not in ended for item in items}
    assert held
    site.worker()
    until(
        lambda: (
            held <= {i for e in site.events() if isinstance(e, Claimed) and e.pid != stopped for i in e.items}
        )
    )
    os.kill(stopped, signal.SIGCONT)
    until(lambda: any(isinstance(one, Refused) and one.pid == stopped for one in site.events()))
    site.drain()
    site.write(Stood(since, now(), stopped, "paused"))
    found = site.verdict()
    assert (found.broken, found.examples) == ({}, [])
    assert found.effects > 0


def _ran(site: Site, calls: int, submitter: int) -> Callable[[], bool]:
    """Whether so many handlers have returned, or everything is sent."""
    return lambda: sum(isinstance(one, Ended) for one in site.events()) > calls or not alive(submitter)


def many_effects(site: Site, count: int, kills: int) -> None:
    """`count` messages with built-in effects; workers are killed while they run."""
    submitter = site.submitter(count, labels.EFFECT)
    worker = site.worker()
    for number in range(kills):
        # Handlers get at most 16 messages at a time, and mostly fewer.
        until(_ran(site, count * (number + 1) // (8 * (kills + 2)), submitter))
        site.kill(worker)
        worker = site.worker()
    until(lambda: not alive(submitter))
    site.drain()
    found = site.verdict()
    assert (found.broken, found.examples) == ({}, [])
    assert (found.submitted >= count, found.kills) == (True, kills)
    assert found.effects == 2 * found.submitted  # each, and what it chained


def test_effects_with_kills_in_the_middle(site: Site) -> None:
    """300 messages with effects and chained effects, three workers killed: none lost, none twice."""
    many_effects(site, 300, 3)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_20_000_messages_with_kills_in_the_middle(site: Site) -> None:
    """The same with 20,000 messages."""
    many_effects(site, 20_000, 10)
