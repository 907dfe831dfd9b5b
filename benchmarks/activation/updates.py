"""What an update of the working set leaves standing, writes and computes.

The reuse rows are the layout's own simulation; bytes and time are those of a model: 20 memories of about 70
tokens, one of them replaced by each update, the young leaving first and 30 % of the newcomers coming back,
in the order that the layout plans. As in production an update extends where 30 % can be kept, else rebuilds.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, median

from benchmarks.activation.models import HEADER, MEMORY_TOKENS, NAMESPACE, model_of, sentence
from benchmarks.report import Bar, Row
from memos.memory.activation.base import Entry, Handle, Layout
from memos.memory.activation.hf import REUSE_MIN, HFActivation
from memos.memory.activation.layout import LayoutState, Plan, Wanted, digest_of, plan
from memos.memory.activation.simulate import LEAVING_RATIO, REMEMBERED_MAX, RETURN_SHARE, simulate
from memos.models.hf.model import HFModel

SEED = 11
MEMORIES = 20
WARM_UP = 30
UPDATES = 60


def reuse_rows() -> list[Row]:
    """The share of tokens that need not be read again, over 400 updates."""
    found = []
    for name, churn, changes, bar in (
        ("reuse_1_reranked", "reranked", 1, 0.72),
        ("reuse_1_young", "young", 1, 0.84),
        ("reuse_3_reranked", "reranked", 3, 0.37),
        ("reuse_3_young", "young", 3, 0.60),
    ):
        done = simulate(churn, changes, updates=400, memories=MEMORIES, tokens=MEMORY_TOKENS, seed=SEED)
        ranked = simulate(churn, changes, updates=400, memories=MEMORIES, policy="rank", seed=SEED)
        said = f"prefix {done.length_mean - 1:.0%} longer; in order of rank {ranked.reuse_mean:.2f}"
        found.append(Row(name, Bar(">=", bar), done.reuse_mean, "share", said))
    return found


def model_rows(root: Path, *, quick: bool) -> list[Row]:
    """bytes_tail and extend_rebuild."""
    if quick:
        said = "left out by --quick"
        return [
            Row("bytes_tail", Bar("<=", 0.25), None, "of the file", said),
            Row("extend_rebuild", Bar("<=", 0.40), None, "CPU time", said),
        ]
    model = model_of("tiny")
    kept = HFActivation(model, root / "kept")
    shares, ratios, extended = [], [], 0
    handle: Handle | None = None
    for number, (step, layout) in enumerate(_updates(model, WARM_UP + UPDATES)):
        if number < WARM_UP:
            continue
        if handle is None:
            handle = kept.prepare(layout)
            continue
        before = _sizes(kept)
        started = time.process_time()
        if step.reuse >= REUSE_MIN:
            ids = model.text.beginning(layout.parts).ids
            keep = handle.ends[step.kept]
            newer = kept.extend(handle, keep, ids[keep:], layout=layout)
            extended += 1
        else:
            newer = kept.prepare(layout)
        spent = time.process_time() - started
        written = sum(size for name, size in _sizes(kept).items() if name not in before)
        shares.append(written / newer.bytes)
        ratios.append(spent / _rebuilt(model, layout, root / "rebuilt"))
        kept.drop(handle)
        handle = newer
    said = f"{len(shares)} updates, {extended} extended"
    return [
        Row(
            "bytes_tail",
            Bar("<=", 0.25),
            fmean(shares),
            "of the file",
            f"median {median(shares):.2f}; {said}",
        ),
        Row(
            "extend_rebuild",
            Bar("<=", 0.40),
            fmean(ratios),
            "CPU time",
            f"median {median(ratios):.2f}; {said}",
        ),
    ]


def _rebuilt(model: HFModel, layout: Layout, root: Path) -> float:
    """Seconds of CPU for the whole prefix, written to an empty folder."""
    shutil.rmtree(root, ignore_errors=True)
    backend = HFActivation(model, root)
    started = time.process_time()
    backend.prepare(layout)
    return time.process_time() - started


def _sizes(backend: HFActivation) -> dict[str, int]:
    return {proof.chain: proof.bytes for proof in backend.files.opened(NAMESPACE).segments.values()}


def _updates(model: HFModel, count: int) -> Iterator[tuple[Plan, Layout]]:
    """The block after each update, as the layout plans it."""
    source = random.Random(SEED)
    lines: dict[str, str] = {}

    def made() -> Wanted:
        name = f"item-{len(lines)}"
        spread = MEMORY_TOKENS // 4
        lines[name] = sentence(model, MEMORY_TOKENS + source.randint(-spread, spread), source)
        tokens = len(model.text.beginning((f"{lines[name]}\n",)).ids)
        return Wanted(name, 1, tokens, digest_of(lines[name]))

    working = [made() for _ in range(MEMORIES)]
    gone: list[Wanted] = []
    state = plan(LayoutState(), working, standing={}).state
    for _ in range(count):
        weights = [LEAVING_RATIO**age for age in range(len(working))]
        victim = source.choices(working[::-1], weights)[0]
        working.remove(victim)
        if source.random() < RETURN_SHARE and gone:
            working.append(gone.pop(source.randrange(len(gone))))
        else:
            working.append(made())
        gone = [*gone, victim][-REMEMBERED_MAX:]
        standing = {one.item_id: one.digest for one in state.residents}
        step = plan(state, working, standing=standing)
        state = step.state
        entries = tuple(
            Entry(one.item_id, one.version, f"- m{one.mark} {lines[one.item_id]}\n")
            for one in state.residents
        )
        yield step, Layout(NAMESPACE, HEADER, entries)
