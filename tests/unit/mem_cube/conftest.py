"""A runtime without vectors in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memos.runtime import Runtime, build
from memos.settings import ModelSettings, Settings


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    settings = Settings(home=tmp_path / "here", models=ModelSettings(embedder="none"))
    with build(settings, start=False) as built:
        yield built


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Runtime]:
    """A second store, as of another machine."""
    settings = Settings(home=tmp_path / "there", models=ModelSettings(embedder="none"))
    with build(settings, start=False) as built:
        yield built
