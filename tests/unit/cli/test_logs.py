"""`memos logs`: what the scheduler told, and a model's reply that could not be used."""

from __future__ import annotations

from typing import Any

import pytest

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import build
from memos.settings import Settings
from memos.testing_server import ModelServer

from .test_items import memos  # noqa: F401  (a fixture)


def test_an_unusable_reply_is_shown_as_it_came(memos: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The log names step, model and reason, and holds both replies; other logs are told on one line."""
    assert memos("add", "My boat is called Petrel.", "--cube", "c").code == 0
    with ModelServer(['{"queries": [oops', "still no [JSON]"]) as server:
        monkeypatch.setenv("MEMOS_MODELS__CHAT_BASE_URL", server.url)
        monkeypatch.setenv("MEMOS_MODELS__CHAT_MODEL", "m-1")
        with build(Settings.load(), start=False) as runtime:
            asked = ScheduleMessageItem(
                user_id="u", mem_cube_id="c", label="mem_update", content="What is my boat called?"
            )
            runtime.scheduler.submit_messages([asked])
            while runtime.scheduler.run_once(lanes_max=4):
                pass
    ran = memos("logs", "--label", "modelFault")
    assert ran.code == 0 and "intent_recognizing was done by rules" in ran.out
    assert "m-1: BadCompletion" in ran.out
    assert '| {"queries": [oops' in ran.out and "| still no [JSON]" in ran.out
    assert "scheduleMemory" in memos("logs", "--cube", "c").out
    (row,) = memos("logs", "--label", "modelFault", "--json").rows()
    assert row["status"] == "degraded" and row["memcube_log_content"][0]["step"] == "intent_recognizing"
    assert memos("logs", "--cube", "none").out == ""
