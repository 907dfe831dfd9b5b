"""What every test may count on: a clean environment and its own data directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_OURS = (
    "MEMOS_",
    "MOS_",
    "MEMSCHEDULER_",
    "MEMRADER_",
    "MEMREADER_",
    "OPENAI_",
    "CHAT_MODEL",
    "API_SCHEDULER",
    "ENABLE_",
)
_KEPT = ("MEMOS_ACCEPTANCE", "MEMOS_DATA_LOCOMO", "MEMOS_TESTS_REQUIRE_SERVICES")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No setting of the developer's reaches a test, and all data goes to a folder of the test's own."""
    for name in list(os.environ):
        if name.startswith(_OURS) and name not in _KEPT:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("MEMOS_HOME", str(home))
    yield home
