"""`memos queue shards`: what it says of a queue on Redis before it is cut, and where settings ask for another number."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import tests.services

from .test_items import memos  # noqa: F401  (a fixture)

pytestmark = pytest.mark.skipif(not tests.services.redis_is_there(), reason="no Redis")


@pytest.fixture(autouse=True)
def prefix(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = f"memos-test:{uuid.uuid4().hex}"
    for variable, value in (
        ("MEMOS_QUEUE__BACKEND", "redis"),
        ("MEMOS_QUEUE__REDIS_PREFIX", name),
        ("MEMSCHEDULER_REDIS_URL", tests.services.redis_address().url),
        ("MEMOS_QUEUE__SHARDS", "3"),
    ):
        monkeypatch.setenv(variable, value)
    yield name
    tests.services.drop_keys(tests.services.redis_address(), name)


def test_a_queue_that_nobody_opened_is_not_cut_yet(memos: Any) -> None:  # noqa: F811
    """Looking cuts nothing, and says what will be; afterwards there are as many shards as were asked for."""
    for _ in range(2):
        shown = memos("queue", "shards").out
        assert "1 shard\n" in shown
        assert "not cut yet: the first process that opens it makes 3 shards" in shown
    assert memos("status").code == 0
    shown = memos("queue", "shards").out
    assert "3 shards\n" in shown and "not cut" not in shown and "MEMOS_QUEUE__SHARDS" not in shown


def test_settings_that_ask_for_another_number_are_told(
    memos: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The look goes by the note and says what to set; a process that does work is refused."""
    assert memos("status").code == 0
    monkeypatch.setenv("MEMOS_QUEUE__SHARDS", "4")
    shown = memos("queue", "shards")
    assert shown.code == 0 and "3 shards\n" in shown.out
    assert "set MEMOS_QUEUE__SHARDS=3 for every process; it asks for 4 here" in shown.out
    assert "is cut into 3 shards" in memos("status").err
    cut = memos("queue", "shards", "4").out
    assert "4 shards\n" in cut and "for every process" not in cut
    assert memos("status").code == 0
