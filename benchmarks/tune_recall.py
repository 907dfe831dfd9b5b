"""Fits the weights of recall: `python -m benchmarks.tune_recall DIR [--write]`.

Coordinate ascent over a grid, on the mean of recall@5, @10, @20, MRR and nDCG@10 of all questions. Last the one
factor for queries that ask for several things, with recall@10 of the multi-hop questions beside that mean: all in
one, the few multi-hop questions of six conversations lead the other weights astray (measured: r20 .878, MRR .644).
Prints the fit on all conversations measured on the same ones (in-sample), and leave-one-conversation-out
cross-validation: fitted on the others from the same neutral start, measured on the one left out. `--write`
stores the fold weights for `memos eval`; the in-sample weights are the defaults of `RecallWeights`, to
be copied there by hand, rounded. Links, scenario, recency and use stay as they are: these conversations
name few entities again and again, have one scenario and no uses.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path

from benchmarks.recall_sheets import Means, Sheet, pooled, sheets
from memos.evaluation import locomo
from memos.retrieval.weights import RecallWeights

# Round numbers from which every fit starts, so that no fold begins at what all conversations have taught.
START = RecallWeights(
    lexical=1.0,
    dense=1.0,
    links=0.1,
    participant=0.3,
    time=0.3,
    scenario=0.2,
    recency=0.0,
    use=0.0,
    episode=0.5,
    near=0.3,
    far=0.3,
    reply=0.3,
    question=0.3,
    substance=0.1,
    moment=0.3,
    again=0.3,
    walk=0.3,
    several=1.0,
    name_terms=0.5,
    context_floor=0.5,
)
GRID: dict[str, tuple[float, ...]] = {
    "dense": (0.6, 0.8, 1.0, 1.2, 1.4, 1.7),
    "participant": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0),
    "time": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "episode": (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0),
    "near": (0.0, 0.1, 0.2, 0.3, 0.4, 0.6),
    "far": (0.0, 0.1, 0.2, 0.3, 0.4, 0.6),
    "reply": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "question": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7),
    "substance": (0.0, 0.1, 0.2, 0.3, 0.4, 0.6),
    "moment": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9),
    "again": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6),
    "walk": (0.0, 0.2, 0.4, 0.6, 0.8),
    "name_terms": (0.0, 0.1, 0.25, 0.5, 0.75),
    "context_floor": (0.0, 0.3, 0.6, 0.8, 1.0, 1.2, 1.4),
}
SEVERAL = (0.5, 0.6, 0.7, 0.85)  # chosen last, alone
ROUNDS_MAX = 4
GAIN_MIN = 1e-4  # less is noise


class Trials:
    """Measures weights on sheets, each pair once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, RecallWeights], tuple[Means, Means]] = {}

    def measure(self, sheet: Sheet, weights: RecallWeights) -> Means:
        """Of all questions."""
        return self._both(sheet, weights)[0]

    def objective(self, among: Sequence[Sheet], weights: RecallWeights) -> float:
        return pooled([self.measure(sheet, weights) for sheet in among]).mean

    def several_objective(self, among: Sequence[Sheet], weights: RecallWeights) -> float:
        """The same with recall@10 of the multi-hop questions beside it: what `several` is for."""
        multi_hop = pooled([self._both(sheet, weights)[1] for sheet in among])
        return (5 * self.objective(among, weights) + multi_hop.r10) / 6

    def _both(self, sheet: Sheet, weights: RecallWeights) -> tuple[Means, Means]:
        key = (sheet.name, weights)
        if key not in self._known:
            scores = sheet.scores(weights)
            multi_hop = sheet.metrics(scores, category=locomo.CATEGORIES[1])
            self._known[key] = sheet.metrics(scores), multi_hop
        return self._known[key]


def fit(among: Sequence[Sheet], trials: Trials, *, start: RecallWeights = START) -> RecallWeights:
    """The weights that coordinate ascent from `start` ends at."""
    best, reached = start, trials.objective(among, start)
    for _ in range(ROUNDS_MAX):
        before = reached
        for name, values in GRID.items():
            for value in values:
                tried = replace(best, **{name: value})
                objective = trials.objective(among, tried)
                if objective > reached + GAIN_MIN:
                    best, reached = tried, objective
        if reached <= before:
            break
    best, reached = replace(best, several=1.0), trials.several_objective(among, replace(best, several=1.0))
    for value in SEVERAL:
        tried = replace(best, several=value)
        objective = trials.several_objective(among, tried)
        if objective > reached + GAIN_MIN:
            best, reached = tried, objective
    return best


def cross_validate(
    among: Sequence[Sheet], trials: Trials, *, on_progress: Callable[[str], None] = lambda _: None
) -> dict[str, RecallWeights]:
    """For each conversation the weights fitted on the other ones."""
    folds = {}
    for sheet in among:
        folds[sheet.name] = fit([other for other in among if other is not sheet], trials)
        on_progress(f"fitted without {sheet.name}")
    return folds


def _line(label: str, means: Means) -> str:
    return (
        f"{label:28s} r5 {means.r5:.3f}  r10 {means.r10:.3f}  r20 {means.r20:.3f}  "
        f"mrr {means.mrr:.3f}  ndcg10 {means.ndcg10:.3f}  n {means.n}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder of the conversations")
    parser.add_argument("--write", action="store_true", help="store the fold weights for `memos eval`")
    given = parser.parse_args()
    among = sheets(given.folder, on_progress=print)
    trials = Trials()
    shipped = RecallWeights()
    print(_line("start", pooled([trials.measure(sheet, START) for sheet in among])))
    print(_line("shipped", pooled([trials.measure(sheet, shipped) for sheet in among])))
    fitted = fit(among, trials)
    print(_line("in-sample", pooled([trials.measure(sheet, fitted) for sheet in among])))
    print("weights:", json.dumps(asdict(fitted)))
    folds = cross_validate(among, trials, on_progress=print)
    print(_line("cross-validated", pooled([trials.measure(sheet, folds[sheet.name]) for sheet in among])))
    for category in locomo.CATEGORIES.values():
        means = [sheet.measure(folds[sheet.name], category=category) for sheet in among]
        print(_line(f"  {category}", pooled(means)))
    if given.write:
        target = Path(str(resources.files("memos.evaluation").joinpath(locomo.FOLDS)))
        target.write_text(
            json.dumps({name: asdict(weights) for name, weights in folds.items()}, indent=1) + "\n",
            encoding="utf-8",
        )
        print(f"written to {target}")


if __name__ == "__main__":
    main()
