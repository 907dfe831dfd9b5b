"""`memos status`, `memos tasks` and `memos dead` on every queue that outlives a process."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import tests.services

from memos.cli.status import frame, span
from memos.mem_scheduler.queues.base import Lane, LaneDepth, QueueDepth
from memos.mem_scheduler.queues.picture import LabelSums, Picture
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import Runtime, build
from memos.settings import Settings

from .test_items import memos  # noqa: F401  (a fixture)

QUEUES = ["sqlite", *(["redis"] if tests.services.redis_is_there() else [])]


@pytest.fixture(params=QUEUES)
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A program on the queue of the kind, not started; the commands open the same one."""
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    prefix = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    if request.param == "redis":
        monkeypatch.setenv("MOS_SCHEDULER_USE_REDIS_QUEUE", "true")
        monkeypatch.setenv("MEMSCHEDULER_REDIS_URL", tests.services.redis_address().url)
        monkeypatch.setenv("MEMSCHEDULER_REDIS_STREAM_KEY_PREFIX", prefix)
    with build(Settings.load(), start=False) as made:
        yield made
    if request.param == "redis":
        tests.services.drop_keys(tests.services.redis_address(), prefix)


def message(label: str, content: str = "x", **fields: Any) -> ScheduleMessageItem:
    return ScheduleMessageItem(
        **{"user_id": "ann", "mem_cube_id": "c", **fields}, label=label, content=content
    )


def test_status_shows_who_claims_what_is_held_and_the_lag(runtime: Runtime, memos: Any) -> None:  # noqa: F811
    """Instances, lanes, leases, lag and times of every process, as tables and as JSON."""
    runtime.scheduler.register_handlers({"quick": lambda batch: None})
    runtime.scheduler.submit_messages([message("quick"), message("nobody[/b]", user_id="a:b")])
    assert runtime.scheduler.run_once() == 1
    runtime.queue.submit([message("slow"), message("slow")])
    (held,) = runtime.queue.claim({"slow"}, lanes_max=1, batch_max=1, timeout_s=0)
    told = json.loads(memos("status", "--json").out)
    assert (told["running"], told["parked"], told["dead"]) == (1, 1, 0)
    (instance,) = told["instances"]
    assert (instance["pid"], instance["labels"]) == (os.getpid(), ["slow"])
    (lease,) = told["leases"]
    assert (lease["epoch"], lease["instance"], lease["labels"]) == (
        held.epoch,
        instance["name"],
        {"slow": 1},
    )
    assert 25 < lease["expires_in_s"] <= 30
    by_label = {one["label"]: one for one in told["lanes"]}
    assert by_label["slow"]["queued"] == 1 and by_label["slow"]["running"] == 1
    assert by_label["nobody[/b]"]["user_id"] == "a:b" and by_label["nobody[/b]"]["lag_s"] >= 0
    assert told["labels"]["quick"]["running_p95_s"] >= told["labels"]["quick"]["running_p50_s"] >= 0
    shown = memos("status").out
    assert instance["name"] in shown and "nobody[/b]" in shown and "expires in" in shown


def test_status_can_be_watched(runtime: Runtime, memos: Any) -> None:  # noqa: F811
    """Look after look, until told to end; each is a whole picture."""
    runtime.queue.submit([message("job")])
    looks = memos("status", "--watch", "--interval", "0.1", "--looks", "3", "--json").out.splitlines()
    assert [json.loads(line)["parked"] for line in looks] == [1, 1, 1]
    live = memos("status", "-w", "--interval", "0.1", "--looks", "2")
    assert live.code == 0 and "change/s" in live.out and "+0.0" in live.out


def test_tasks_are_listed_and_cancelled(runtime: Runtime, memos: Any) -> None:  # noqa: F811
    """By key, and all of a business task; what runs is asked to stop."""
    keys = runtime.queue.submit([message("job", task_id="t"), message("job"), message("other", task_id="t")])
    rows = [json.loads(line) for line in memos("tasks", "list", "--task", "t", "--json").out.splitlines()]
    assert {row["key"] for row in rows} == {keys[0], keys[2]}
    (batch,) = runtime.queue.claim({"other"}, lanes_max=1, timeout_s=0)
    assert "1 taken out, 1 asked to stop" in memos("tasks", "cancel", "--task", "t", "--user", "ann").out
    assert runtime.queue.is_cancelled(batch.deliveries[0].key)
    assert "1 taken out, 0 asked" in memos("tasks", "cancel", keys[1]).out
    assert memos("tasks", "list").out.count("cancelled") == 2
    assert memos("tasks", "cancel").code == 2
    assert memos("tasks", "cancel", keys[0], "--user", "ann").code == 2


def test_dead_letters_are_mended_on_every_backend(runtime: Runtime, memos: Any) -> None:  # noqa: F811
    """List, show, edit, retry and purge from another process, effective for the one that runs."""
    from memos.errors import Discard

    ran: list[str] = []

    def handler(batch: list) -> None:
        ran.extend(one.content for one in batch)
        if batch[0].content.startswith("bad"):
            raise Discard(f"cannot do {batch[0].content}")

    runtime.scheduler.register_handlers({"errand": handler})
    runtime.scheduler.submit_messages([message("errand", "bad 1"), message("errand", "bad 2")])
    while runtime.scheduler.run_once():
        pass
    letters = [json.loads(line) for line in memos("dead", "list", "--json").out.splitlines()]
    assert sorted(one["content"] for one in letters) == ["bad 1", "bad 2"]
    first, second = (one["key"] for one in letters)
    assert "cannot do" in json.loads(memos("dead", "show", first).out)["error"]
    assert memos("dead", "edit", first, "good").code == 0
    for command in ("retry", "purge"):  # a key that is not there changes nothing and is told
        mistaken = memos("dead", command, first, "no-such-key")
        assert mistaken.code == 1 and "no-such-key" in mistaken.err
    assert "1 queued again" in memos("dead", "retry", first).out
    assert "1 dropped" in memos("dead", "purge", second).out
    while runtime.scheduler.run_once():
        pass
    assert ran[-1] == "good"
    assert "0 dead letters" in memos("dead", "list").out


def test_the_documented_status_is_true(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    """Totals on every backend; on Redis each stream by `user:cube:label`; p50 and p95 are printed."""
    scheduler = runtime.scheduler
    scheduler.register_handlers({"quick": lambda batch: None})
    scheduler.submit_messages(message("quick"))
    scheduler.run_once()
    scheduler.submit_messages([message("query"), message("answer"), message("add", user_id="a:b")])
    scheduler.submit_messages(message("late"), delay_s=60)
    runtime.queue.claim({"add"}, lanes_max=1, timeout_s=0)
    status = scheduler.get_tasks_status()
    totals = {name: status.pop(name) for name in ("running", "remaining", "pending")}
    assert totals == {"running": 1, "remaining": 3, "pending": 3}
    if scheduler.use_redis_queue:
        waiting = {"running": 0, "remaining": 1, "pending": 1}
        assert status == {
            "ann:c:query": waiting,
            "ann:c:answer": waiting,
            "ann:c:late": waiting,
            "a%3Ab:c:add": {"running": 1, "remaining": 0, "pending": 0},
        }
    else:
        assert status == {}
    times = scheduler.get_label_times()
    assert set(times) == {"quick"}
    assert set(times["quick"]) == {"waiting_p50", "waiting_p95", "running_p50", "running_p95"}
    scheduler.print_tasks_status()
    printed = capsys.readouterr().out
    assert "Task Queue Status | running=1, remaining=3" in printed
    assert ("[ann:c]" in printed) is scheduler.use_redis_queue
    assert "Waiting p50" in printed and "quick" in printed
    runtime.queue.clear()
    scheduler.print_tasks_status()
    assert ("[Local Queue Totals]" in capsys.readouterr().out) is not scheduler.use_redis_queue


def test_the_picture_adds_up_over_lanes() -> None:
    """Counts of a label are summed, its lag is the greatest; the change is a rate between two looks."""

    def lane(user: str, queued: int, lag: float) -> LaneDepth:
        return LaneDepth(Lane(user, "c", "x"), {"x": queued}, {"x": 1}, {}, {"x": 2}, {"x": lag})

    def picture(at: float, *lanes: LaneDepth) -> Picture:
        return Picture(at, QueueDepth(0, 0, 0, 0, 0, 0, lanes), (), ())

    before, now = picture(10.0, lane("a", 2, 1.0)), picture(12.0, lane("a", 3, 9.0), lane("b", 4, 5.0))
    assert now.by_label() == {"x": LabelSums(7, 2, 0, 4, 9.0)}
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as shown:
        console.print(frame(now, before))
    assert "+3.0" in shown.get()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (45, "45 s"), (-3.2, "-3.2 s"), (600, "10 min"), (9_000, "2.5 h")],
)
def test_spans_are_short(seconds: float, text: str) -> None:
    """A length of time in the unit that fits it."""
    assert span(seconds) == text
