"""OpenAIChat over real HTTP: replies, structured output, faults, streams."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from memos.errors import (
    BadCompletion,
    ConfigError,
    InvalidInput,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    RateLimited,
)
from memos.models.base import ChatMessage
from memos.models.openai.chat import OpenAIChat
from memos.testing import EPOCH_S, ManualClock
from memos.testing_server import (
    CutOff,
    Fault,
    Garbage,
    ModelServer,
    Refuses,
    Say,
    Scripted,
    Slow,
    rate_limit,
)

ASKED = [ChatMessage("system", "Be brief."), ChatMessage("user", "What is it called?")]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"needed": {"type": "boolean"}, "gaps": {"type": "array", "items": {"type": "string"}}},
    "required": ["needed", "gaps"],
    "additionalProperties": False,
}
GOOD = {"needed": True, "gaps": ["the vet"]}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def model() -> Iterator[Callable[..., OpenAIChat]]:
    """Makes chat models and closes them after the test."""
    made: list[OpenAIChat] = []

    def make(server: ModelServer, name: str = "m-1", **options: Any) -> OpenAIChat:
        made.append(OpenAIChat(name, **{"base_url": server.url, "api_key": "secret-key", **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., OpenAIChat]


def test_a_reply_comes_with_its_reasoning_and_counts(server: ModelServer, model: Make) -> None:
    """Text, reasoning and the tokens in, out and cached are those of the endpoint."""
    server.script(Say("Petrel.", reasoning="a boat", tokens_in=30, tokens_out=4, tokens_cached=16))
    done = model(server, temperature=0.2).complete(ASKED, max_tokens=50)
    assert (done.text, done.reasoning) == ("Petrel.", "a boat")
    assert (done.tokens_in, done.tokens_out, done.tokens_cached) == (30, 4, 16)
    [request] = server.requests
    assert request.body["model"] == "m-1" and request.body["max_tokens"] == 50
    assert request.body["temperature"] == 0.2
    assert request.body["messages"] == [{"role": m.role, "content": m.content} for m in ASKED]
    assert request.headers["authorization"] == "Bearer secret-key"


def test_a_call_may_sample_in_its_own_way(server: ModelServer, model: Make) -> None:
    """A call's temperature and top_p go out in the place of the configured ones, for that call alone."""
    server.script("a", "b", "c")
    llm = model(server, temperature=0.2, top_p=0.9)
    llm.complete(ASKED, temperature=0.0)
    list(llm.stream(ASKED, top_p=0.1))
    llm.complete(ASKED)
    sent = [(one.body.get("temperature"), one.body.get("top_p")) for one in server.chats()]
    assert sent == [(0.0, 0.9), (0.2, 0.1), (0.2, 0.9)]


def test_thoughts_in_the_text_are_taken_out(server: ModelServer, model: Make) -> None:
    """A model that thinks between tags answers without them."""
    server.script("<think>a boat?</think>\nPetrel.")
    done = model(server).complete(ASKED)
    assert (done.text, done.reasoning) == ("Petrel.", "a boat?")


def test_a_schema_is_sent_and_met(server: ModelServer, model: Make) -> None:
    """The endpoint is given the schema, strictly where it is closed, and the object comes back parsed."""
    server.script(GOOD)
    done = model(server).complete(ASKED, schema=SCHEMA)
    assert done.parsed == GOOD and done.extra["calls"] == 1 and done.extra["form"] == "json_schema"
    sent = server.requests[0].body["response_format"]["json_schema"]
    assert sent["schema"] == SCHEMA and sent["strict"] is True


@pytest.mark.parametrize(
    ("refused", "form", "calls"),
    [("response_format.json_schema", "json_object", 2), ("response_format", "prompt", 3)],
)
def test_an_endpoint_without_schemas_is_asked_more_simply(
    server: ModelServer, refused: str, form: str, calls: int, model: Make
) -> None:
    """What the endpoint refuses is left out, the schema goes into the prompt, and it is remembered."""
    server.script(Refuses(refused, Say(json.dumps(GOOD))), GOOD)
    llm = model(server)
    first = llm.complete(ASKED, schema=SCHEMA)
    assert first.parsed == GOOD and first.extra["form"] == form
    assert len(server.requests) == calls
    assert llm.complete(ASKED, schema=SCHEMA).parsed == GOOD
    assert len(server.requests) == calls + 1
    messages = server.requests[-1].body["messages"]
    assert "JSON Schema" in messages[0]["content"] and '"gaps"' in messages[0]["content"]
    assert [m["role"] for m in messages] == ["system", "user"]


def test_the_schema_is_told_in_the_language_of_the_question(server: ModelServer, model: Make) -> None:
    """A Chinese question gets the Chinese instruction."""
    server.script(Refuses("response_format", Say(json.dumps(GOOD))))
    model(server).complete([ChatMessage("user", "它叫什么名字？")], schema=SCHEMA)
    assert "只回复一个 JSON 对象" in server.requests[-1].body["messages"][0]["content"]


@pytest.mark.parametrize(
    ("refused", "options"),
    [("max_tokens", {}), ("temperature", {"temperature": 0.5})],
)
def test_a_parameter_that_is_refused_is_left_out(
    server: ModelServer, refused: str, options: dict[str, Any], model: Make
) -> None:
    """Endpoints that want max_completion_tokens, or no temperature, get it their way, the next time too."""
    message = "use max_completion_tokens" if refused == "max_tokens" else "temperature is fixed"
    server.script(Refuses(refused, Say("yes"), message), "again")
    llm = model(server, **options)
    assert llm.complete(ASKED).text == "yes"
    assert llm.complete(ASKED).text == "again"
    assert len(server.requests) == 3 and refused not in server.requests[-1].body


@pytest.mark.parametrize(
    "wrapped",
    [
        "```json\n{}\n```",
        "Sure, here it is:\n\n{}\n\nAnything else?",
        "<think>hm {{</think>{}",
        "I use {{braces}}, and answer\n{}",
    ],
)
def test_json_is_found_in_what_models_put_around_it(server: ModelServer, wrapped: str, model: Make) -> None:
    """Fences, sentences and thoughts around the object cost no second call."""
    server.script(wrapped.replace("{}", json.dumps(GOOD)).replace("{{", "{").replace("}}", "}"))
    done = model(server).complete(ASKED, schema=SCHEMA)
    assert done.parsed == GOOD and done.extra["calls"] == 1


@pytest.mark.parametrize(
    "nearly",
    ['{"needed": true, "gaps": ["the vet"], "more": 1}', '{"needed": "true", "gaps": ["the vet",],}'],
)
def test_a_slip_that_leaves_no_doubt_costs_no_second_call(
    server: ModelServer, nearly: str, model: Make
) -> None:
    """A field nobody asked for, a word in quotes and a last comma are passed over."""
    server.script(Say(nearly))
    done = model(server).complete(ASKED, schema=SCHEMA)
    assert done.parsed == GOOD and done.extra["calls"] == 1 and len(server.requests) == 1


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (Say('{"needed": true, "gaps": ["the v', finish_reason="length"), "cut off at the limit"),
        (Say('{"needed": true, "gaps": [{"needed": false, "gaps": []'), "broken or cut off"),
        (Say('{"needed": "yes", "gaps": []}'), "needed must be boolean, not string"),
        (Say('{"gaps": []}'), "lacks 'needed'"),
        (Say('{"needed": true, "gaps": "the vet"}'), "gaps must be array, not string"),
        (Say("I cannot help with that."), "no JSON object"),
        (Say(""), "no JSON object"),
    ],
)
def test_a_bad_object_is_mended_by_asking_once(
    server: ModelServer, bad: Say, fault: str, model: Make
) -> None:
    """Malformed, truncated and unfit replies go back once, with the reason; both calls are counted."""
    server.script(bad, GOOD)
    done = model(server).complete(ASKED, schema=SCHEMA)
    assert done.parsed == GOOD and done.extra["calls"] == 2
    assert fault in done.extra["mended"]
    assert (done.tokens_in, done.tokens_out) == (24, 14)
    [said, asked] = server.requests[-1].body["messages"][-2:]
    assert said["role"] == "assistant" and said["content"] == (bad.text or "(empty)")
    assert fault in asked["content"]


def test_a_bad_object_twice_keeps_both_replies(server: ModelServer, model: Make) -> None:
    """After the second bad reply the error holds what was said; there is no third call."""
    server.script("no idea", '{"needed": 1}', GOOD)
    with pytest.raises(BadCompletion) as caught:
        model(server).complete(ASKED, schema=SCHEMA)
    assert "no idea" in caught.value.raw and '{"needed": 1}' in caught.value.raw
    assert len(server.requests) == 2 and not caught.value.retryable


def test_an_endpoint_that_fails_while_mending_keeps_the_reply(server: ModelServer, model: Make) -> None:
    """When asking again fails, the first reply is still in the error."""
    server.script("no idea", Fault(503))
    with pytest.raises(BadCompletion, match="asking again failed") as caught:
        model(server).complete(ASKED, schema=SCHEMA)
    assert caught.value.raw == "no idea"


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (Fault(500, "out of memory"), ModelUnavailable, "answers 500: out of memory"),
        (Fault(503), ModelUnavailable, "503"),
        (Fault(408), ModelUnavailable, "408"),
        (Fault(401, "bad key"), ModelRefused, "401: bad key"),
        (Fault(404, "model 'm-1' not found"), ModelRefused, "not found"),
        (Fault(400, "prompt too long"), ModelRefused, "too long"),
        (rate_limit(7), RateLimited, "slow down"),
        (Fault(429, "quota", "insufficient_quota"), ModelUnavailable, "quota"),
        (Garbage(b"<html>502 from a proxy</html>", "text/html"), BadCompletion, "not JSON"),
        (Garbage(b""), BadCompletion, "not JSON"),
        (Garbage(b"[1, 2]"), BadCompletion, "no JSON object"),
        (Garbage(b'{"choices": []}'), BadCompletion, "no choice"),
        (Garbage(b'{"choices": [{"message": null}]}'), BadCompletion, "empty reply"),
        (Garbage(b'{"error": {"message": "loading"}}'), ModelUnavailable, "loading"),
        (Garbage(b"[" * 100_000), BadCompletion, "not JSON"),
        (CutOff(Say("a long answer")), ModelUnavailable, "broke off"),
    ],
)
def test_a_fault_is_told_in_our_words(
    server: ModelServer, reply: Scripted, kind: type[ModelError], said: str, model: Make
) -> None:
    """Each fault has its error, the vendor's as cause, after one request; the key is in no message."""
    server.script(reply)
    with pytest.raises(kind, match=said) as caught:
        model(server).complete(ASKED)
    assert type(caught.value) is kind
    assert len(server.requests) == 1
    assert "secret-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("999999", 3600.0),
        ("nan", 20.0),
        ("soon", 20.0),
        (None, 20.0),
        (formatdate(EPOCH_S + 90, usegmt=True), 90.0),
    ],
)
def test_the_wait_that_is_asked_for_is_passed_on(
    server: ModelServer, header: str | None, seconds: float, model: Make
) -> None:
    """Retry-After as seconds or as a date, within bounds; without one a default."""
    server.script(rate_limit(header))
    with pytest.raises(RateLimited) as caught:
        model(server, clock=ManualClock()).complete(ASKED)
    assert caught.value.retry_after_s == seconds


def test_a_slow_endpoint_is_given_up(server: ModelServer, model: Make) -> None:
    """After `timeout_s` the call ends, for a whole reply and for a stream."""
    server.script(Slow(Say("late"), 30), Slow(Say("late"), 30))
    with pytest.raises(ModelUnavailable, match="in time"):
        model(server).complete(ASKED, timeout_s=0.2)
    with pytest.raises(ModelUnavailable, match="in time"):
        list(model(server, timeout_s=0.2).stream(ASKED))


def test_a_server_that_is_gone_is_unavailable(model: Make) -> None:
    """A refused connection is ModelUnavailable and names the base URL."""
    with ModelServer() as server:
        llm = model(server)
    with pytest.raises(ModelUnavailable, match=r"127\.0\.0\.1.* cannot be reached"):
        llm.complete(ASKED)


def test_a_stream_gives_the_pieces_in_order(server: ModelServer, model: Make) -> None:
    """The pieces put together are the reply; reasoning stands before it between the thinking tags."""
    server.script(Say("It is Petrel.", reasoning="a boat"), Say("Hi.", pieces=("H", "", "i.")))
    pieces = list(model(server).stream(ASKED))
    assert "".join(pieces) == "<think>a boat</think>It is Petrel." and len(pieces) > 3
    assert list(model(server).stream(ASKED)) == ["H", "i."]


def test_an_endpoint_that_does_not_stream_is_understood(server: ModelServer, model: Make) -> None:
    """A whole reply where events were asked for is one piece."""
    whole = {"choices": [{"message": {"content": "It is Petrel.", "reasoning": "a boat"}}]}
    server.script(Garbage(json.dumps(whole).encode()))
    assert list(model(server).stream(ASKED)) == ["<think>a boat</think>It is Petrel."]


@pytest.mark.parametrize(
    ("reply", "kind", "came"),
    [
        (CutOff(Say("It is called Petrel.")), ModelUnavailable, "It is "),
        (Garbage(b'data: {"choices": [{"delta": {"content": "It"}}]}\n\ndata: {"cho'), BadCompletion, "It"),
        (Garbage(b"data: 17\n\n"), BadCompletion, ""),
        (Garbage(b'data: {"error": {"message": "out of memory"}}\n\n'), ModelUnavailable, ""),
        (Garbage(b""), ModelUnavailable, ""),
        (Garbage(b"<html>"), BadCompletion, ""),
        (Fault(500), ModelUnavailable, ""),
        (rate_limit(3), RateLimited, ""),
    ],
)
def test_a_broken_stream_raises_after_what_came(
    server: ModelServer, reply: Scripted, kind: type[ModelError], came: str, model: Make
) -> None:
    """What came before the fault is given out, then the typed error; never a silent end."""
    server.script(reply)
    pieces: list[str] = []
    with pytest.raises(kind):
        pieces.extend(iter(_each(model(server), pieces)))
    assert "".join(pieces) == came


def _each(llm: OpenAIChat, pieces: list[str]) -> Iterator[str]:
    for piece in llm.stream(ASKED):
        pieces.append(piece)
    yield from ()


def test_a_stream_that_is_left_closes_its_connection(server: ModelServer, model: Make) -> None:
    """A reader who leaves in the middle costs nothing: the next call works."""
    server.script("one two three four", "after")
    llm = model(server)
    stream = llm.stream(ASKED)
    assert next(iter(stream)) == "one "
    stream.close()  # type: ignore[attr-defined]
    assert llm.complete(ASKED).text == "after"


def test_without_a_name_the_only_model_is_taken(model: Make) -> None:
    """One model served: that one; several: an error that lists them."""
    with ModelServer(["hello"], models=["qwen3:4b"]) as server:
        llm = model(server, "")
        assert llm.complete(ASKED).text == "hello" and llm.name == "qwen3:4b"
        assert server.chats()[0].body["model"] == "qwen3:4b"
    with ModelServer(models=["a", "b"]) as server, pytest.raises(ModelRefused, match=r"2 models \(a, b\)"):
        model(server, "").complete(ASKED)


def test_the_users_environment_is_not_read(
    server: ModelServer, model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key none of the environment's goes out, and its base URL is not used."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-private")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    server.script("hello")
    model(server, api_key="").complete(ASKED)
    assert "sk-private" not in json.dumps(dict(server.requests[0].headers))


def test_a_lone_surrogate_is_no_reason_to_fail(server: ModelServer, model: Make) -> None:
    """Text that UTF-8 cannot carry is sent with a question mark in its place."""
    server.script("ok")
    assert model(server).complete([ChatMessage("user", "broken \ud800 text")]).text == "ok"
    assert server.requests[0].body["messages"][0]["content"] == "broken ? text"


@pytest.mark.parametrize("url", ["", "localhost:11434", "ftp://x/v1", "http://"])
def test_a_base_url_that_cannot_work_is_refused(url: str) -> None:
    """The error names the URL and shows a good one."""
    with pytest.raises(InvalidInput, match="http://localhost:11434/v1"):
        OpenAIChat("m", base_url=url)


def test_a_missing_v1_is_suspected(server: ModelServer, model: Make) -> None:
    """A 404 of a base URL without a path asks whether /v1 is missing."""
    with pytest.raises(ModelRefused, match="is /v1 missing"):
        model(server, base_url=server.url.removesuffix("/v1")).complete(ASKED)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the SDK the error says what to install."""
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install 'memscheduler\[openai\]'"):
        OpenAIChat("m")
