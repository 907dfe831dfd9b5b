"""Recall against its bars: `python -m benchmarks.recall [--quick] [--json FILE]`; `--ablation`: what each stage
is worth (`recall_ablation`).

The conversations are read from the folder that MEMOS_DATA_LOCOMO names (default ../shared/data/locomo);
they are licensed CC BY-NC 4.0 and no part of the project.

r5 … mrr             share of the evidence found by category 1 to 4 questions, top_k 50, no cut, no dedup;
                     cross-validated: each conversation with the weights fitted on the other ones
r10_multi_hop        the same, category 1
r10_defaults         the same with the default top_k, relativity and dedup
*_in_sample          the shipped weights, fitted on all of them, through the documented search (no bar)
wm_evidence          share of the evidence in working memory, from empty, after one `mem_update`
gate_skip, gate_miss recall skipped where working memory holds all evidence; skipped where it may not be
                     (`recall_turns`); also over natural and repeated questions apart; cross-validated, weights
                     and gate fitted without the conversation
query_p50, p95       one search over the longest conversation, encoding included, CPU ms
query_p95_10k, 100k  one search over a cube of that many items, encoding excluded, CPU ms; for 100k the
                     capacity of a cube is raised from 10,000
add_searchable       storing one turn through the documented add, CPU ms (median)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks import recall_ablation, recall_scale, recall_turns
from benchmarks.recall_sheets import filled_store
from benchmarks.report import Bar, Options, Row, main
from benchmarks.vectors import DiskCachedEmbedder
from memos.evaluation import locomo
from memos.evaluation.metrics import Scores, average, percentile, score
from memos.evaluation.systems import PublicPath, Turn, WeightedPath
from memos.memory.sqlite import SqliteStore
from memos.models.minilm import MiniLMEmbedder
from memos.retrieval.hybrid import HybridRetriever, RecallRequest
from memos.retrieval.weights import RecallWeights
from memos.runtime import build
from memos.settings import Settings

FOLDER = Path(os.environ.get("MEMOS_DATA_LOCOMO", "../shared/data/locomo"))
QUERIES = 100
ADDED = 40
LATER = "left out by --quick"

BARS = {
    "r5": Bar(">=", 0.68, 0.72),
    "r10": Bar(">=", 0.78, 0.82),
    "r20": Bar(">=", 0.84, 0.88),
    "ndcg10": Bar(">=", 0.60, 0.64),
    "mrr": Bar(">=", 0.58, 0.61),
}


def measure(options: Options) -> list[Row]:
    """All rows, in the order of the bar table."""
    conversations = locomo.load(FOLDER)
    with filled_store(conversations) as (store, embedder):
        rows = _quality(store, embedder, conversations)
        speed = _speed(store, conversations)
        _say("large cubes")
        large = _large(conversations, embedder, quick=options.quick)
        embedder.save()
    _say("the documented path")
    rows += _public(conversations, quick=options.quick)
    return [*rows, *speed, *large, _add_row()]


def _quality(
    store: SqliteStore, embedder: DiskCachedEmbedder, conversations: Sequence[locomo.Conversation]
) -> list[Row]:
    scores: list[Scores] = []
    multi_hop: list[Scores] = []
    defaults: list[Scores] = []
    for conversation in conversations:
        unseen = WeightedPath(store, embedder, locomo.fold_weights(conversation.name))
        for question in conversation.questions:
            found = unseen.search(conversation.name, question.text, top_k=locomo.TOP_K)
            scores.append(score(found.message_ids, question.wanted))
            if question.category == locomo.CATEGORIES[1]:
                multi_hop.append(scores[-1])
            plain = unseen.search(conversation.name, question.text, top_k=None)
            defaults.append(score(plain.message_ids, question.wanted))
        _say(f"asked about {conversation.name}")
    mean = asdict(average(scores))
    rows = [Row(name, bar, mean[name], "share", "cross-validated") for name, bar in BARS.items()]
    rows.append(
        Row("r10_multi_hop", Bar(">=", 0.48, 0.56), average(multi_hop).r10, "share", "cross-validated")
    )
    rows.append(Row("r10_defaults", Bar(">=", 0.75, 0.80), average(defaults).r10, "share", "cross-validated"))
    return rows


def _speed(store: SqliteStore, conversations: Sequence[locomo.Conversation]) -> list[Row]:
    longest = max(conversations, key=lambda one: sum(map(len, one.sessions)))
    retriever = HybridRetriever(store, MiniLMEmbedder.load())
    taken = []
    for question in longest.questions[:QUERIES]:
        cpu = time.process_time()
        retriever.search(RecallRequest(query=question.text, cube_ids=(longest.name,)))
        taken.append(1_000 * (time.process_time() - cpu))
    return [
        Row("query_p50", Bar("<=", 20), percentile(taken, 0.50), "CPU ms", "encoding included"),
        Row("query_p95", Bar("<=", 40), percentile(taken, 0.95), "CPU ms", "encoding included"),
    ]


def _large(
    conversations: Sequence[locomo.Conversation], embedder: DiskCachedEmbedder, *, quick: bool
) -> list[Row]:
    rows = []
    for name, size, bar in (
        ("query_p95_10k", 10_000, Bar("<=", 15, 10)),
        ("query_p95_100k", 100_000, Bar("<=", 60, 40)),
    ):
        if quick:
            rows.append(Row(name, bar, None, "CPU ms", LATER))
            continue
        taken = recall_scale.measure(size, conversations, embedder, queries=QUERIES)
        note = f"p50 {taken.query_p50_ms:.1f}; built in {taken.build_s:.0f} s; capacity {max(size, 10_000):,}"
        rows.append(Row(name, bar, taken.query_p95_ms, "CPU ms", note))
    return rows


def _public(conversations: Sequence[locomo.Conversation], *, quick: bool) -> list[Row]:
    """What goes through the documented handlers and the scheduler: the rows that take minutes."""
    informative = [f"{name}_in_sample" for name in BARS]
    evidence = Bar(">=", 0.82, 0.86)
    skip, miss = Bar(">=", 0.60), Bar("<=", 0.05, 0.03)
    if quick:
        return [
            *(Row(name, None, None, "share", LATER) for name in informative),
            Row("wm_evidence", evidence, None, "share", LATER),
            Row("gate_skip", skip, None, "share", LATER),
            Row("gate_miss", miss, None, "share", LATER),
        ]
    with _home() as home, build(Settings(home=home), start=False) as runtime:
        report = locomo.evaluate(runtime, FOLDER)
    turns = recall_turns.cross_validated(conversations, on_progress=_say)
    shipped = asdict(report.overall)
    return [
        *(Row(f"{name}_in_sample", None, shipped[name], "share") for name in BARS),
        Row("wm_evidence", evidence, turns.evidence, "share", "cross-validated"),
        Row("gate_skip", skip, turns.skipped(positive=True), "share", "cross-validated, mix"),
        Row("gate_miss", miss, turns.skipped(positive=False), "share", "cross-validated, mix"),
        Row("gate_miss_natural", None, turns.skipped(positive=False, repeated=False), "share"),
        Row("gate_miss_incomplete", None, turns.missed, "share", "natural skips with evidence missing"),
        Row("gate_miss_repeated", None, turns.skipped(positive=False, repeated=True), "share"),
    ]


def _add_row() -> Row:
    taken = []
    with _home() as home, build(Settings(home=home), start=False) as runtime:
        system = PublicPath(runtime)
        for number in range(ADDED):
            text = f"Note {number}: the shop on the corner sells {number} kinds of tea and closes at six."
            turn = Turn(f"m{number}", "session", "user", "Ida", text, "2024-05-01T10:00:00Z")
            cpu = time.process_time()
            system.add("cube", [turn])
            taken.append(1_000 * (time.process_time() - cpu))
    return Row("add_searchable", Bar("<=", 30), percentile(taken, 0.5), "CPU ms", "encoding included")


@contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="memos-recall-") as folder:
        yield Path(folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _ablation(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=recall_ablation.__doc__)
    parser.add_argument("--ablation", action="store_true", required=True)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the page's marks")
    recall_ablation.main(FOLDER, parser.parse_args(words).write)


if __name__ == "__main__":
    if "--ablation" in sys.argv:
        _ablation(sys.argv[1:])
        sys.exit(0)
    main(
        "Recall",
        measure,
        settings={"data": FOLDER, "weights": "shipped and folds", **asdict(RecallWeights())},
    )
