"""What an evaluation found: as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memos.evaluation.metrics import Scores, average, percentile

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of the bar: at least `value`, which holds for the cross-validated figure; `stretch` is the aim."""

    name: str
    value: float
    stretch: float


BARS = (
    Bar("r5", 0.68, 0.72),
    Bar("r10", 0.78, 0.82),
    Bar("r20", 0.84, 0.88),
    Bar("ndcg10", 0.60, 0.64),
    Bar("mrr", 0.58, 0.61),
    Bar("r10_multi_hop", 0.48, 0.56),
    Bar("r10_defaults", 0.75, 0.80),
)
MULTI_HOP = "multi_hop"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and how each pass did on it."""

    conversation: str
    category: str
    scores: Scores  # shipped weights
    cross_validated: Scores  # weights fitted without this conversation
    defaults: Scores  # as a user without options asks
    defaults_cross_validated: Scores
    cpu_ms: float
    wall_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """All questions, in the order asked. `categories` gives the order of the rows."""

    asked: tuple[Asked, ...]
    categories: tuple[str, ...]

    @property
    def overall(self) -> Scores:
        """The shipped weights over all questions."""
        return average(one.scores for one in self.asked)

    @property
    def by_category(self) -> Mapping[str, Scores]:
        """The shipped weights, by category."""
        return {
            category: average(one.scores for one in self.asked if one.category == category)
            for category in self.categories
        }

    @property
    def cross_validated(self) -> Scores:
        """Each conversation with the weights that were fitted without it."""
        return average(one.cross_validated for one in self.asked)

    @property
    def cross_validated_by_category(self) -> Mapping[str, Scores]:
        """The same, by category."""
        return {
            category: average(one.cross_validated for one in self.asked if one.category == category)
            for category in self.categories
        }

    def figures(self, *, cross_validated: bool) -> Mapping[str, float]:
        """What is measured for each row of the bar."""
        overall = self.cross_validated if cross_validated else self.overall
        by_category = self.cross_validated_by_category if cross_validated else self.by_category
        plain = average(
            one.defaults_cross_validated if cross_validated else one.defaults for one in self.asked
        )
        multi_hop = by_category.get(MULTI_HOP, average(()))
        return {
            "r5": overall.r5,
            "r10": overall.r10,
            "r20": overall.r20,
            "ndcg10": overall.ndcg10,
            "mrr": overall.mrr,
            "r10_multi_hop": multi_hop.r10,
            "r10_defaults": plain.r10,
        }

    @property
    def defaults(self) -> Scores:
        """Default top_k, relativity and dedup: only what those let through counts."""
        return average(one.defaults for one in self.asked)

    def latency_ms(self, share: float, *, cpu: bool = False) -> float:
        """A percentile of one search, encoding of the query included."""
        return percentile([one.cpu_ms if cpu else one.wall_ms for one in self.asked], share)

    def to_json(self) -> str:
        """Shares between 0 and 1; `overall` and `by_category` are of the shipped weights."""
        return json.dumps(
            {
                "overall": _fields(self.overall),
                "by_category": {name: _fields(scores) for name, scores in self.by_category.items()},
                "latency_ms": {
                    "p50": round(self.latency_ms(0.50), 3),
                    "p95": round(self.latency_ms(0.95), 3),
                },
            },
            indent=2,
        )

    def table(self) -> Table:
        """By category and overall, cross-validated beside in-sample, and the latency."""
        from rich.table import Table

        table = Table(title="Recall of the turns named as evidence", caption=self._caption())
        table.add_column("questions")
        for name in ("n", "r@5", "r@10", "r@20", "MRR", "nDCG@10"):
            table.add_column(name, justify="right")
        for name, scores in self.cross_validated_by_category.items():
            table.add_row(name.replace("_", "-"), *_cells(scores))
            table.add_row("  in-sample", "", *_cells(self.by_category[name])[1:], style="dim")
        table.add_section()
        table.add_row("overall, cross-validated", *_cells(self.cross_validated), style="bold")
        table.add_row("  in-sample", "", *_cells(self.overall)[1:], style="dim")
        plain = average(one.defaults_cross_validated for one in self.asked)
        table.add_row("overall, default search", *_cells(plain, ("r5", "r10")))
        table.add_row("  in-sample", "", *_cells(self.defaults, ("r5", "r10"))[1:], style="dim")
        return table

    def bar_table(self) -> Table:
        """Each row of the bar beside what was measured. A bar holds for the cross-validated figure."""
        from rich.table import Table

        table = Table(title="The bar", caption="ok: the cross-validated figure reaches the bar; ok+: the aim")
        table.add_column("row")
        for name in ("bar", "aim", "cross-validated", "in-sample"):
            table.add_column(name, justify="right")
        table.add_column("")
        held_out, seen = self.figures(cross_validated=True), self.figures(cross_validated=False)
        for bar in BARS:
            measured = held_out[bar.name]
            mark = "ok+" if measured >= bar.stretch else "ok" if measured >= bar.value else "short"
            table.add_row(
                bar.name,
                f"{bar.value:.2f}",
                f"{bar.stretch:.2f}",
                f"{measured:.3f}",
                f"{seen[bar.name]:.3f}",
                mark,
            )
        return table

    def _caption(self) -> str:
        conversations = len({one.conversation for one in self.asked})
        return (
            f"{conversations} conversations; one turn is one memory; share of the evidence found. "
            f"A search: p50 {self.latency_ms(0.5):.1f} ms, p95 {self.latency_ms(0.95):.1f} ms"
        )


def _fields(scores: Scores) -> dict[str, Any]:
    return {
        "r5": round(scores.r5, 6),
        "r10": round(scores.r10, 6),
        "r20": round(scores.r20, 6),
        "mrr": round(scores.mrr, 6),
        "ndcg10": round(scores.ndcg10, 6),
        "n": scores.n,
    }


def _cells(scores: Scores, kept: Sequence[str] = ("r5", "r10", "r20", "mrr", "ndcg10")) -> list[str]:
    fields = _fields(scores)
    shown = [f"{fields[name]:.3f}" if name in kept else "" for name in ("r5", "r10", "r20", "mrr", "ndcg10")]
    return [str(scores.n), *shown]
