"""Delays, idempotency keys, full queues and coroutines: what a caller may ask of a submit."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.mem_scheduler.parts import Parts, assembled, message

from memos.errors import InvalidInput, QueueFull
from memos.mem_scheduler import current
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.local import LocalQueue
from memos.testing import ManualClock

ROOMY_S = 30.0


def contents(ran: list[list]) -> list[str]:
    return [one.content for batch in ran for one in batch]


def recording(parts: Parts, *labels: str) -> list[list]:
    ran: list[list] = []
    parts.scheduler.register_handlers(dict.fromkeys(labels, ran.append))
    return ran


def test_a_delayed_submit_runs_when_it_is_due(still: Parts, clock: ManualClock) -> None:
    """Not before, and without holding up what comes after it."""
    ran = recording(still, "job")
    still.scheduler.submit_messages(message("job", "late"), delay_s=10.0)
    still.scheduler.submit_messages(message("job", "now"))
    still.drain()
    clock.advance(9.9)
    still.drain()
    assert contents(ran) == ["now"]
    clock.advance(0.1)
    still.drain()
    assert contents(ran) == ["now", "late"]


def test_a_handler_may_chain_something_for_later(still: Parts, clock: ManualClock) -> None:
    """A delayed child waits like any delayed message; a repeat of the parent chains it once."""
    ran = recording(still, "child")
    failed: list[object] = []

    def parent(batch: list) -> None:
        still.scheduler.submit_messages(message("child", "later"), delay_s=60.0)
        if not failed:
            failed.append(batch)
            raise RuntimeError("after the submit")

    still.scheduler.register_handlers({"parent": parent})
    still.scheduler.submit_messages(message("parent"))
    still.drain()
    clock.advance(31.0)
    still.drain()
    assert (still.queue.depth().delayed, contents(ran)) == (1, [])
    clock.advance(60.0)
    still.drain()
    assert contents(ran) == ["later"]


def test_a_repeated_idempotency_key_runs_once(still: Parts) -> None:
    """The second call has new messages and other ids, and is answered like the first."""
    ran = recording(still, "job")
    first = still.scheduler.submit_messages([message("job", "pay")], idempotency_key="order 7")
    still.drain()
    assert still.scheduler.submit_messages([message("job", "pay")], idempotency_key="order 7") == first
    still.drain()
    assert contents(ran) == ["pay"]
    with pytest.raises(InvalidInput, match="other messages"):
        still.scheduler.submit_messages([message("job", "pay more")], idempotency_key="order 7")


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay_s": -1.0},
        {"delay_s": float("nan")},
        {"delay_s": float("inf")},
        {"delay_s": "5"},
        {"timeout_s": -1.0},
        {"when_full": "drop"},
        {"idempotency_key": ""},
        {"idempotency_key": "nul\x00"},
    ],
)
def test_options_that_cannot_work_are_refused(still: Parts, wrong: dict) -> None:
    """InvalidInput names the option, and nothing is queued."""
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        still.scheduler.submit_messages(message("job"), **wrong)
    assert still.queue.depth().remaining == 0


@pytest.fixture
def full(tmp_path: Path, clock: ManualClock) -> object:
    queue = LocalQueue(clock=clock, random=random.Random(1), lane_messages_max=1)
    with assembled(tmp_path, clock=clock, queue=queue) as made:
        yield made


def test_a_full_queue_is_waited_for(full: Parts, clock: ManualClock) -> None:
    """`when_full="block"` returns as soon as there is room."""
    ran = recording(full, "job")
    full.scheduler.submit_messages(message("job", "first"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            full.scheduler.submit_messages, message("job", "second"), when_full="block", timeout_s=5.0
        )
        clock.until_waiting(1)
        full.drain()
        clock.advance(0.3)
        assert len(waiting.result(ROOMY_S)) == 1
    full.drain()
    assert contents(ran) == ["first", "second"]


def test_the_wait_for_room_has_an_end(full: Parts, clock: ManualClock) -> None:
    """After `timeout_s` the call is refused whole, as without waiting."""
    full.scheduler.submit_messages(message("job", "first"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            full.scheduler.submit_messages, message("job", "second"), when_full="block", timeout_s=1.0
        )
        while not waiting.done():
            if clock.waiting:
                clock.advance(0.05)
        with pytest.raises(QueueFull):
            waiting.result(ROOMY_S)
    assert full.queue.depth().remaining == 1


def test_a_full_lane_coalesces_where_the_label_does(full: Parts) -> None:
    """The newest is handled and finds what it stands for; nobody's message is dropped."""
    seen: list[tuple[str, list[str]]] = []

    def handler(batch: list) -> None:
        for one in batch:
            seen.append((one.content, [older.content for older in current.absorbed(one)]))

    full.scheduler.register_handlers({"sync": (handler, TaskPolicy(coalesce=True))})
    full.scheduler.submit_messages(message("sync", "1"))
    with pytest.raises(QueueFull):
        full.scheduler.submit_messages(message("sync", "2"))
    full.scheduler.submit_messages(message("sync", "2"), when_full="coalesce")
    full.scheduler.submit_messages(message("sync", "3"), when_full="coalesce")
    full.drain()
    assert seen == [("3", ["1", "2"])]
    assert {row.state for row in full.queue.statuses()} == {"completed"}


def test_a_coroutine_submits_without_holding_up_its_loop(still: Parts) -> None:
    """While the queue takes its time the event loop runs other coroutines; the trace goes along."""
    taken = threading.Event()
    submit = still.queue.submit

    def slow(*args: object, **kwargs: object) -> list[str]:
        assert taken.wait(ROOMY_S), "the loop stood still"
        return submit(*args, **kwargs)  # type: ignore[arg-type]

    still.queue.submit = slow  # type: ignore[method-assign]

    async def program() -> list[str]:
        waiting = asyncio.ensure_future(still.scheduler.asubmit_messages([message("job", "a")]))
        await asyncio.sleep(0)
        assert not waiting.done()
        taken.set()
        return await waiting

    keys = asyncio.run(program())
    assert still.queue.live(keys) == set(keys)


def test_a_coroutine_waits_for_room_beside_others(tmp_path: Path) -> None:
    """The policies are those of `submit_messages`: reject at once, block until there is room."""
    queue = LocalQueue(clock=ManualClock(), random=random.Random(1), lane_messages_max=1)
    with assembled(tmp_path, queue=queue) as parts:
        ran = recording(parts, "job")
        parts.scheduler.submit_messages(message("job", "first"))

        async def program() -> None:
            with pytest.raises(QueueFull):
                await parts.scheduler.asubmit_messages(message("job", "no"))
            with pytest.raises(QueueFull):
                await parts.scheduler.asubmit_messages(
                    message("job", "no"), when_full="block", timeout_s=0.02
                )
            waiting = asyncio.ensure_future(
                parts.scheduler.asubmit_messages(message("job", "second"), when_full="block", timeout_s=30)
            )
            await asyncio.sleep(0)
            parts.drain()
            assert len(await waiting) == 1

        asyncio.run(program())
        parts.drain()
        assert contents(ran) == ["first", "second"]


def test_an_async_handler_chains_from_its_loop(parts: Parts) -> None:
    """`asubmit_messages` inside an `async def` handler chains to the message that it handles."""
    ran = recording(parts, "child")

    async def parent(batch: list) -> None:
        await parts.scheduler.asubmit_messages(message("child", "of " + batch[0].content))

    parts.scheduler.register_handlers({"parent": parent})
    (key,) = parts.scheduler.submit_messages(message("parent", "p"))
    assert parts.scheduler.run_once() == 1
    (child,) = [row.key for row in parts.queue.statuses() if row.label == "child"]
    assert parts.queue.get([child])[0].parent_key == key
    parts.drain()
    assert contents(ran) == ["of p"]
