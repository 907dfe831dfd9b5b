"""A scheduler over real small parts, in real time or under a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.mem_scheduler.parts import Parts, assembled

from memos import log
from memos.testing import ManualClock


@pytest.fixture(autouse=True)
def warnings_on_stderr() -> None:
    """Log lines as a program has them, so that what is printed can be told from what is logged."""
    log.configure("WARNING")


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """In real time, for tests with threads."""
    with assembled(tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def still(tmp_path: Path, clock: ManualClock) -> Iterator[Parts]:
    """Under a clock that stands still; tests run batches with `drain`, without threads."""
    with assembled(tmp_path, clock=clock) as made:
        yield made
