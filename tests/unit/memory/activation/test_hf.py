"""Activation memory with tensors: the same answers, less to compute, nothing that does not belong."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.torch_there import torch_or_skip

torch_or_skip()

import torch
import transformers

from memos.errors import ActivationMiss, ActivationUnsupported
from memos.memory.activation.base import Entry, Handle, Layout, MissReason, Response, Suffix
from memos.memory.activation.files import Room
from memos.memory.activation.hf import HFActivation
from memos.memory.activation.manifest import to_json
from memos.memory.activation.segment import KINDS, Kind
from memos.models.base import ChatMessage
from memos.models.hf.model import HFModel
from memos.models.hf.sampling import Sampling
from memos.testing import ManualClock
from memos.testing_model import Family, TinyShape, tiny_model

SPACE = "ab" * 16
HEADER = "You are a kind assistant with a memory.\nWhat you remember:\n"
QUESTION = (ChatMessage("user", "What do you know of Ann?"),)
FACTS = [
    f"Fact {n}: on day {n} Ann told that her {n}. wish is a house near lake number {n * 7}."
    for n in range(12)
]


@pytest.fixture(scope="module")
def model() -> HFModel:
    return tiny_model(seed=5)


def layout(facts: Sequence[int], space: str = SPACE, header: str = HEADER) -> Layout:
    """A block of these facts."""
    return Layout(space, header, tuple(Entry(f"m{n}", 1, f"- {FACTS[n]}\n") for n in facts))


def said(backend: HFActivation, handle: Handle, wanted: Layout, tokens: int = 8) -> tuple[str, Response]:
    """An answer on a prefix."""
    generation = backend.generate(handle, Suffix(wanted, QUESTION, max_tokens=tokens))
    text = "".join(generation)
    return text, generation.response


def plain(model: HFModel, wanted: Layout, tokens: int = 8) -> str:
    """The same answer without any prefix."""
    ids = model.text.ids(Suffix(wanted, QUESTION).chat, opening=True)
    return "".join(model.answer(ids, max_tokens=tokens, sampling=Sampling(), timeout_s=60))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_answers_are_those_of_the_whole_prompt(tmp_path: Path, family: Family) -> None:
    """Prepared, read from the file by another process's object, and hot: the same words as without a prefix,
    and the response says what was reused."""
    model = tiny_model(family, seed=1)
    handle = HFActivation(model, tmp_path, kind="fp32").prepare(layout(range(12)))
    assert handle.tokens == handle.ends[-1] > 300
    backend = HFActivation(tiny_model(family, seed=1), tmp_path, kind="fp32")
    expected = plain(model, layout(range(12)))
    for _ in range(2):
        text, response = said(backend, handle, layout(range(12)))
        assert text == expected
        assert backend.reused_tokens(response).tokens == handle.tokens
        assert response.reason == MissReason.NONE
        assert response.tokens_in > handle.tokens


@pytest.mark.parametrize("kind", KINDS)
def test_every_storage_keeps_the_answer(tmp_path: Path, kind: Kind) -> None:
    """Logits behind a kept prefix are those of the whole prompt (float32 storage: within 1e-5, others within
    the error of their rounding), and 32 of 32 greedy tokens are the same."""
    model = tiny_model("qwen3", seed=4, shape=TinyShape(layers=4, width=128, heads=8, kv_heads=4))
    wanted = layout(range(12))
    backend = HFActivation(model, tmp_path, kind=kind)
    handle = backend.prepare(wanted)
    ids = model.text.ids(Suffix(wanted, QUESTION).chat, opening=True)
    found = backend._find(SPACE, ids, _cuts(handle))
    assert found.past is not None
    whole, _ = model.read(ids)
    kept, _ = model.read(ids[found.tokens :], found.past)
    error = float((whole - kept).abs().max() / whole.abs().max())
    assert error <= {"fp32": 1e-5, "bf16": 5e-3, "int8": 1e-2}[kind]
    with_, without = (
        model.answer(ids, past=past, max_tokens=32, sampling=Sampling(), timeout_s=60)
        for past in (found.past, None)
    )
    assert list(with_) == list(without)
    assert with_.ids == without.ids
    assert len(set(with_.ids)) > 2  # a model that always says the same would prove nothing


def _cuts(handle: Handle) -> tuple[int, ...]:
    from memos.memory.activation.manifest import cuts_of

    return cuts_of(handle.ends)


def test_fifty_chats_leave_the_prefix_as_it_was(tmp_path: Path, model: HFModel) -> None:
    """What is kept neither grows nor changes, in files and in memory, however often it is used."""
    backend = HFActivation(model, tmp_path)
    handle = backend.prepare(layout(range(6)))
    _, first = said(backend, handle, layout(range(6)), tokens=2)
    files = {path.name: path.read_bytes() for path in tmp_path.rglob("seg-*")}
    (hot,) = backend._hot._kept.values()
    before = hot.keys.clone()
    for _ in range(50):
        _, response = said(backend, handle, layout(range(6)), tokens=2)
        assert response.tokens_cached == first.tokens_cached == handle.tokens
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("seg-*")} == files
    (hot,) = backend._hot._kept.values()
    assert hot.tokens == handle.tokens
    assert torch.equal(hot.keys, before)


def test_an_update_writes_its_tail(tmp_path: Path, model: HFModel) -> None:
    """An entry that goes and one that comes: the beginning's files stay, the answer is that of the new block,
    and dropping the old prefix removes every trace of the entry that went."""
    backend = HFActivation(model, tmp_path, kind="fp32")
    old, new = layout(range(8)), layout([0, 1, 2, 3, 4, 6, 7, 8])
    handle = backend.prepare(old)
    before = {path.name for path in tmp_path.rglob("seg-*")}
    assert said(backend, handle, new)[0] == plain(model, new)  # on the old prefix, as far as it goes
    ids = model.text.beginning(new.parts).ids
    keep = handle.ends[5]
    extended = backend.extend(handle, keep, ids[keep:], layout=new)
    assert said(backend, extended, new)[0] == plain(model, new)
    after = {path.name for path in tmp_path.rglob("seg-*")}
    assert len(before & after) == len(before)
    assert 0 < len(after - before) <= 4
    again = HFActivation(model, tmp_path, kind="fp32").prepare(new)
    assert again == extended
    assert backend.drop(handle) > 0
    left = {path.name for path in tmp_path.rglob("seg-*")}
    assert len(left) == len(_cuts(extended))
    gone = model.text.ids((ChatMessage("user", FACTS[5]),), opening=False)[4:20]
    for proof in backend.files.manifest(SPACE).segments.values():
        kept = backend.files.read(SPACE, proof).ids.tolist()
        assert not any(tuple(kept[at : at + 16]) == gone for at in range(len(kept)))
    assert said(backend, extended, new)[1].tokens_cached == extended.tokens
    assert backend.drop_namespace(SPACE) > 0
    assert list(tmp_path.rglob("seg-*")) == []
    with pytest.raises(ActivationMiss) as caught:
        backend.generate(extended, Suffix(new, QUESTION))
    assert caught.value.reason == MissReason.MISSING


def test_reuse_ends_where_the_chat_parts(tmp_path: Path, model: HFModel) -> None:
    """On an older prefix what both begin with is used and the reason is told; nothing in common is a miss."""
    backend = HFActivation(model, tmp_path)
    handle = backend.prepare(layout(range(8)))
    _, response = said(backend, handle, layout([0, 1, 2, 3, 9, 10]))
    assert response.reason == MissReason.INVALIDATED
    assert 0 < (response.tokens_cached or 0) <= handle.ends[4]
    with pytest.raises(ActivationMiss) as caught:
        backend.generate(handle, Suffix(layout(range(8), header="Another beginning, quite.\n"), QUESTION))
    assert caught.value.reason == MissReason.TOKENS
    with pytest.raises(ActivationMiss) as caught:
        backend.generate(handle, Suffix(layout(range(8), space="cd" * 16), QUESTION))
    assert caught.value.reason == MissReason.TOKENS
    with pytest.raises(ActivationMiss) as caught:
        backend.extend(handle, 10, [1, 2, 3], layout=layout(range(8)))
    assert caught.value.reason == MissReason.TOKENS


def test_another_models_prefix_is_refused(tmp_path: Path, model: HFModel) -> None:
    """A checkpoint of the same architecture with other weights is given nothing, by handle or by file."""
    mine, other = HFActivation(model, tmp_path), HFActivation(tiny_model(seed=6), tmp_path)
    handle = mine.prepare(layout(range(8)))
    for refused in (
        lambda: other.generate(handle, Suffix(layout(range(8)), QUESTION)),
        lambda: other.extend(handle, 10, [1], layout=layout(range(8))),
    ):
        with pytest.raises(ActivationMiss) as caught:
            refused()
        assert caught.value.reason == MissReason.FINGERPRINT
    assert other.drop(handle) == 0
    theirs = other.prepare(layout(range(8)))
    for folder in (mine.files.folder(SPACE), other.files.folder(SPACE)):
        assert folder.is_dir()
    shutil.rmtree(other.files.folder(SPACE))
    shutil.copytree(mine.files.folder(SPACE), other.files.folder(SPACE))
    with pytest.raises(ActivationMiss) as caught:
        other.generate(theirs, Suffix(layout(range(8)), QUESTION))
    assert caught.value.reason == MissReason.FINGERPRINT


def test_no_room_is_made_for_what_a_manifest_claims(tmp_path: Path, model: HFModel) -> None:
    """A manifest that is whole, but tells of more tokens than the prefix has, is a miss: neither the memory for
    them is taken nor the file believed."""
    wanted = layout(range(6))
    backend = HFActivation(model, tmp_path)
    handle = backend.prepare(wanted)
    manifest = backend.files.manifest(SPACE)
    last = manifest.path_to(handle.id)[-1]
    lies = {**manifest.segments, last.chain: replace(last, tokens=10**15)}
    (backend.files.folder(SPACE) / "manifest.json").write_bytes(to_json(replace(manifest, segments=lies)))
    text, response = said(HFActivation(model, tmp_path), handle, wanted)
    assert (text, response.reason) == (plain(model, wanted), MissReason.DAMAGED)
    assert response.tokens_cached == last.start


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "reasons"),
    [
        (_flip, {MissReason.DAMAGED}),
        (lambda path: os.truncate(path, path.stat().st_size // 2), {MissReason.DAMAGED}),
        (lambda path: path.write_bytes(pickle.dumps({"kv": [1.0] * 999})), {MissReason.FORMAT}),
        (lambda path: path.unlink(), {MissReason.MISSING}),
    ],
)
def test_a_refused_file_costs_time_not_the_answer(
    tmp_path: Path, model: HFModel, spoil: Callable[[Path], object], reasons: set[MissReason]
) -> None:
    """Each segment in turn edited, cut, replaced by a pickle or removed: what stands before it is used, the
    reason is told, the answer is the same, and the next build mends it."""
    wanted = layout(range(6))
    backend = HFActivation(model, tmp_path, kind="fp32")
    handle = backend.prepare(wanted)
    expected = plain(model, wanted)
    path_of = backend.files.manifest(SPACE).path_to(handle.id)
    for place, proof in enumerate(path_of):
        spoil(backend.files.folder(SPACE) / f"seg-{proof.chain}.safetensors")
        fresh = HFActivation(model, tmp_path, kind="fp32")
        suffix = Suffix(wanted, QUESTION, max_tokens=8)
        if place == 0:
            with pytest.raises(ActivationMiss) as caught:
                fresh.generate(handle, suffix)
            assert caught.value.reason in reasons
        else:
            generation = fresh.generate(handle, suffix)
            assert "".join(generation) == expected
            assert generation.response.reason in reasons
            assert generation.response.tokens_cached == proof.start
        assert fresh.prepare(wanted) == handle
        text, response = said(HFActivation(model, tmp_path, kind="fp32"), handle, wanted)
        assert (text, response.tokens_cached) == (expected, handle.tokens)


def test_evicted_tails_say_so(tmp_path: Path, model: HFModel) -> None:
    """When room is short the beginning of an unused prefix may be left; its answers say `evicted`."""
    probe = HFActivation(model, tmp_path / "probe")
    size = probe.prepare(layout(range(8))).bytes
    backend = HFActivation(model, tmp_path / "real", room=Room(bytes_max=size + size // 2))
    first = backend.prepare(layout(range(8)))
    backend.prepare(layout(range(8), space="cd" * 16))
    text, response = said(backend, first, layout(range(8)))
    assert text == plain(model, layout(range(8)))
    assert response.reason == MissReason.EVICTED
    assert 0 < (response.tokens_cached or 0) < first.tokens
    assert backend.files.size() <= size + size // 2


def test_what_memory_holds_is_bounded_and_follows_the_files(tmp_path: Path, model: HFModel) -> None:
    """Tensors at hand stay within their bytes, and none is served that another process has removed."""
    backend = HFActivation(model, tmp_path, hot_bytes_max=300_000)
    for start in range(6):
        wanted = layout(range(start, start + 6))
        said(backend, backend.prepare(wanted), wanted)
    assert 0 < sum(past.bytes for past in backend._hot._kept.values()) <= 300_000
    handle = backend.prepare(layout(range(6)))
    said(backend, handle, layout(range(6)))
    HFActivation(model, tmp_path).drop_namespace(SPACE)
    with pytest.raises(ActivationMiss):
        backend.generate(handle, Suffix(layout(range(6)), QUESTION))
    assert not backend._hot._kept


def test_chats_at_once_do_not_disturb_each_other(tmp_path: Path, model: HFModel) -> None:
    """Answers, updates and deletions in several threads: every answer is that of its own block."""
    backend = HFActivation(model, tmp_path, kind="fp32")
    blocks = [layout(range(n, n + 5)) for n in range(3)]
    expected = [plain(model, block, 4) for block in blocks]
    faults: list[str] = []

    def chats(which: int) -> None:
        for _ in range(6):
            try:
                handle = backend.prepare(blocks[which])
                if said(backend, handle, blocks[which], 4)[0] != expected[which]:
                    faults.append(f"block {which} was answered otherwise")
                if which == 2:
                    backend.drop(handle)
            except ActivationMiss as miss:
                if which != 2 and miss.reason not in (MissReason.MISSING, MissReason.EVICTED):
                    faults.append(str(miss))

    threads = [threading.Thread(target=chats, args=(which,)) for which in (0, 1, 2, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_model_that_forgets_says_why(tmp_path: Path) -> None:
    """A sliding window is refused with its reason, and nothing is written."""
    tokenizer = tiny_model()._tokenizer
    config = transformers.MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
    )
    made = transformers.AutoModelForCausalLM.from_config(config)
    backend = HFActivation(HFModel(made, tokenizer, name="slides"), tmp_path)
    assert not backend.capabilities().builds
    with pytest.raises(ActivationUnsupported, match="SlidingWindow"):
        backend.prepare(layout(range(3)))
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_strips_still_extends(tmp_path: Path) -> None:
    """With such a template, too, a longer block keeps all but the last entry, and answers agree."""
    model = tiny_model(seed=5, strips=True)
    backend = HFActivation(model, tmp_path, kind="fp32")
    handle = backend.prepare(layout(range(6)))
    grown = layout(range(8))
    assert said(backend, handle, grown)[0] == plain(model, grown)
    longer = backend.prepare(grown)
    text, response = said(backend, longer, grown)
    assert (text, response.tokens_cached) == (plain(model, grown), longer.tokens)


def test_what_is_answered_out_of_memory_counts_as_used(tmp_path: Path, model: HFModel) -> None:
    """A prefix that every chat finds at hand is not the one that eviction takes, nor does it grow old: one that
    nobody asked for goes first."""
    clock = ManualClock()
    spaces = ["aa" * 16, "bb" * 16, "cc" * 16]
    size = HFActivation(model, tmp_path / "probe").prepare(layout(range(8))).bytes
    room = Room(bytes_max=int(2.5 * size), ttl_s=100)
    backend = HFActivation(model, tmp_path / "real", room=room, clock=clock)
    used = backend.prepare(layout(range(8), spaces[0]))
    said(backend, used, layout(range(8), spaces[0]), tokens=1)
    clock.advance(10)
    unused = backend.prepare(layout(range(8), spaces[1]))
    for _ in range(2):
        clock.advance(60)
        _, response = said(backend, used, layout(range(8), spaces[0]), tokens=1)
        assert response.tokens_cached == used.tokens
    restarted = HFActivation(model, tmp_path / "real", room=room, clock=clock)
    assert said(restarted, used, layout(range(8), spaces[0]), tokens=1)[1].tokens_cached == used.tokens
    with pytest.raises(ActivationMiss):
        said(restarted, unused, layout(range(8), spaces[1]), tokens=1)
    clock.advance(1)
    restarted.prepare(layout(range(8), spaces[1]))
    said(backend, used, layout(range(8), spaces[0]), tokens=1)
    clock.advance(1)
    said(backend, used, layout(range(8), spaces[0]), tokens=1)
    restarted.prepare(layout(range(8), spaces[2]))
    assert said(restarted, used, layout(range(8), spaces[0]), tokens=1)[1].tokens_cached == used.tokens
