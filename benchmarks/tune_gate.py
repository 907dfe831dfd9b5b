"""Fits the gate of recall: `python -m benchmarks.tune_gate DIR [--write]`.

The gate leaves recall out when working memory suffices (`memos.mem_scheduler.monitors.intent`). Its three
numbers are chosen on six conversations, those that skip most at a miss of at most `MISS_AIM` on the mix, and
measured on the seventh, whose weights of recall were fitted without it as well. The cases come from one run of
`recall_turns` with the loosest gate, so a stream's later questions may meet a working memory that a stricter
gate would have replaced; `benchmarks.recall` runs every fold with its own gate and is what is quoted.
`--write` stores the folds for `memos.evaluation`; the defaults are the choice over all conversations.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from itertools import product
from pathlib import Path

from benchmarks import recall_turns
from benchmarks.recall_turns import Case
from memos.evaluation import locomo
from memos.evaluation.systems import PublicPath
from memos.runtime import build
from memos.settings import RecallSettings, SchedulerSettings, Settings

MISS_AIM = 0.045  # under the bar of 0.05, since a choice always fits its own cases a little too well
TERMS = (4, 5)  # more, and hardly any query is ever answered by one memory that speaks of all of it
SPREADS = tuple(round(0.8 + 0.05 * step, 2) for step in range(30))
MARGINS = (0.0, 0.25, 0.5, 0.75, 1.0)

Gate = locomo.FoldGate


def passes(case: Case, gate: Gate) -> bool:
    """Whether the gate skips the recall of a case that the loosest one skipped."""
    if not case.skipped:
        return False
    if not case.repeated:
        return case.terms >= gate.terms_min
    return case.lead >= gate.spread_min + (gate.several_margin if case.several else 0.0)


def rates(cases: Sequence[Case], gate: Gate) -> tuple[float, float]:
    """(skipped where it may be, skipped where it may not be)."""
    positive = [passes(case, gate) for case in cases if case.positive]
    negative = [passes(case, gate) for case in cases if not case.positive]
    return sum(positive) / max(1, len(positive)), sum(negative) / max(1, len(negative))


def choose(cases: Sequence[Case]) -> Gate:
    """The gate that skips most within the aim; of equals the one that trusts a single memory soonest."""
    best, reached = Gate(max(TERMS), max(SPREADS), max(MARGINS)), -1.0
    for terms, spread, margin in product(TERMS, SPREADS, MARGINS):
        gate = Gate(terms, spread, margin)
        skip, miss = rates(cases, gate)
        if miss <= MISS_AIM and skip > reached + 1e-9:
            best, reached = gate, skip
    return best


def collect(folder: Path) -> list[Case]:
    """The cases of all conversations, each with the weights that were fitted without it."""
    cases: list[Case] = []
    loosest = SchedulerSettings(gate_terms_min=min(TERMS), gate_spread_min=0.0, gate_several_margin=0.0)
    for conversation in locomo.load(folder):
        recall = RecallSettings(weights=asdict(locomo.fold_weights(conversation.name)))
        with tempfile.TemporaryDirectory(prefix="memos-gate-") as home:
            settings = Settings(home=Path(home), recall=recall, scheduler=loosest)
            with build(settings, start=True) as runtime:
                system = PublicPath(runtime)
                for turns in conversation.sessions:
                    system.add(conversation.name, turns)
                cases += recall_turns.measure(runtime, [conversation], on_progress=print).cases
    return cases


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder of the conversations")
    parser.add_argument("--write", action="store_true", help="store the folds for `memos.evaluation`")
    given = parser.parse_args()
    cases = collect(given.folder)
    folds = {}
    kept = []
    for name in dict.fromkeys(case.conversation for case in cases):
        folds[name] = choose([case for case in cases if case.conversation != name])
        own = [case for case in cases if case.conversation == name]
        kept += [(case.positive, passes(case, folds[name])) for case in own]
        print(
            f"{name}: {folds[name]}, skip {rates(own, folds[name])[0]:.3f} miss {rates(own, folds[name])[1]:.3f}"
        )
    skip = [passed for positive, passed in kept if positive]
    miss = [passed for positive, passed in kept if not positive]
    print(f"cross-validated: skip {sum(skip) / len(skip):.3f} miss {sum(miss) / len(miss):.3f}")
    everything = choose(cases)
    print(f"all conversations: {everything}, skip and miss {rates(cases, everything)}")
    if given.write:
        target = Path(str(resources.files("memos.evaluation").joinpath(locomo.GATES)))
        text = json.dumps({name: asdict(gate) for name, gate in folds.items()}, indent=1)
        target.write_text(text + "\n", encoding="utf-8")
        print(f"written to {target}")


if __name__ == "__main__":
    main()
