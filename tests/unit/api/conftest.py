"""A whole runtime of each test's own, without an embedder, and the handlers over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memos.api.handlers import Handlers, handlers_of
from memos.runtime import Runtime, build
from memos.settings import Settings


def settings_in(home: Path, **api: object) -> Settings:
    plain = Settings(home=home, models={"embedder": "none"})
    return plain.model_copy(update={"api": plain.api.model_copy(update={"enable_chat": True, **api})})


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """Not started: tasks stay in the queue, where a test can look at them or run them."""
    with build(settings_in(tmp_path / "data"), start=False) as built:
        yield built


@pytest.fixture
def handlers(runtime: Runtime) -> Handlers:
    return handlers_of(runtime)
