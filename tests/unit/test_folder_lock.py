"""Processes that start over one new folder at the same moment all start."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memos.clock import SystemClock
from memos.errors import QueueUnavailable, StoreUnavailable
from memos.folder_lock import opening_alone
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.memory.sqlite import SqliteStore

ROUNDS = 40  # without the lock one in ten goes wrong
TOGETHER = 3


def open_store(folder: Path, **options: float) -> Any:
    return SqliteStore(folder / "memory.db", clock=SystemClock(), **options)


def open_queue(folder: Path, **options: float) -> Any:
    return SqliteQueue(folder / "queue.db", clock=SystemClock(), **options)


def child(opened: Callable[[Path], Any], folder: Path, start: Any, told: Any) -> None:
    start.wait()
    try:
        opened(folder).close()
        told.put("")
    except BaseException as error:
        told.put(repr(error))


@pytest.mark.parametrize("opened", [open_store, open_queue])
def test_processes_that_make_a_file_together_all_open_it(
    opened: Callable[[Path], Any], tmp_path: Path
) -> None:
    """Whatever they meet in: making the file, the change to write-ahead logging, the layout."""
    context = multiprocessing.get_context("fork")
    wrong = []
    for number in range(ROUNDS):
        start, told = context.Event(), context.SimpleQueue()
        folder = tmp_path / str(number)
        started = [context.Process(target=child, args=(opened, folder, start, told)) for _ in range(TOGETHER)]
        for process in started:
            process.start()
        start.set()
        wrong += [said for said in (told.get() for _ in started) if said]
        for process in started:
            process.join()
    assert wrong == []


@pytest.mark.parametrize(("opened", "kind"), [(open_store, StoreUnavailable), (open_queue, QueueUnavailable)])
def test_who_opens_for_too_long_is_waited_for_and_then_named(
    opened: Callable[..., Any], kind: type[Exception], tmp_path: Path
) -> None:
    """The file is untouched, and the next try opens it."""
    held = opening_alone(tmp_path / "other.db", timeout_s=0, unavailable=StoreUnavailable)
    with held, pytest.raises(kind, match="another process opens"):
        opened(tmp_path, busy_timeout_s=0.02)
    opened(tmp_path).close()
