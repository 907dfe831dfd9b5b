"""A model that failed is left alone, for longer each time, and tried by one request."""

from __future__ import annotations

import pytest

from memos import metrics
from memos.errors import BadCompletion, ModelRefused, ModelUnavailable, RateLimited
from memos.models.base import ChatMessage
from memos.models.resting import REST_MAX_S, RestingLLM
from memos.testing import ManualClock, ScriptedLLM

ASKED = [ChatMessage("user", "hello")]
DOWN = ModelUnavailable("connection refused")


def test_after_a_failure_the_endpoint_is_left_alone_until_the_pause_is_over() -> None:
    """While it rests nothing is sent and the error says why; then one request tries, and success ends it."""
    clock, inner = ManualClock(), ScriptedLLM([DOWN, "back", "again"])
    llm = RestingLLM(inner, clock)
    before = metrics.MODEL_CALLS.value(model="scripted", outcome="not_asked")
    with pytest.raises(ModelUnavailable, match="refused"):
        llm.complete(ASKED)
    with pytest.raises(ModelUnavailable, match=r"left alone .* connection refused"):
        llm.complete(ASKED)
    assert len(inner.calls) == 1
    assert metrics.MODEL_CALLS.value(model="scripted", outcome="not_asked") == before + 1
    clock.advance(1.1)
    assert [llm.complete(ASKED).text, llm.complete(ASKED).text] == ["back", "again"]


def test_the_pause_doubles_up_to_its_limit() -> None:
    """An hour of failures costs a request a minute at most."""
    clock, inner = ManualClock(), ScriptedLLM([DOWN] * 200)
    llm = RestingLLM(inner, clock)
    for _ in range(3_600):
        with pytest.raises(ModelUnavailable):
            llm.complete(ASKED)
        clock.advance(1.0)
    assert 3_600 / REST_MAX_S <= len(inner.calls) <= 3_600 / REST_MAX_S + 10


def test_a_rate_limit_is_kept_to() -> None:
    """Nothing is sent before the time that the endpoint asked for; the error says what is left of it."""
    clock, inner = ManualClock(), ScriptedLLM([RateLimited(30.0), "fine"])
    llm = RestingLLM(inner, clock)
    with pytest.raises(RateLimited):
        llm.complete(ASKED)
    clock.advance(10.0)
    with pytest.raises(RateLimited) as caught:
        list(llm.stream(ASKED))
    assert caught.value.retry_after_s == pytest.approx(20.0) and len(inner.calls) == 1
    clock.advance(20.5)
    assert "".join(llm.stream(ASKED)) == "fine"


@pytest.mark.parametrize("error", [ModelRefused("no key", status=401), BadCompletion("empty", "")])
def test_an_endpoint_that_answers_is_not_left_alone(error: Exception) -> None:
    """A refusal or a useless reply is no reason for a pause."""
    llm = RestingLLM(ScriptedLLM([error, "fine"]), ManualClock())
    with pytest.raises(type(error)):
        llm.complete(ASKED)
    assert llm.complete(ASKED).text == "fine"


class _Asking(ScriptedLLM):
    """While it is asked, it asks the resting model that it stands in once more."""

    outer: RestingLLM
    refused = 0

    def complete(self, messages: object, **kwargs: object) -> object:  # type: ignore[override]
        if len(self.calls) == 1:
            with pytest.raises(ModelUnavailable, match="left alone"):
                self.outer.complete(ASKED)
            self.refused += 1
        return super().complete(messages, **kwargs)  # type: ignore[arg-type]


def test_one_request_tries_and_the_others_wait_for_it() -> None:
    """While a request tries whether the endpoint is back, no second one is sent."""
    clock, inner = ManualClock(), _Asking([DOWN, "back"])
    inner.outer = RestingLLM(inner, clock)
    with pytest.raises(ModelUnavailable):
        inner.outer.complete(ASKED)
    clock.advance(2.0)
    assert inner.outer.complete(ASKED).text == "back" and inner.refused == 1
