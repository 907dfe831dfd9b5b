"""The chat model of this process behind the port of language models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from tests.torch_there import torch_or_skip

torch_or_skip()

from memos import metrics
from memos.errors import BadCompletion, ModelRefused
from memos.models.base import ChatMessage
from memos.models.hf.chat import HFChat
from memos.models.hf.model import HFModel
from memos.testing_model import TinyShape, tiny_model

CHAT = (ChatMessage("system", "You are kind."), ChatMessage("user", "What does Ann like?"))
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model() -> HFModel:
    return tiny_model(seed=2)


def test_a_reply_is_the_same_in_pieces(model: HFModel) -> None:
    """`complete` and `stream` say the same, and tokens are counted as sent and received."""
    chat = HFChat(model, tokens_max=12)
    before = metrics.MODEL_TOKENS.value(model=model.name, direction="out")
    done = chat.complete(CHAT)
    pieces = list(chat.stream(CHAT, max_tokens=99))
    assert "".join(pieces) == done.text
    assert (done.tokens_out, done.tokens_cached) == (12, 0)
    assert done.tokens_in == len(model.text.ids(CHAT, opening=True))
    assert metrics.MODEL_TOKENS.value(model=model.name, direction="out") == before + 24
    assert len(list(chat.stream(CHAT, max_tokens=3))) <= 3


def test_a_reader_who_goes_away_ends_the_answer(model: HFModel) -> None:
    """Closing the stream ends the computation, and the call is counted."""
    before = metrics.MODEL_TOKENS.value(model=model.name, direction="out")
    stream = HFChat(model).stream(CHAT, temperature=1.0)
    assert isinstance(stream, Iterator)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert 0 < metrics.MODEL_TOKENS.value(model=model.name, direction="out") - before < 20


class Saying:
    """The model's text, with replies that were written beforehand."""

    def __init__(self, model: HFModel, *replies: str) -> None:
        self._model, self._replies, self.asked = model, list(replies), []
        self._own = model.answer

    def __call__(self, ids: Sequence[int], **more: object) -> object:
        self.asked.append(list(ids))
        one = self._own(ids, max_tokens=1, sampling=more["sampling"], timeout_s=60)  # type: ignore[arg-type]
        reply = self._replies.pop(0)
        type(one)  # a real answer, saying something else
        return _Said(one, reply)


class _Said:
    def __init__(self, real: object, reply: str) -> None:
        self.tokens_in = self.tokens_out = 1
        self.tokens_cached = 0
        self.finish_reason = "stop"
        self._reply = reply

    def __iter__(self) -> Iterator[str]:
        yield self._reply


def test_a_schema_is_asked_for_and_mended_once(model: HFModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema stands in the prompt; a bad reply goes back once with its fault; two bad ones are an error
    that keeps both."""
    saying = Saying(model, "no", '<think>hm</think>{"n": 4}', '{"n": "x y"}', "still no")
    monkeypatch.setattr(model, "answer", saying)
    chat = HFChat(model)
    done = chat.complete(CHAT, schema=SCHEMA)
    assert done.parsed == {"n": 4}
    assert done.extra["calls"] == 2
    assert len(saying.asked[1]) > len(saying.asked[0]) > len(model.text.ids(CHAT, opening=True))
    with pytest.raises(BadCompletion) as caught:
        chat.complete(CHAT[1:], schema=SCHEMA)
    assert "x y" in caught.value.raw
    assert "still no" in caught.value.raw


def test_too_long_a_chat_is_refused() -> None:
    """A chat over the model's length is refused at once, as an endpoint would."""
    with pytest.raises(ModelRefused):
        HFChat(tiny_model(shape=TinyShape(tokens_max=16))).complete(CHAT)
