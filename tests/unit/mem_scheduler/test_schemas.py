"""The wire form of messages, and what a log tells of itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.mem_scheduler.parts import message

from memos import context
from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import (
    CONTENT_BYTES_MAX,
    ScheduleMessageItem,
    UserContext,
    check_text,
    validate_message,
)
from memos.mem_scheduler.schemas.task_schemas import RunningTaskItem
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem


def test_the_wire_form_is_flat_and_loses_nothing() -> None:
    """Every value is a string, the cube travels as cube_id, and reading it back gives the message."""
    sent = message(
        "query",
        "What is my dog's name? 我的狗",
        session_id="s",
        task_id="T",
        info={"turn_id": "t", "n": [1]},
        chat_history=[{"role": "user", "content": "hi"}],
        user_context=UserContext(user_id="u"),
        api_path="/product/add",
    )
    wire = sent.to_dict()
    assert all(isinstance(value, str) for value in wire.values())
    assert (wire["cube_id"], wire["cube"]) == (sent.mem_cube_id, "Not Applicable")
    assert "mem_cube_id" not in wire
    assert ScheduleMessageItem.from_dict(wire) == sent
    assert ScheduleMessageItem.from_json(sent.to_json()) == sent


def test_what_is_missing_travels_as_empty() -> None:
    """None becomes "" and comes back as None."""
    wire = message("query").to_dict()
    assert (wire["info"], wire["task_id"], wire["chat_history"]) == ("", "", "")
    back = ScheduleMessageItem.from_dict(wire)
    assert (back.info, back.task_id, back.chat_history, back.user_context) == (None, None, None, None)


@pytest.mark.parametrize(
    "wire",
    [
        {"user_id": "u", "cube_id": "c", "label": "query"},
        {"user_id": "u", "label": "query", "content": "x"},
        {"user_id": "u", "cube_id": "c", "label": "query", "content": "x", "info": "{not json"},
        {"user_id": "u", "cube_id": "c", "label": "query", "content": "x", "timestamp": "yesterday"},
    ],
)
def test_a_broken_wire_form_is_refused(wire: dict[str, Any]) -> None:
    """A missing or malformed field is a typed error, whatever the form it comes in."""
    with pytest.raises(InvalidInput):
        ScheduleMessageItem.from_dict(wire)
    with pytest.raises(InvalidInput):
        ScheduleMessageItem.from_json(json.dumps(wire))


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    """Anything but a JSON object is no message."""
    with pytest.raises(InvalidInput):
        ScheduleMessageItem.from_json(text)


def test_a_message_takes_the_current_trace() -> None:
    """A message made while a trace is worked on belongs to it; otherwise it begins one."""
    with context.bound(trace="t" * 32):
        assert message("query").trace_id == "t" * 32
    assert message("query").trace_id != message("query").trace_id


@pytest.mark.parametrize("content", ["", " \n", "a\x00b", "\ud800", "x" * 101, 7])
def test_impossible_texts_are_refused_by_name(content: Any) -> None:
    """Empty, NUL, lone surrogates, too long, no string: the error names the field."""
    with pytest.raises(InvalidInput, match="content"):
        check_text("content", content, bytes_max=100)


@pytest.mark.parametrize("value", [None, 5, "text", {"label": "query"}])
def test_only_messages_are_messages(value: object) -> None:
    """What is no message is refused before its fields are looked at."""
    with pytest.raises(InvalidInput, match="ScheduleMessageItem"):
        validate_message(value)


def test_a_business_task_is_named_by_text() -> None:
    """A task id that cannot be written is refused by name, before the queue meets it; none at all is fine."""
    with pytest.raises(InvalidInput, match="task_id"):
        validate_message(message("query").model_copy(update={"task_id": "a\ud800"}))
    for task in (None, "", "any / text: \N{GRINNING FACE}"):
        validate_message(message("query").model_copy(update={"task_id": task}))


def test_a_log_describes_itself_without_memory_text() -> None:
    """debug_info has what finds the event, and nothing of its content."""
    entry = ScheduleLogForWebItem(
        user_id="u", mem_cube_id="c", label="addMessage", log_content="a secret", trace_id="t", task_id="T"
    )
    shown = entry.debug_info()
    assert (shown["user_id"], shown["trace_id"], shown["task_id"]) == ("u", "t", "T")
    assert shown["log_content_length"] == 8
    assert "secret" not in json.dumps(shown)


def test_the_duration_of_a_running_call() -> None:
    """A call has a duration once it has ended."""
    task = RunningTaskItem(
        user_id="u", mem_cube_id="c", task_name="query_handler", start_time=datetime(2024, 1, 1, tzinfo=UTC)
    )
    assert task.duration_seconds is None
    task.end_time = datetime(2024, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert task.duration_seconds == 5.0


def _endless() -> dict[str, object]:
    nested: dict[str, object] = {}
    nested["again"] = nested
    return nested


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("info", {"x": "a" * (CONTENT_BYTES_MAX + 1)}),
        ("chat_history", ["a" * (CONTENT_BYTES_MAX + 1)]),
        ("info", {1: _endless()}),
    ],
)
def test_what_rides_along_is_bounded_too(field: str, value: object) -> None:
    """Info and history that are too large or cannot be written down are refused, and the field is named."""
    message = ScheduleMessageItem(user_id="u", mem_cube_id="c", label="l", content="x").model_copy(
        update={field: value}
    )
    with pytest.raises(InvalidInput, match=field):
        validate_message(message)
