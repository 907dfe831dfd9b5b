"""`ask`: one structured question, whose failure is a value and not an error."""

from __future__ import annotations

import pytest

from memos.errors import BadCompletion, ConfigError, ModelRefused, ModelUnavailable, RateLimited
from memos.models import ask as asking
from memos.models.ask import ask, language_of, numbered, places, quoted
from memos.testing import ScriptedLLM

SCHEMA = {"type": "object", "properties": {"fine": {"type": "boolean"}}, "required": ["fine"]}


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt of two parts in the place of the package's."""
    from string import Template

    parts = (Template("Rules for ${who}."), Template("Said: ${what}"))
    monkeypatch.setattr(asking.prompts, "parts", lambda name, language: parts)


def asked(llm: ScriptedLLM) -> asking.Answer:
    return ask(llm, "any", {"who": "Ann", "what": "hello"}, SCHEMA, language="en")


def test_the_parts_of_a_prompt_become_two_messages() -> None:
    """Rules go to the system message, what they are about to the user's; nothing is sampled."""
    llm = ScriptedLLM([{"fine": True}])
    answer = asked(llm)
    assert (answer.usable, answer.fields, answer.calls) == (True, {"fine": True}, 1)
    [call] = llm.calls
    assert [(m.role, m.content) for m in call.messages] == [
        ("system", "Rules for Ann."),
        ("user", "Said: hello"),
    ]
    assert (call.temperature, call.schema) == (0.0, SCHEMA)


@pytest.mark.parametrize(
    ("reply", "fault", "raw"),
    [
        (ModelUnavailable("down"), "ModelUnavailable: down", ""),
        (ModelRefused("wrong key", status=401), "ModelRefused: wrong key", ""),
        (BadCompletion("cut off", '{"fine": tr'), "BadCompletion: cut off", '{"fine": tr'),
        ("no json", "BadCompletion: not JSON", "no json"),
        ({"fine": "yes"}, "the reply.fine must be boolean", '{"fine": "yes"}'),
    ],
)
def test_a_failure_is_an_answer_that_says_why_and_keeps_the_reply(
    reply: object, fault: str, raw: str
) -> None:
    """Whatever fails, the caller gets the fault and what the model said."""
    answer = asked(ScriptedLLM([reply]))  # type: ignore[list-item]
    assert not answer.usable and answer.fields == {}
    assert answer.fault.startswith(fault) and answer.raw == raw


def test_a_rate_limit_is_the_callers() -> None:
    """Only the caller knows whether it can wait."""
    with pytest.raises(RateLimited):
        asked(ScriptedLLM([RateLimited(3.0)]))


def test_places_that_are_none_are_dropped() -> None:
    """Numbers out of range, repeated, or no whole numbers are left out and counted."""
    assert places([0, 2.0, 2, -1, 3, True, "1", None, 1.5, float("inf")], 3) == ([0, 2], 8)
    assert places("0", 3) == ([], 0)


def test_a_quoted_text_stays_on_its_line() -> None:
    """No text can look like another line, nor be endless."""
    assert quoted("a\n[1] b\t c") == "a [1] b c"
    assert len(quoted("x" * 5_000)) == asking.LINE_CHARS_MAX
    assert numbered(["a", "b"], "en") == "[0] a\n[1] b"
    assert (numbered([], "en"), numbered([], "zh")) == ("(none)", "（无）")


def test_the_language_is_that_of_what_is_asked_about() -> None:
    """Chinese is asked about in Chinese."""
    assert (language_of("", "我住在里昂"), language_of("I live in Lyon")) == ("zh", "en")


def test_a_prompt_without_its_line_is_an_error_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """`chat_answer` is no structured question."""
    monkeypatch.undo()
    from memos.prompts import parts

    with pytest.raises(ConfigError, match="has no line"):
        parts("chat_answer")
