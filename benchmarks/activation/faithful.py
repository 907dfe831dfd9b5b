"""Whether a kept prefix changes an answer, whether anything that does not belong is used, whether it grows."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path

from benchmarks.activation.models import block, model_of, question
from benchmarks.report import Bar, Row
from memos.errors import ActivationMiss
from memos.memory.activation.base import Handle, Layout, MissReason, Suffix
from memos.memory.activation.hf import HFActivation
from memos.memory.activation.segment import KINDS, Kind
from memos.models.hf.model import HFModel, Past
from memos.models.hf.sampling import Sampling

GREEDY_TOKENS = 32
CHATS = 50
TOKENS = 1_024
QUICK_TOKENS = 512


def equality_rows(root: Path, *, quick: bool) -> list[Row]:
    """fp32: the largest difference of a logit; every kind: greedy tokens that agree, the worst model."""
    names = ("tiny",) if quick else ("tiny", "small")
    agreed: dict[Kind, int] = {}
    error: dict[Kind, float] = {}
    for name in names:
        model = model_of(name)
        layout = block(model, QUICK_TOKENS if quick else TOKENS)
        ids = model.text.ids(Suffix(layout, tuple(question(model))).chat, opening=True)
        whole, _ = model.read(ids)
        plain = _greedy(model, ids, None)
        for kind in KINDS:
            backend = HFActivation(model, root / f"{name}-{kind}", kind=kind)
            past = backend.kept(backend.prepare(layout))
            assert past is not None
            logits, _ = model.read(ids[past.tokens :], past)
            far = float((whole - logits).abs().max())
            error[kind] = max(error.get(kind, 0.0), far if kind == "fp32" else far / float(whole.abs().max()))
            same = sum(one == other for one, other in zip(plain, _greedy(model, ids, past), strict=True))
            agreed[kind] = min(agreed.get(kind, GREEDY_TOKENS), same)
    on = ", ".join(names)
    found = [Row("equality_fp32", Bar("<=", 1e-5), error["fp32"], "logit", on)]
    for kind in KINDS:
        said = on if kind == "fp32" else f"{on}; logits within {error[kind]:.1e} of the largest"
        found.append(
            Row(f"equality_{kind}_greedy", Bar(">=", GREEDY_TOKENS), agreed[kind], "of 32 tokens", said)
        )
    return found


def _greedy(model: HFModel, ids: tuple[int, ...], past: Past | None) -> list[int]:
    answer = model.answer(ids, past=past, max_tokens=GREEDY_TOKENS, sampling=Sampling(), timeout_s=600)
    for _ in answer:
        pass
    return answer.ids


def refuse_row(root: Path) -> Row:
    """Every trial spoils what is kept in one way; it counts when nothing spoilt is used, a reason is told and
    the chat is answered as without a prefix."""
    model, foreign = model_of("tiny", seed=1), model_of("tiny", seed=2)
    layout = block(model, QUICK_TOKENS)
    suffix = Suffix(layout, tuple(question(model)), max_tokens=4)
    expected = _plain(model, suffix)
    backend = HFActivation(model, root, kind="fp32")
    handle = backend.prepare(layout)
    theirs = HFActivation(foreign, root, kind="fp32").prepare(layout)
    source = random.Random(5)

    def edited(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)
        path.write_bytes(content)

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: source.randrange(path.stat().st_size)])

    def pickled(path: Path) -> None:
        path.write_bytes(pickle.dumps({"kv_cache_memories": {"a": b"x" * source.randrange(4_000)}}))

    def swapped(path: Path) -> None:
        folder = HFActivation(foreign, root).files.folder(layout.namespace)
        path.write_bytes(source.choice(sorted(folder.glob("seg-*"))).read_bytes())

    trials, refused = 0, 0
    for spoil in (edited, cut, pickled, swapped):
        for _ in range(10):
            trials += 1
            refused += _refused(model, root, handle, suffix, layout, spoil, expected, source)
    for _ in range(3):  # another checkpoint's handle
        trials += 1
        try:
            HFActivation(model, root).generate(theirs, suffix)
        except ActivationMiss as miss:
            refused += miss.reason == MissReason.FINGERPRINT
    return Row("refuse", Bar(">=", 1.0), refused / trials, "share", f"{trials} trials of 5 kinds")


def _refused(
    model: HFModel,
    root: Path,
    handle: Handle,
    suffix: Suffix,
    layout: Layout,
    spoil: Callable[[Path], None],
    expected: str,
    source: random.Random,
) -> bool:
    backend = HFActivation(model, root, kind="fp32")
    backend.prepare(layout)  # mends what the trial before spoilt
    path = backend.files.manifest(layout.namespace).path_to(handle.id)
    victim = source.choice(path)
    spoil(backend.files.folder(layout.namespace) / f"seg-{victim.chain}.safetensors")
    backend = HFActivation(model, root, kind="fp32")  # one that has nothing at hand: it has to read
    try:
        generation = backend.generate(handle, suffix)
        said = "".join(generation)
        used, reason = generation.response.tokens_cached or 0, generation.response.reason
    except ActivationMiss as miss:
        said, used, reason = _plain(model, suffix), 0, MissReason(miss.reason)
    told = reason in (MissReason.DAMAGED, MissReason.FORMAT, MissReason.FINGERPRINT)
    return told and used <= victim.start and said == expected


def _plain(model: HFModel, suffix: Suffix) -> str:
    ids = model.text.ids(suffix.chat, opening=True)
    return "".join(model.answer(ids, max_tokens=4, sampling=Sampling(), timeout_s=600))


def immutable_row(root: Path) -> Row:
    """Tokens by which the kept prefix has grown after 50 chats."""
    model = model_of("tiny")
    layout = block(model, QUICK_TOKENS)
    backend = HFActivation(model, root)
    handle = backend.prepare(layout)
    suffix = Suffix(layout, tuple(question(model)), max_tokens=4)
    for _ in range(CHATS):
        for _ in backend.generate(handle, suffix):
            pass
    kept = [backend.kept(handle), HFActivation(model, root).kept(handle)]
    grown = max(past.tokens if past is not None else 10**6 for past in kept) - handle.tokens
    return Row("immutable", Bar("<=", 0), grown, "tokens", f"after {CHATS} chats, in memory and in files")
