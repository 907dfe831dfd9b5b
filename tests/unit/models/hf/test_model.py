"""A model in this process: what was read is reusable to the last bit, and what cannot be kept is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.torch_there import torch_or_skip

torch_or_skip()

import torch
import transformers

from memos.errors import ActivationUnsupported, ModelRefused, ModelUnavailable
from memos.models.base import ChatMessage
from memos.models.hf.model import HFModel
from memos.models.hf.sampling import Sampling
from memos.testing_model import Family, TinyShape, tiny_model, write_tiny_model

GREEDY = Sampling()
CHAT = (ChatMessage("system", "You are kind.\nAnn likes tea.\n"), ChatMessage("user", "What does Ann like?"))


def answer(model: HFModel, ids: Any, tokens: int = 16, **more: Any) -> tuple[str, list[int]]:
    """Text and ids of an answer."""
    given = {"sampling": GREEDY, "timeout_s": 60.0} | more
    one = model.answer(ids, max_tokens=tokens, **given)
    return "".join(one), one.ids


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_going_on_from_a_cache_is_reading_all(family: Family) -> None:
    """The logits after a kept beginning equal those of the whole chat, and so do the tokens chosen; what is
    kept does not change by it."""
    model = tiny_model(family)
    assert model.unsupported == ""
    assert model.shape == (2, 2, 16, 16)
    ids = model.text.ids(CHAT, opening=True)
    whole, _ = model.read(ids)
    _, cache = model.read(ids[:30])
    past = model.past_of(cache)
    before = past.keys.clone()
    rest, grown = model.read(ids[30:], past)
    assert torch.allclose(rest, whole, atol=1e-5, rtol=0)
    assert grown.get_seq_length() == len(ids)
    assert answer(model, ids, past=past) == answer(model, ids)
    assert past.tokens == 30
    assert torch.equal(past.keys, before)


def test_a_checkpoint_is_the_model_that_was_saved(tmp_path: Path) -> None:
    """A folder that save_pretrained wrote loads with the same answers, from wherever it lies, and its
    fingerprint follows the files."""
    folder = write_tiny_model(tmp_path / "a", "qwen3", seed=3)
    model = HFModel.load(folder)
    ids = model.text.ids(CHAT, opening=True)
    assert answer(model, ids) == answer(tiny_model("qwen3", seed=3), ids)
    known = model.fingerprint()
    moved = tmp_path / "b"
    folder.rename(moved)
    again = HFModel.load(moved)
    assert again.fingerprint() == known != tiny_model("qwen3", seed=3).fingerprint()
    late = HFModel.load(moved)
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1  # no sample looks there
    (moved / "model.safetensors").write_bytes(weights)
    with pytest.raises(ActivationUnsupported, match="was changed"):
        late.fingerprint()
    assert HFModel.load(moved).fingerprint() != known


def test_fingerprints_tell_models_apart() -> None:
    """Weights, family, dtype, template: each changes the fingerprint; the same model has the same one."""
    models = [
        tiny_model(),
        tiny_model(seed=1),
        tiny_model("qwen3"),
        tiny_model("llama"),
        tiny_model(dtype="bfloat16"),
        tiny_model(strips=True),
        tiny_model(shape=TinyShape(layers=3)),
    ]
    prints = [model.fingerprint() for model in models]
    assert len(set(prints)) == len(prints)
    assert tiny_model().fingerprint() == prints[0]
    sparse = tiny_model()
    with torch.no_grad():
        next(iter(sparse._model.parameters())).view(-1)[0] += 1.0
    assert sparse.fingerprint() != prints[0]


def test_layers_that_forget_are_refused_with_the_reason() -> None:
    """Sliding windows and recurrent layers keep no prefix; such a model still answers."""
    tokenizer = tiny_model()._tokenizer
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    sliding = transformers.Qwen2Config(
        **sizes, use_sliding_window=True, sliding_window=8, max_window_layers=0
    )
    mistral = transformers.MistralConfig(**sizes, sliding_window=8)
    for config in (sliding, mistral):
        model = HFModel(transformers.AutoModelForCausalLM.from_config(config), tokenizer, name="slides")
        assert "Sliding" in model.unsupported
        assert len(answer(model, model.text.ids(CHAT, opening=True), tokens=4)[1]) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mamba about its missing kernels
        recurrent = transformers.MambaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2)
        made = transformers.AutoModelForCausalLM.from_config(recurrent)
    assert HFModel(made, tokenizer, name="recurs").unsupported != ""


def test_an_answer_ends_where_it_should() -> None:
    """At the limit, at the model's own end, at a stop sign, at the deadline; and a chat that is too long is
    refused before anything is computed."""
    model = tiny_model()
    ids = model.text.ids(CHAT, opening=True)
    text, tokens = answer(model, ids)
    assert len(tokens) == 16
    stopped = model.answer(ids, max_tokens=16, sampling=GREEDY, timeout_s=60, stop=[text[3:5]])
    assert "".join(stopped) == text[: text.index(text[3:5])]
    assert stopped.finish_reason == "stop"
    model._stops = frozenset({tokens[4]})
    ended = model.answer(ids, max_tokens=16, sampling=GREEDY, timeout_s=60)
    list(ended)
    assert (ended.finish_reason, ended.tokens_out) == ("stop", tokens.index(tokens[4]) + 1)
    model._stops = frozenset()
    with pytest.raises(ModelUnavailable, match="not finished"):
        answer(model, ids, timeout_s=0.0)
    short = tiny_model(shape=TinyShape(tokens_max=20))
    with pytest.raises(ModelRefused, match="more than the 20"):
        short.answer(ids, max_tokens=4, sampling=GREEDY, timeout_s=60)
    assert model.answer(ids, max_tokens=4, sampling=GREEDY, timeout_s=60).tokens_out == 0


def test_sampling_draws_and_repeats_with_a_seed() -> None:
    """One seed gives one answer, others give others; a tiny nucleus is the likeliest token."""
    model = tiny_model()
    ids = model.text.ids(CHAT, opening=True)
    drawn = [answer(model, ids, sampling=Sampling(1.0, None, seed))[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert answer(model, ids, sampling=Sampling(1.0, 1e-9, 5)) == answer(model, ids)
    assert answer(model, ids, sampling=Sampling(0.0, 0.5)) == answer(model, ids)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot load"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot load"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
    ],
)
def test_what_is_no_chat_model_is_refused(tmp_path: Path, spoil: Any, why: str) -> None:
    """A folder that lacks what a chat model has is an error that says what."""
    folder = write_tiny_model(tmp_path / "model")
    spoil(folder)
    with pytest.raises(ModelUnavailable, match=why):
        HFModel.load(folder)


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    """A checkpoint with nothing but a pickle of weights is refused, and the pickle is not opened."""
    folder = write_tiny_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (trap,))

    torch.save({"model.embed_tokens.weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable):
        HFModel.load(folder)
    assert not trap.exists()
