"""Several processes on one file, some of them killed: nothing is lost, ordered lanes keep their order.

What the workers did is written to a ledger outside the queue (one line a message, appended in one write
before the batch is finished), so that the queue is not its own witness.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conformance.queue_model import message

from memos.clock import SystemClock
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Done
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.queues.sqlite.holder import Holder
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.testing import ManualClock

LABELS = ("query", "answer", "custom")

_PREAMBLE = """
import os, random, signal, sys, threading, time
from pathlib import Path
from memos.clock import SystemClock
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Done
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

path, ledger = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
queue = SqliteQueue(path, clock=SystemClock(), busy_timeout_s=60)
LABELS = ("query", "answer", "custom")

def die_within(seconds):
    def die():
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=die, daemon=True).start()

def work(batch):
    lines = "".join(f"{batch.lane} {os.getpid()} {d.key}\\n" for d in batch.deliveries)
    os.write(ledger, lines.encode())
    time.sleep(0.002)  # a handler takes its time, and may be killed in it
    queue.finish(batch, [Done()] * len(batch.deliveries))
"""

_WORKER = """
if float(sys.argv[3]):
    die_within(float(sys.argv[3]))
while True:
    batches = queue.claim(LABELS, lanes_max=4, timeout_s=0.2)
    if not batches and not queue.depth(lanes=False).remaining and not queue.depth(lanes=False).running:
        break
    for batch in batches:
        work(batch)
queue.close()
"""


def child(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PREAMBLE + textwrap.dedent(program), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def prepared(path: Path) -> SqliteQueue:
    """A queue whose leases are as short as they may be."""
    queue = SqliteQueue(path, clock=SystemClock(), busy_timeout_s=60)
    for label in LABELS:
        policy = queue.policies.get(label)
        queue.policies.put(
            label,
            TaskPolicy(
                ordered=label != "custom",
                concurrency=4 if label == "custom" else 1,
                level=policy.level,
                batch_size_max=8,
                min_idle_ms=1_000,
                max_recoveries=1_000,
            ),
        )
    return queue


def fill(queue: SqliteQueue, count: int, seed: int) -> dict[str, list[str]]:
    """Submit `count` messages in calls of all sizes; the keys by lane in the order of submission."""
    pick = random.Random(seed)
    ones = [message(pick.choice(LABELS), user=f"user-{pick.randrange(20)}") for _ in range(count)]
    at = 0
    while at < count:  # small calls leave lanes of many small packs, large ones packs that are divided
        size = pick.choice([1, 1, 1, 5, 100, 500])
        queue.submit(ones[at : at + size])
        at += size
    lanes: dict[str, list[str]] = defaultdict(list)
    for row in reversed(queue.statuses()):
        lanes[f"{row.user_id}/cube/{'custom' if row.label == 'custom' else 'turn'}"].append(row.key)
    assert sum(map(len, lanes.values())) == count
    return lanes


def read(ledger: Path) -> dict[str, list[str]]:
    """The keys by lane in the order in which they were run."""
    ran: dict[str, list[str]] = defaultdict(list)
    for line in ledger.read_text().splitlines():
        lane, _, key = line.split(" ")
        ran[lane].append(key)
    return ran


def killed_at_random(folder: Path, *, count: int, kills: int, seed: int) -> None:
    path, ledger = folder / "queue.db", folder / "ledger"
    pick = random.Random(seed)
    with prepared(path) as queue:
        lanes = fill(queue, count, seed)
        for _ in range(kills // 2):
            workers = [child(_WORKER, path, ledger, pick.uniform(0.001, 0.1)) for _ in range(2)]
            for worker in workers:
                worker.communicate(timeout=60)
                assert worker.returncode == -signal.SIGKILL
        assert queue.depth(lanes=False).remaining > 0  # they were killed in the middle
        last = child(_WORKER, path, ledger, 0)
        last.communicate(timeout=100)
        assert last.returncode == 0
        ran = read(ledger)
        assert {lane: set(keys) for lane, keys in ran.items()} == {
            lane: set(keys) for lane, keys in lanes.items()
        }
        repeated = 0
        for lane, keys in ran.items():
            repeated += len(keys) - len(set(keys))
            if lane.endswith("/turn"):  # a repeat goes back, nothing ever overtakes
                assert list(dict.fromkeys(keys)) == lanes[lane]
        in_flight = 4 * 8  # lanes of a claim, messages of a batch
        assert repeated <= kills * in_flight
        assert {row.state for row in queue.statuses()} == {TaskState.COMPLETED}
        depth = queue.depth()
        assert (depth.remaining, depth.running, depth.dead, depth.lanes) == (0, 0, 0, ())
        integrity = queue._file._writer.execute("PRAGMA integrity_check").fetchall()
        assert integrity == [("ok",)]


def test_workers_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    """3,000 messages, eight workers killed in the middle: each message ran, repeats stay in flight's bound,
    ordered lanes in order."""
    killed_at_random(tmp_path, count=3_000, kills=8, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_20_000_messages_and_many_kills(tmp_path: Path, seed: int) -> None:
    """The same with 20,000 messages and forty kills."""
    killed_at_random(tmp_path, count=20_000, kills=40, seed=seed)


@pytest.mark.parametrize("seed", range(2))
def test_a_submit_that_was_answered_is_there(tmp_path: Path, seed: int) -> None:
    """A process killed while it submits: all that it was told is queued, and no call is half there."""
    path, ledger = tmp_path / "queue.db", tmp_path / "ledger"
    submitter = child(
        """
        die_within(float(sys.argv[3]))
        one = ScheduleMessageItem(user_id="u", mem_cube_id="c", label="query", content="x")
        for n in range(10_000):
            keys = queue.submit([one.model_copy(update={"item_id": str(n)})] * 3)
            os.write(ledger, f"{n} - {' '.join(keys)}\\n".encode())
        """,
        path,
        ledger,
        0.05 + 0.2 * seed,
    )
    submitter.communicate(timeout=60)
    assert submitter.returncode == -signal.SIGKILL
    told = [line.split(" ")[2:] for line in ledger.read_text().splitlines()]
    with SqliteQueue(path, clock=SystemClock()) as queue:
        there = [row.key for row in reversed(queue.statuses())]
    flat = [key for keys in told for key in keys]
    assert there[: len(flat)] == flat
    assert len(there) - len(flat) in (0, 3)  # committed, but killed before it could be told


def test_processes_share_the_work_in_order(tmp_path: Path) -> None:
    """Three processes drain one file: each has a part, nothing runs twice, ordered lanes keep their order."""
    path, ledger = tmp_path / "queue.db", tmp_path / "ledger"
    with prepared(path) as queue:
        workers = [
            child(
                """
                print("ready", flush=True)
                sys.stdin.readline()
                while batches := queue.claim(LABELS, lanes_max=2, timeout_s=1.0):
                    for batch in batches:
                        time.sleep(0.002)
                        work(batch)
                queue.close()
                """,
                path,
                ledger,
            )
            for _ in range(3)
        ]
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        lanes = fill(queue, 1_500, seed=3)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            worker.communicate(timeout=100)
            assert worker.returncode == 0
        ran = read(ledger)
        assert {lane: sorted(keys) for lane, keys in ran.items()} == {
            lane: sorted(keys) for lane, keys in lanes.items()
        }
        assert all(ran[lane] == keys for lane, keys in lanes.items() if lane.endswith("/turn"))
        by_process = [line.split(" ")[1] for line in ledger.read_text().splitlines()]
        assert set(by_process) == {str(worker.pid) for worker in workers}


def test_a_waiting_process_is_woken_by_another(tmp_path: Path) -> None:
    """A claim that waits in one process gets what another one submits, without looking at the file."""
    path, ledger = tmp_path / "queue.db", tmp_path / "ledger"
    worker = child(
        """
        from memos.mem_scheduler.queues.sqlite import doorbell
        doorbell.LOOK_S = 10_000.0
        print("waiting", flush=True)
        (batch,) = queue.claim(LABELS, lanes_max=1, timeout_s=60.0)
        work(batch)
        os._exit(0)
        """,
        path,
        ledger,
    )
    assert worker.stdout is not None and worker.stdout.readline() == "waiting\n"
    with SqliteQueue(path, clock=SystemClock()) as queue:
        sent = queue.submit([message()])
        worker.communicate(timeout=30)
    assert read(ledger) == {"user/cube/turn": sent}


_HOLDS = """
(batch,) = queue.claim(LABELS, lanes_max=1, timeout_s=60.0)
print("holds", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are judged by /proc")
def test_a_killed_process_loses_its_leases_at_once(tmp_path: Path) -> None:
    """A claim that waits gets what a process held that was killed, long before the lease runs out, as a
    recovery; the lease of a process that lives stays its own."""
    path, ledger = tmp_path / "queue.db", tmp_path / "ledger"
    with SqliteQueue(path, clock=SystemClock()) as queue:
        for label in LABELS:
            policy = queue.policies.get(label)
            queue.policies.put(label, replace(policy, min_idle_ms=3_600_000))
        keys = queue.submit([message(user="a"), message(user="b")])
        workers = [child(_HOLDS, path, ledger) for _ in keys]
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "holds\n"
        assert queue.claim(LABELS, lanes_max=9, timeout_s=0) == []
        workers[0].kill()  # not waited for: it stays in the table of processes
        (batch,) = queue.claim(LABELS, lanes_max=9, timeout_s=60.0)
        assert [one.recoveries for one in batch.deliveries] == [1]
        workers[1].kill()
        workers[1].communicate()
        (other,) = queue.claim(LABELS, lanes_max=9, timeout_s=60.0)
        assert {batch.deliveries[0].key, other.deliveries[0].key} == set(keys)
        queue.finish(batch, [Done()])
        queue.finish(other, [Done()])
        workers[0].communicate()


@pytest.mark.skipif(Holder.me("boot") is None, reason="processes are judged by /proc")
def test_only_a_process_that_can_be_seen_is_judged_gone() -> None:
    """Gone is who is not there or began at another time; never who is of another namespace or start of the
    machine, whatever its number."""
    me = Holder.me("boot")
    assert me is not None and Holder.of(me.text()) == me
    assert not me.sees_end_of(me)
    assert me.sees_end_of(replace(me, started=me.started + 1))  # the number was given again
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert me.sees_end_of(replace(me, pid=gone.pid))
    assert not me.sees_end_of(replace(me, pid=gone.pid, namespace="pid:[1]"))
    assert not me.sees_end_of(replace(me, pid=gone.pid, boot="another"))
    assert Holder.me("") is None  # nobody can be judged by a start that has no name


def test_a_lease_of_a_process_nobody_can_judge_runs_its_time(tmp_path: Path) -> None:
    """What another container holds is left alone until it runs out."""
    clock = ManualClock()
    path = tmp_path / "queue.db"
    with SqliteQueue(path, clock=clock) as queue:
        queue.submit([message()])
        queue.claim(LABELS, lanes_max=1, timeout_s=0)
        me = Holder.me("boot")
        for holder in ("", "" if me is None else replace(me, namespace="pid:[1]", pid=2**22 + 1).text()):
            with queue._file.write(durable=False) as connection:
                connection.execute("UPDATE lease SET holder = ?", (holder,))
            clock.advance(9.0)
            assert queue.claim(LABELS, lanes_max=1, timeout_s=0) == []
        clock.advance(12.0)
        assert len(queue.claim(LABELS, lanes_max=1, timeout_s=0)) == 1
