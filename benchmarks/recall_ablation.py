"""What each stage of recall is worth: `python -m benchmarks.recall --ablation [--write docs/recall.md]`.

Every question of every conversation is asked with the weights that were fitted without its conversation, once
with all stages and once without each (a request with `stages=["-NAME"]`); nothing is fitted anew without it. The
gain of a stage is what recall loses when it is left out. Cuts are measured with the defaults of a search, whose
recall they lower on purpose. The table stands in docs/recall.md between two marks, where `--write` puts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.recall_sheets import filled_store
from benchmarks.report import replaced_between
from memos.evaluation import locomo
from memos.evaluation.metrics import Scores, average, score
from memos.evaluation.systems import WeightedPath
from memos.memory.sqlite import SqliteStore
from memos.models.base import Embedder
from memos.retrieval.stage_table import CUTS, SCORING, TABLE
from memos.retrieval.weights import RecallWeights

BEGIN, END = "<!-- ablation begins -->", "<!-- ablation ends -->"
WHOLE = "all stages"
GROUPS: dict[str, tuple[str, ...]] = {
    "both: episode, neighbours": ("-episode", "-neighbours"),
    "both: again, walk": ("-again", "-walk"),
    "all but lexical": ("lexical",),
    "all but dense": ("dense",),
    "all but lexical and dense": ("lexical", "dense"),
}
NOTHING_TO_MEASURE = {
    "scenario": "one scenario, and no session is asked from",
    "recency": "weight 0",
    "use": "weight 0; nothing was used",
    "corrections": "nothing is corrected",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One search left something out: the averages over all questions and over the multi-hop ones."""

    name: str
    overall: Scores
    multi_hop: Scores


def measure(folder: Path) -> list[Line]:
    """One line with everything, one without each stage that there is something to measure of."""
    conversations = locomo.load(folder)
    with filled_store(conversations) as (store, embedder):
        lines = [_line(WHOLE, (), conversations, store, embedder)]
        for stage in TABLE:
            if stage.name in SCORING and stage.name not in NOTHING_TO_MEASURE:
                lines.append(_line(stage.name, (f"-{stage.name}",), conversations, store, embedder))
        for name, stages in GROUPS.items():
            lines.append(_line(name, stages, conversations, store, embedder))
        lines.append(_line(_defaults(WHOLE), (), conversations, store, embedder, top_k=None))
        for cut in sorted(CUTS - NOTHING_TO_MEASURE.keys()):
            name = _defaults(cut)
            lines.append(_line(name, (f"-{cut}",), conversations, store, embedder, top_k=None))
    return lines


def _defaults(name: str) -> str:
    return f"defaults: {name}"


def _line(
    name: str,
    stages: Sequence[str],
    conversations: Sequence[locomo.Conversation],
    store: SqliteStore,
    embedder: Embedder,
    *,
    top_k: int | None = locomo.TOP_K,
) -> Line:
    scores: list[Scores] = []
    multi_hop: list[Scores] = []
    for conversation in conversations:
        weights: RecallWeights = locomo.fold_weights(conversation.name)
        path = WeightedPath(store, embedder, weights, stages=stages)
        for question in conversation.questions:
            found = path.search(conversation.name, question.text, top_k=top_k)
            scores.append(score(found.message_ids, question.wanted))
            if question.category == locomo.CATEGORIES[1]:
                multi_hop.append(scores[-1])
    return Line(name, average(scores), average(multi_hop))


def table(lines: Sequence[Line]) -> str:
    """Markdown: the figures with everything, then what is lost without each, in points."""
    whole = {line.name: line for line in lines if line.name.endswith(WHOLE)}
    out = [
        "| without | r@5 | r@10 | r@20 | MRR | nDCG@10 | multi-hop r@10 |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        if line.name in whole:
            figures = [f"**{value:.3f}**".replace("0.", ".", 1) for value in _figures(line)]
            label = "nothing (defaults of a search)" if line.name != WHOLE else "nothing"
            out.append(f"| **{label}** | " + " | ".join(figures) + " |")
            continue
        base = whole[_defaults(WHOLE) if line.name.startswith("defaults") else WHOLE]
        lost = [
            f"{100 * (now - before):+.1f}".replace("-", "−")
            for now, before in zip(_figures(line), _figures(base), strict=True)
        ]
        out.append(f"| {line.name.removeprefix('defaults: ')} | " + " | ".join(lost) + " |")
    return "\n".join(out)


def _figures(line: Line) -> tuple[float, ...]:
    one = line.overall
    return one.r5, one.r10, one.r20, one.mrr, one.ndcg10, line.multi_hop.r10


def written(page: str, lines: Sequence[Line]) -> str:
    """The page with the table between its marks. Raises ValueError where it has none."""
    return replaced_between(page, BEGIN, END, table(lines))


def main(folder: Path, target: Path | None) -> None:
    """Measure, print, and put the table where it belongs."""
    lines = measure(folder)
    print(table(lines))
    for stage, why in NOTHING_TO_MEASURE.items():
        print(f"{stage}: nothing to measure ({why})")
    if target is not None:
        target.write_text(written(target.read_text(encoding="utf-8"), lines), encoding="utf-8")
