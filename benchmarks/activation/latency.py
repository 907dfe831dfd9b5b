"""Time to the first token: the whole prompt, the prefix out of its files, the prefix at hand.

Process CPU time with one thread of torch, through the path that a chat takes: render, tokenise, compare, read
the files and check every byte, compute the rest, decode the first token. Rounds are interleaved; medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.activation.models import block, model_of, question
from benchmarks.report import Bar, Row
from memos.memory.activation.base import Handle, Layout, Suffix
from memos.memory.activation.hf import HFActivation
from memos.memory.activation.segment import Kind
from memos.models.hf.chat import HFChat
from memos.models.hf.model import HFModel

ROUNDS = 7


class Measured:
    """One model, one block, one storage: what its chats cost."""

    def __init__(self, model: HFModel, layout: Layout, root: Path, *, kind: Kind = "bf16") -> None:
        self.model = model
        self.root = root
        self.kind: Kind = kind
        self.suffix = Suffix(layout, tuple(question(model)), max_tokens=1)
        self.handle: Handle = self.backend().prepare(layout)
        self.ids = model.text.beginning(layout.parts).ids
        self._hot = self.backend()
        self._fresh = self.backend()
        self.warm()

    def backend(self) -> HFActivation:
        """One that holds nothing in memory, as after a restart; its folder is opened."""
        opened = HFActivation(self.model, self.root, kind=self.kind)
        assert opened.files.size() >= 0
        return opened

    def restart(self) -> None:
        """Before `cold` and `load`, not measured."""
        self._fresh = self.backend()

    def full(self) -> None:
        """The whole prompt is read."""
        for _ in HFChat(self.model).stream(self.suffix.chat, max_tokens=1):
            pass

    def cold(self) -> None:
        """The prefix comes out of its files."""
        for _ in self._fresh.generate(self.handle, self.suffix):
            pass

    def warm(self) -> None:
        """The prefix is at hand."""
        for _ in self._hot.generate(self.handle, self.suffix):
            pass

    def load(self) -> None:
        """The files to tensors, nothing computed."""
        backend = self._fresh
        manifest = backend.files.manifest(self.handle.layout.namespace)
        past = backend.loaded(self.handle.layout.namespace, manifest.path_to(self.handle.id))
        assert past.tokens == self.handle.tokens

    def recompute(self) -> None:
        """What loading replaces."""
        self.model.read(self.ids)


def interleaved(
    calls: dict[str, Callable[[], None]], before: Callable[[], None], rounds: int = ROUNDS
) -> dict[str, float]:
    """Median seconds of CPU of each; `before` runs ahead of each call, unmeasured."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        before()
        call()  # once for nothing: allocations, caches of the machine
    for _ in range(rounds):
        for name, call in calls.items():
            before()
            started = time.process_time()
            call()
            spent[name].append(time.process_time() - started)
    return {name: median(values) for name, values in spent.items()}


def rows(root: Path, *, quick: bool) -> list[Row]:
    """ttft_*, load_recompute, cold_warm, and the same of the larger model and other storages."""
    bars = {1_024: 0.25, 2_048: 0.15, 4_096: 0.10}
    tiny = model_of("tiny")
    found: list[Row] = []
    ratios: list[tuple[str, float]] = []
    warmth: list[tuple[str, float]] = []
    for tokens, bar in bars.items():
        name = f"ttft_{tokens // 1_024}k"
        if quick and tokens > 1_024:
            found.append(Row(name, Bar("<=", bar), None, "cold / full", "left out by --quick"))
            continue
        spent = _spent(tiny, root / name, tokens)
        found.append(Row(name, Bar("<=", bar), spent["cold"] / spent["full"], "cold / full", _said(spent)))
        ratios.append((name, spent["load"] / spent["recompute"]))
        warmth.append((name, spent["cold"] / spent["warm"]))
    for name, kind in (("ttft_2k_fp32", "fp32"), ("ttft_2k_int8", "int8")):
        found.append(_further(name, tiny, root, 2_048, kind, quick=quick))
    if quick:
        found.append(Row("ttft_2k_small", None, None, "cold / full", "left out by --quick"))
    else:
        small = model_of("small")
        found.append(_further("ttft_2k_small", small, root, 2_048, "bf16", quick=False, rounds=3))
    worst, most = max(ratios, key=lambda pair: pair[1]), max(warmth, key=lambda pair: pair[1])
    by_length = ", ".join(f"{name[5:]} 1/{1 / ratio:.0f}" for name, ratio in ratios)
    found.append(Row("load_recompute", Bar("<=", 1 / 50), worst[1], "share", by_length))
    found.append(
        Row("cold_warm", Bar("<=", 1.3), most[1], "x", ", ".join(f"{n[5:]} {r:.2f}" for n, r in warmth))
    )
    return found


def _spent(
    model: HFModel, root: Path, tokens: int, kind: Kind = "bf16", rounds: int = ROUNDS
) -> dict[str, float]:
    one = Measured(model, block(model, tokens), root, kind=kind)
    calls = {
        "full": one.full,
        "cold": one.cold,
        "warm": one.warm,
        "load": one.load,
        "recompute": one.recompute,
    }
    return interleaved(calls, one.restart, rounds)


def _further(
    name: str, model: HFModel, root: Path, tokens: int, kind: Kind, *, quick: bool, rounds: int = ROUNDS
) -> Row:
    if quick:
        return Row(name, None, None, "cold / full", "left out by --quick")
    spent = _spent(model, root / name, tokens, kind, rounds)
    return Row(name, None, spent["cold"] / spent["full"], "cold / full", _said(spent))


def _said(spent: dict[str, float]) -> str:
    return "full {full:.3f} s, cold {cold:.3f}, warm {warm:.3f}; load 1/{load:.0f} of recompute".format(
        full=spent["full"],
        cold=spent["cold"],
        warm=spent["warm"],
        load=spent["recompute"] / spent["load"],
    )
