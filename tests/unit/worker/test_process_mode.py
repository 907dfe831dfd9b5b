"""`scheduler_startup_mode: process`: the program submits, a worker process runs the handlers."""

from __future__ import annotations

import atexit
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.worker import ledger_tasks

from memos.configs.mem_scheduler import SchedulerConfigFactory
from memos.errors import ConfigError
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.startup import portable, resolved
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import run_until_idle
from memos.worker import spawn

ROOMY_S = 60.0


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv("LEDGER", str(path))
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    return path


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + ROOMY_S
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def lines(ledger: Path, word: str) -> list[list[str]]:
    split = [line.split() for line in ledger.read_text(encoding="utf-8").splitlines()]
    return [words[1:] for words in split if words[0] == word]


def message(label: str, content: str) -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id="u", mem_cube_id="c", label=label, content=content)


def from_settings(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv("MEMOS_SCHEDULER__STARTUP_MODE", "process")
    return build(Settings.load())


def from_yaml(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    file = Path(os.environ["LEDGER"]).with_name("scheduler.yaml")
    file.write_text("backend: general_scheduler\nconfig: {scheduler_startup_mode: process}\n")
    return build(Settings.load(), scheduler=SchedulerConfigFactory.from_yaml_file(file))


def test_the_mode_is_asked_for_in_yaml_too(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`scheduler_startup_mode: process` in a scheduler's configuration is the same mode."""
    with from_yaml(monkeypatch) as runtime:
        runtime.scheduler.register_handlers({"quick": ledger_tasks.quick})
        runtime.scheduler.submit_messages(message("quick", "x"))
        until(lambda: lines(ledger, "ran"))
        assert int(lines(ledger, "ran")[0][1]) != os.getpid()


def test_handlers_run_in_the_other_process(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """User handlers registered before and after the start, and built-ins, run there and only there; its
    effects are seen here; a killed process is replaced and its work done."""
    with from_settings(monkeypatch) as runtime:
        scheduler = runtime.scheduler
        scheduler.register_handlers({"quick": ledger_tasks.quick})
        scheduler.submit_messages([message("quick", "first"), message("query", "what is my name?")])
        run_until_idle(scheduler, ROOMY_S)
        ((_, pid),) = lines(ledger, "ran")
        assert int(pid) != os.getpid()
        assert [one.label for _, one in runtime.store.web_logs(label="addMessage")] == ["addMessage"]

        scheduler.register_handlers({"slow": (ledger_tasks.slow, TaskPolicy(min_idle_ms=1_000))})
        scheduler.submit_messages(message("slow", "1.0"))
        until(lambda: lines(ledger, "began"))
        os.kill(int(pid), signal.SIGKILL)
        until(lambda: lines(ledger, "ended"))
        run_until_idle(scheduler, ROOMY_S)
        assert len({words[1] for words in lines(ledger, "began")}) == 2

        assert scheduler.unregister_handlers(["slow"]) == {"slow": True}
        scheduler.submit_messages([message("slow", "0"), message("quick", "second")])
        until(lambda: len(lines(ledger, "ran")) == 2)
        assert scheduler.stop() is True
        # The one that was killed may be listed for a minute; the one that was stopped took its leave.
        assert {one.pid for one in runtime.queue.instances()} <= {int(pid)}
        assert runtime.queue.depth().remaining == 1


def test_a_stop_lets_the_process_finish(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop` drains the process within the grace, and says when it could not; `start` works again."""
    with from_settings(monkeypatch) as runtime:
        scheduler = runtime.scheduler
        scheduler.register_handlers({"slow": ledger_tasks.slow})
        scheduler.submit_messages(message("slow", "0.5"))
        until(lambda: lines(ledger, "began"))
        assert scheduler.stop(grace_s=30.0) is True
        assert [words[0] for words in lines(ledger, "ended")] == ["0.5"]
        scheduler.start()
        scheduler.submit_messages(message("slow", "300"))
        until(lambda: len(lines(ledger, "began")) == 2)
        assert scheduler.stop(grace_s=0.1) is False
        assert len(runtime.queue.claim({"slow"}, lanes_max=1, timeout_s=0)) == 1


def test_what_cannot_be_handed_over_is_refused(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lambda or a closure is a ConfigError that names the label, and nothing of the call is registered."""
    monkeypatch.setenv("MEMOS_SCHEDULER__STARTUP_MODE", "process")
    with build(Settings.load(), start=False) as runtime:
        with pytest.raises(ConfigError, match="'mine'"):
            runtime.scheduler.register_handlers({"quick": ledger_tasks.quick, "mine": lambda batch: None})
        assert not {"quick", "mine"} & set(runtime.scheduler.handlers)


def test_methods_of_the_scheduler_are_the_other_ones_there() -> None:
    """A documented method that is registered again goes over by its name, with its options."""

    class Other:
        def method(self) -> str:
            return "mine"

    here, there = Other(), Other()
    given = portable({"a": here.method, "b": (here.method, None, 5_000), "c": ledger_tasks.quick}, here)
    found = resolved(given, there)
    assert found["a"].__self__ is there
    assert found["b"][0].__self__ is there
    assert found["b"][1:] == (None, 5_000)
    assert found["c"] is ledger_tasks.quick


def test_the_queue_in_memory_is_refused(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one process holds cannot be run by another: ConfigError at the build."""
    monkeypatch.setenv("MEMOS_QUEUE__BACKEND", "local")
    with pytest.raises(ConfigError, match="startup_mode"):
        from_settings(monkeypatch)


PROGRAM = """
import os
from memos.api.routers.server_router import mem_scheduler
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

def handler(messages):
    open(os.environ["LEDGER"], "a").write(f"ran {messages[0].content} {os.getpid()}\\n")

if __name__ == "__main__":
    mem_scheduler.register_handlers({"mine": handler})
    mem_scheduler.submit_messages(
        [ScheduleMessageItem(user_id="u", mem_cube_id="c", label="mine", content=str(n)) for n in range(5)]
    )
    print(os.getpid())
"""


def test_a_program_without_a_guard_is_not_run_twice(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker process imports the program: what that would submit is refused, and the error says why."""
    monkeypatch.setenv("MEMOS_SCHEDULER__STARTUP_MODE", "process")
    monkeypatch.setenv("MEMOS_SCHEDULER__ENABLED", "false")
    program = ledger.with_name("program.py")
    program.write_text(
        PROGRAM.replace('if __name__ == "__main__":', "if True:") + "    mem_scheduler.start()\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, timeout=ROOMY_S)
    assert done.returncode == 1
    assert b'under `if __name__ == "__main__":`' in done.stderr
    monkeypatch.setenv("MEMOS_SCHEDULER__STARTUP_MODE", "thread")
    with build(Settings.load()) as runtime:
        assert runtime.queue.depth().remaining == 5


def test_a_program_of_one_file_that_never_stops_ends(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers of the program's own file run in the process; at the end all is drained and both are gone."""
    monkeypatch.setenv("MEMOS_SCHEDULER__STARTUP_MODE", "process")
    program = ledger.with_name("program.py")
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, timeout=ROOMY_S)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    ran = lines(ledger, "ran")
    assert sorted(words[0] for words in ran) == [str(n) for n in range(5)]
    (pid,) = {int(words[1]) for words in ran}
    assert pid != int(done.stdout)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptors or memory for a new process today are no reason to leave the work for good."""
    spawned: list[Any] = []
    again = threading.Event()

    def begin(worker: spawn.SpawnedWorker) -> None:
        if len(spawned) == 1 and not again.is_set():
            again.set()
            raise OSError(errno.EMFILE, "too many open files")
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60.0 * len(spawned),))
        process.start()
        spawned.append(process)
        worker._process, worker._pipe = process, multiprocessing.Pipe()[0]

    monkeypatch.setattr(spawn.SpawnedWorker, "_begin", begin)
    monkeypatch.setattr(spawn, "RESTART_S", (0.0,))
    worker = spawn.SpawnedWorker(Settings.load(), SchedulerConfigFactory("general_scheduler"), {})
    until(lambda: len(spawned) == 2)
    assert again.is_set()
    worker._stopping.set()
    spawned[1].kill()
    spawned[1].join()
    atexit.unregister(worker.stop)  # nothing of it is left to drain
