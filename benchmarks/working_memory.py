"""Working memory as a cache: `python -m benchmarks.working_memory [--quick] [--json FILE]`.

How much of what a question wants stands in working memory before anything is recalled for it. Conversations
are read from the folder that MEMOS_DATA_LOCOMO names (see `benchmarks.recall`); the streams are described in
`working_streams`, the policies in `working_peers`. The recall behind all of them is production's, with
weights fitted without the conversation; ours runs the pure function and the constants of production.

{stream}_{policy}     share of the wanted items held before the recall, at 20 places; over all conversations
mean_{policy}         the same over the four streams; `_10`, `_40` at as many places
questions_{policy}    share of the questions of which everything was held (20 places, mean of the streams)
after_{policy}        share of the wanted items held after the recall for the question (20 places, mean)
mean_cross_validated  ours, each conversation with the constants that are best on the others
ours_no_answers       ours where nobody says what answers used

`newest` is working memory as it was before: the best of the newest recall. lru, lfu, twoq, arc run with that
depth of requests (0, 5, 10 or 20 of the recall, then what was used) that is best for them over all streams and
conversations. `optimum` knows the future; `optimum_demand` too, and takes in only what was wanted.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.report import Bar, Options, Row, main
from benchmarks.working_peers import DEPTHS, PEERS, Ours, Policy, optimum
from benchmarks.working_streams import STREAMS, Talk, load
from memos.memory.working import POLICY, WorkingPolicy

FOLDER = Path(os.environ.get("MEMOS_DATA_LOCOMO", "../shared/data/locomo"))
SEED = 1
PLACES = 20
OTHER_PLACES = (10, 40)
ANSWER_READS = 10  # memories that the chat recalls for an answer
LATER = "left out by --quick"
GRID = {
    "rank_half": (8.0, 12.0, 16.0),
    "heat_kept": (0.9, 0.95, 0.97),
    "use_weight": (1.0, 1.5, 2.0),
}

Make = Callable[[int], Policy]


@dataclass(frozen=True, slots=True)
class Count:
    """What one policy held over one or several streams."""

    wanted: int = 0
    before: int = 0
    after: int = 0
    questions: int = 0
    whole: int = 0  # questions of which everything was held before

    def __add__(self, other: Count) -> Count:
        return Count(*(one + two for one, two in zip(_values(self), _values(other), strict=True)))

    @property
    def hit_rate(self) -> float:
        return self.before / self.wanted

    @property
    def objective(self) -> float:
        """What is fitted: held before the recall, and after it."""
        return (self.before + self.after) / self.wanted


def _values(count: Count) -> tuple[int, ...]:
    return tuple(asdict(count).values())


def run(talk: Talk, order: Iterable[int], policy: Policy, *, answers: bool = True) -> Count:
    """Ask the questions in this order. `answers` False: the policy never learns what was used."""
    count = Count()
    for number in order:
        asked = talk.asked[number]
        before = len(asked.wanted & policy.held())
        policy.recalled(asked)
        held = policy.held()
        after = len(asked.wanted & held)
        read = {one.item_id for one in asked.candidates[:ANSWER_READS]}
        if answers:
            policy.answered(sorted(asked.wanted & (read | held)))
        whole = before == len(asked.wanted)
        count += Count(len(asked.wanted), before, after, 1, int(whole))
    return count


def over(talks: Sequence[Talk], stream: str, make: Make, places: int, *, answers: bool = True) -> Count:
    """One stream over all conversations, each from an empty working memory."""
    counts = (run(talk, STREAMS[stream](talk, SEED), make(places), answers=answers) for talk in talks)
    return sum(counts, Count())


def everywhere(talks: Sequence[Talk], make: Make, places: int, *, answers: bool = True) -> dict[str, Count]:
    """All streams."""
    return {stream: over(talks, stream, make, places, answers=answers) for stream in STREAMS}


def mean(counts: dict[str, Count], of: Callable[[Count], float] = lambda one: one.hit_rate) -> float:
    """Each stream counts alike."""
    return sum(map(of, counts.values())) / len(counts)


def measure(options: Options) -> list[Row]:
    """All rows."""
    talks = load(FOLDER, capacity_max=max(OTHER_PLACES), on_progress=_say)
    if options.quick:
        talks = talks[:2]
    ours = everywhere(talks, Ours, PLACES)
    others = {"newest": (everywhere(talks, Policy, PLACES), "")}
    others |= {name: _best_depth(talks, name, PLACES) for name in PEERS}
    rows = []
    for stream in STREAMS:
        best = max(counts[stream].hit_rate for counts, _ in others.values())
        rows.append(
            Row(
                f"{stream}_ours", Bar(">=", round(best, 4)), ours[stream].hit_rate, "share", "bar: best other"
            )
        )
        rows += [
            Row(f"{stream}_{name}", None, one[stream].hit_rate, "share", note)
            for name, (one, note) in others.items()
        ]
        rows += _optima(talks, stream)
    rows += _means(talks, PLACES, ours, others, "")
    for name, of in (("questions", _whole), ("after", _after)):
        rows.append(Row(f"{name}_ours", None, mean(ours, of), "share"))
        rows += [Row(f"{name}_{other}", None, mean(one, of), "share") for other, (one, _) in others.items()]
    quiet = everywhere(talks, Ours, PLACES, answers=False)
    rows.append(Row("ours_no_answers", None, mean(quiet), "share"))
    for places in OTHER_PLACES:
        suffix = f"_{places}"
        if options.quick:
            rows.append(Row(f"mean_ours{suffix}", None, None, "share", LATER))
            continue
        counts = {"newest": (everywhere(talks, Policy, places), "")}
        counts |= {name: _best_depth(talks, name, places) for name in PEERS}
        rows += _means(talks, places, everywhere(talks, Ours, places), counts, suffix)
    if options.quick:
        rows.append(Row("mean_cross_validated", None, None, "share", LATER))
    else:
        _say("cross-validation")
        rows += _cross_validated(talks)
    return rows


def _whole(count: Count) -> float:
    return count.whole / count.questions


def _after(count: Count) -> float:
    return count.after / count.wanted


def _best_depth(talks: Sequence[Talk], name: str, places: int) -> tuple[dict[str, Count], str]:
    tried = {
        depth: everywhere(talks, lambda places, depth=depth: PEERS[name](places, depth), places)
        for depth in DEPTHS
    }
    best = max(tried, key=lambda depth: mean(tried[depth]))
    return tried[best], f"depth {best}"


def _means(
    talks: Sequence[Talk],
    places: int,
    ours: dict[str, Count],
    others: dict[str, tuple[dict[str, Count], str]],
    suffix: str,
) -> list[Row]:
    best = max(mean(one) for one, _ in others.values())
    rows = [Row(f"mean_ours{suffix}", Bar(">=", round(best, 4)), mean(ours), "share", "bar: best other")]
    rows += [
        Row(f"mean_{name}{suffix}", None, mean(one), "share", note) for name, (one, note) in others.items()
    ]
    return rows


def _optima(talks: Sequence[Talk], stream: str) -> list[Row]:
    rows = []
    for name, demand in (("optimum_demand", True), ("optimum", False)):
        hits = wanted = 0
        for talk in talks:
            asked = [talk.asked[number] for number in STREAMS[stream](talk, SEED)]
            hits += optimum(asked, PLACES, demand=demand)
            wanted += sum(len(one.wanted) for one in asked)
        rows.append(Row(f"{stream}_{name}", None, hits / wanted, "share"))
    return rows


def _cross_validated(talks: Sequence[Talk]) -> list[Row]:
    """Fit on all conversations but one, measure on that one."""
    policies = [
        replace(POLICY, **dict(zip(GRID, values, strict=True)))
        for values in itertools.product(*GRID.values())
    ]
    scores: dict[WorkingPolicy, list[dict[str, Count]]] = {}
    for policy in policies:
        scores[policy] = [
            everywhere([talk], lambda n, policy=policy: Ours(n, policy), PLACES) for talk in talks
        ]
    total = dict.fromkeys(STREAMS, Count())
    chosen = []
    for held_out in range(len(talks)):
        best = max(policies, key=lambda policy: _objective(scores[policy], besides=held_out))
        chosen.append(best)
        total = {stream: total[stream] + scores[best][held_out][stream] for stream in STREAMS}
    shipped = max(policies, key=lambda policy: _objective(scores[policy], besides=None))
    _say(f"best on all: {shipped}; by fold: {[tuple(asdict(one).values()) for one in chosen]}")
    return [
        Row("mean_cross_validated", None, mean(total), "share", f"best on all: {shipped}"),
        Row("after_cross_validated", None, mean(total, _after), "share"),
    ]


def _objective(scores: Sequence[dict[str, Count]], *, besides: int | None) -> float:
    total = dict.fromkeys(STREAMS, Count())
    for number, counts in enumerate(scores):
        if number != besides:
            total = {stream: total[stream] + counts[stream] for stream in STREAMS}
    return mean(total, lambda one: one.objective)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(
        "Working memory",
        measure,
        settings={
            "data": FOLDER,
            "places": PLACES,
            "seed": SEED,
            "answer reads": ANSWER_READS,
            **asdict(POLICY),
        },
    )
