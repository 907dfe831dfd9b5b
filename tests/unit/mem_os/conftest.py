"""A runtime without vectors in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memos.mem_os import MOS
from memos.runtime import Runtime, build
from memos.settings import ModelSettings, Settings


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    settings = Settings(home=tmp_path / "here", models=ModelSettings(embedder="none"))
    with build(settings, start=False) as built:
        yield built


@pytest.fixture
def mos(runtime: Runtime) -> MOS:
    """Ann with two cubes, Ben with one."""
    made = MOS(runtime=runtime)
    made.create_user("ann")
    made.create_user("ben", user_name="Ben")
    for cube_id in ("pets", "work"):
        made.register_mem_cube(cube_id, user_id="ann")
    made.register_mem_cube("garden", user_id="ben")
    return made
