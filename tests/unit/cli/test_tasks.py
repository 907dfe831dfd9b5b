"""`memos status` and `memos dead …`: on the durable queue, between processes' lives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from memos.errors import Discard
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import build
from memos.settings import Settings

from .test_items import memos  # noqa: F401  (a fixture)


def give_up(*contents: str) -> None:
    """Messages that a handler refuses for good."""

    def refuse(messages: list[ScheduleMessageItem]) -> None:
        raise Discard(f"cannot do {messages[0].content}")

    with build(Settings.load()) as runtime:
        runtime.scheduler.register_handlers({"errand": refuse})
        for content in contents:
            runtime.scheduler.submit_messages(
                ScheduleMessageItem(user_id="ann", mem_cube_id="c", label="errand", content=content)
            )
        assert runtime.drain(20.0)


def letters(memos: Any) -> list[dict[str, Any]]:  # noqa: F811
    return [json.loads(line) for line in memos("dead", "list", "--json").out.splitlines()]


def test_what_was_given_up_is_listed_and_shown(memos: Any) -> None:  # noqa: F811
    """A refused message is a dead letter that a later command finds, with its error and content."""
    give_up("buy [/milk]", "post the letter")
    listed = memos("dead", "list")
    assert listed.code == 0
    assert "2 dead letters" in listed.out and "cannot do buy [/milk]" in listed.out
    (newest, _) = letters(memos)
    assert newest["content"] == "post the letter"
    shown = json.loads(memos("dead", "show", newest["key"]).out)
    assert shown["error"] == newest["error"] and shown["user_id"] == "ann"
    assert "2 dead" in memos("status").out
    assert "memos dead list" in memos("doctor").out


def test_a_mended_letter_runs_again(memos: Any) -> None:  # noqa: F811
    """An edited letter that is retried runs with its new content, and is no letter any more."""
    give_up("buy milk")
    (letter,) = letters(memos)
    assert memos("dead", "edit", letter["key"], "buy oat milk").code == 0
    assert "1 queued again" in memos("dead", "retry", letter["key"]).out
    assert letters(memos) == []
    status = memos("status").out
    assert "errand" in status and "1 queued" in status
    seen: list[str] = []
    with build(Settings.load(), start=False) as runtime:
        runtime.scheduler.register_handlers(
            {"errand": lambda messages: seen.extend(m.content for m in messages)}
        )
        runtime.scheduler.start()
        assert runtime.drain(20.0)
    assert seen == ["buy oat milk"]


def test_purged_letters_are_gone(memos: Any) -> None:  # noqa: F811
    """`purge --all` drops every letter."""
    give_up("one", "two")
    assert "2 dropped" in memos("dead", "purge", "--all").out
    assert letters(memos) == []


@pytest.mark.parametrize(
    "words",
    [("dead", "retry"), ("dead", "purge"), ("dead", "retry", "key", "--all"), ("dead", "show", "nope")],
)
def test_calls_that_say_too_little_or_too_much_are_refused(memos: Any, words: tuple[str, ...]) -> None:  # noqa: F811
    """Neither keys nor --all, both of them, or an unknown key: refused, and nothing is changed."""
    give_up("one")
    ran = memos(*words)
    assert ran.code in (1, 2)
    assert "Traceback" not in ran.err
    assert len(letters(memos)) == 1
