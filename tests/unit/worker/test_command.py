"""`memos worker` as a process of its own: what it serves, and how it ends."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import tests.services

from memos.cli.worker import worker
from memos.clock import SystemClock
from memos.errors import ConfigError
from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

HERE = Path(__file__).parent
ROOMY_S = 60.0

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv("LEDGER", str(path))
    monkeypatch.setenv("MEMOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return path


@pytest.fixture(params=["sqlite"])
def queue(
    request: pytest.FixtureRequest, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TaskQueue]:
    """The queue of the workers, as another process has it."""
    if request.param == "sqlite":
        with SqliteQueue(
            ledger.with_name("home") / "queue.db", clock=SystemClock(), busy_timeout_s=30
        ) as one:
            yield one
        return
    if not tests.services.redis_is_there():
        pytest.skip("no Redis answers on loopback")
    address = tests.services.redis_address()
    prefix = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    monkeypatch.setenv("MOS_SCHEDULER_USE_REDIS_QUEUE", "true")
    monkeypatch.setenv("MEMSCHEDULER_REDIS_URL", address.url)
    monkeypatch.setenv("MEMSCHEDULER_REDIS_STREAM_KEY_PREFIX", prefix)
    with closing(RedisStreamsQueue(address, clock=SystemClock(), prefix=prefix)) as one:
        yield one
    tests.services.drop_keys(address, prefix)


both = pytest.mark.parametrize("queue", ["sqlite", "redis"], indirect=True)


@pytest.fixture
def start(ledger: Path) -> Iterator[Start]:
    """A worker with these options, after it said what it serves."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*options: str, wait: bool = True) -> subprocess.Popen[bytes]:
        log = ledger.with_name(f"worker-{len(started)}.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "memos.cli", "worker", "--import", "ledger_tasks", *options],
                cwd=HERE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        if wait:
            until(lambda: b"at a time)" in log.read_bytes() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + ROOMY_S
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def lines(ledger: Path, word: str) -> list[list[str]]:
    split = [line.split() for line in ledger.read_text(encoding="utf-8").splitlines()]
    return [words[1:] for words in split if words[0] == word]


def message(label: str, content: str, *, user: str = "u") -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id=user, mem_cube_id="c", label=label, content=content)


def test_the_first_signal_drains(start: Start, queue: TaskQueue, ledger: Path) -> None:
    """What runs is finished, what waits stays for others, and the exit code is 0."""
    worker = start("--labels", "slow", "--concurrency", "1")
    queue.submit([message("slow", "1.5"), message("slow", "0.01", user="v")])
    until(lambda: lines(ledger, "began"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(ROOMY_S) == 0
    assert [words[0] for words in lines(ledger, "ended")] == ["1.5"]
    assert [words[0] for words in lines(ledger, "began")] == ["1.5"]
    depth = queue.depth()
    assert (depth.remaining, depth.running) == (1, 0)
    assert queue.instances() == []


def test_a_worker_tells_prometheus_what_it_ran(start: Start, queue: TaskQueue, ledger: Path) -> None:
    """Its page has its own counts and none of the levels that a server tells; it ends with the worker."""
    worker = start("--metrics-port", "0")
    log = ledger.with_name("worker-0.log")
    until(lambda: b"metrics on " in log.read_bytes())
    page = re.findall(r"http://127[.]0[.]0[.]1:\d+/metrics", log.read_text())[0]
    queue.submit([message("slow", "0"), message("slow", "0", user="v")])
    done = 'memos_tasks_settled_total{label="slow",state="completed"} 2.0'
    until(lambda: done in httpx.get(page, trust_env=False).text)
    text = httpx.get(page, trust_env=False).text
    assert re.search(r'^memos_task_running_seconds_count{label="slow",outcome="ok"} [12][.]0$', text, re.M)
    assert "memos_workers " in text and "memos_queue_messages{" not in text and "memos_memories{" not in text
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(ROOMY_S) == 0


def test_a_metrics_port_that_is_taken_is_named(start: Start, ledger: Path) -> None:
    """The worker does not run without what was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        worker = start("--metrics-port", port, wait=False)
        assert worker.wait(ROOMY_S) == 1
    assert f"127.0.0.1:{port}" in ledger.with_name("worker-0.log").read_text()


@both
def test_the_second_signal_hands_back_at_once(start: Start, queue: TaskQueue, ledger: Path) -> None:
    """A task that would run for long is free for others at once, unblamed; the exit code says so."""
    worker = start()
    (key,) = queue.submit([message("slow", "300")])
    until(lambda: lines(ledger, "began"))
    worker.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    assert worker.wait(ROOMY_S) == 3
    (batch,) = queue.claim({"slow"}, lanes_max=1, timeout_s=0)
    assert [(one.key, one.attempts, one.recoveries) for one in batch.deliveries] == [(key, 0, 0)]


def test_the_grace_has_an_end(start: Start, queue: TaskQueue, ledger: Path) -> None:
    """After `--grace` seconds the rest is handed back without a second signal."""
    worker = start("--grace", "0.2")
    queue.submit([message("slow", "300")])
    until(lambda: lines(ledger, "began"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(ROOMY_S) == 3
    assert len(queue.claim({"slow"}, lanes_max=1, timeout_s=0)) == 1


@both
def test_workers_share_the_work_and_one_that_is_killed_loses_none(
    start: Start, queue: TaskQueue, ledger: Path
) -> None:
    """Two processes run forty tasks; one is killed in the middle; every task is finished, by both hands."""
    first = start("-c", "2", "--name", "early bird")
    second = start("-c", "2")
    until(lambda: len(queue.instances()) == 2)
    assert sum(one.name.startswith("early bird:") for one in queue.instances()) == 1
    policy = replace(queue.policies.get("slow"), min_idle_ms=1_000, batch_size_max=1)
    queue.policies.put("slow", policy)
    queue.submit([message("slow", f"0.0{n}", user=f"u{n}") for n in range(10, 50)])
    until(lambda: len({words[1] for words in lines(ledger, "ended")}) == 2)
    first.send_signal(signal.SIGKILL)
    until(lambda: queue.depth().remaining == 0 and queue.depth().running == 0)
    assert {words[0] for words in lines(ledger, "ended")} == {f"0.0{n}" for n in range(10, 50)}
    assert {str(first.pid), str(second.pid)} == {words[1] for words in lines(ledger, "began")}
    assert queue.depth().dead == 0
    repeated = len(lines(ledger, "began")) - 40
    assert repeated <= 2, "only what was in flight at the kill runs again"


def test_a_worker_serves_the_labels_it_is_told(start: Start, queue: TaskQueue, ledger: Path) -> None:
    """Labels are repeated or separated by commas; work of others stays where it is."""
    start("-l", "quick,threads", "-l", "query")
    queue.submit([message("slow", "0"), message("quick", "a"), message("threads", "x")])
    until(lambda: lines(ledger, "ran") and lines(ledger, "threads"))
    assert [one.labels for one in queue.instances()] == [{"quick", "threads", "query"}]
    assert queue.depth().parked == 1
    assert lines(ledger, "began") == []
    assert lines(ledger, "threads") == [["1", "1", "1"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": ["quick, nobody"]}, "no handler for nobody"),
        ({"modules": ["no_such_module"]}, "no_such_module"),
        ({"modules": ["json"]}, "registered no handler"),
        ({"name": "a\tb"}, "name"),
    ],
)
def test_a_worker_that_cannot_work_says_why(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, options: dict, said: str
) -> None:
    """One error that names what is wrong, before anything is claimed; the process is left as it was."""
    monkeypatch.syspath_prepend(str(HERE))
    for name in ("OMP_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ConfigError, match=said):
        worker(**{"modules": ["ledger_tasks"], **options})
    assert signal.getsignal(signal.SIGTERM) is before
    with SqliteQueue(ledger.with_name("home") / "queue.db", clock=SystemClock()) as queue:
        assert queue.instances() == []


def test_the_queue_in_memory_is_refused(ledger: Path) -> None:
    """A worker of a queue that nobody else sees is an error with exit code 1, not a process that idles."""
    done = subprocess.run(
        [sys.executable, "-m", "memos.cli", "worker"],
        env=os.environ | {"MEMOS_QUEUE__BACKEND": "local"},
        capture_output=True,
        timeout=ROOMY_S,
    )
    assert done.returncode == 1
    assert b"in the memory of one" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_module_may_take_the_workers_own_scheduler(ledger: Path, start: Start, queue: TaskQueue) -> None:
    """The documented import names the scheduler of the worker, and `register(scheduler)` is called."""
    (ledger.parent / "documented_way.py").write_text(
        "from memos.api.routers.server_router import mem_scheduler\n"
        "from ledger_tasks import quick\n"
        "mem_scheduler.register_handlers({'documented': quick})\n"
        "def register(scheduler):\n"
        "    assert scheduler is mem_scheduler\n"
        "    scheduler.register_handlers({'function': quick})\n",
        encoding="utf-8",
    )
    os.environ["PYTHONPATH"] = str(ledger.parent)
    try:
        start("--import", "documented_way", "--labels", "documented,function")
    finally:
        del os.environ["PYTHONPATH"]
    queue.submit([message("documented", "a"), message("function", "b")])
    until(lambda: len(lines(ledger, "ran")) == 2)
    assert sorted(words[0] for words in lines(ledger, "ran")) == ["a", "b"]
