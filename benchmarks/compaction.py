"""What compaction of long episodes costs: `python -m benchmarks.compaction [--quick] [--json FILE]`.

The conversations are read from the folder that MEMOS_DATA_LOCOMO names (default ../shared/data/locomo);
they are licensed CC BY-NC 4.0 and no part of the project. They are stored through the documented add,
compacted by `mem_organize` messages ({"scope": "compact"}) at each ratio, asked, and expanded again.

Tokens are those of the texts that recall can find (the live memories), counted by the WordPiece of the
embedder; the full texts, which stay as archive records, are told apart. Recall is the share of evidence of
category 1 to 4 questions, top_k 50, no cut, no dedup, cross-validated weights; k counts distinct turns.

compaction_tokens    live tokens after by before, at the default ratio
compaction_r10_loss  recall at 10 before less after, in points, at the default ratio; also r5 and r20
expanded_r10_loss    the same after `expand`, which puts the full texts back
archive_tokens       tokens in archive records by live tokens before: what is kept and not recalled
public_r10_loss      as compaction_r10_loss, shipped weights, through the documented search
curve_NN             recall at 10 lost at ratio NN %; the note says the tokens and the other losses
whole_sentences_50   the floor: half the tokens by whole sentences, through the same indexes
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.recall_sheets import filled_store
from benchmarks.report import Bar, Options, Row, main
from benchmarks.vectors import DiskCachedEmbedder
from memos.evaluation import locomo
from memos.evaluation.metrics import Scores, average, score
from memos.evaluation.systems import USER_ID, PublicPath, WeightedPath
from memos.mem_scheduler.handlers.compact import EXPAND_SCOPE, SCOPE, TOKENS_MIN, Wanted
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_ORGANIZE_TASK_LABEL
from memos.memory.compaction import RATIO, compact
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.store import IndexedItem, ItemFilter, MemoryStore, SetStatus, UpdateItem
from memos.models.base import Embedder
from memos.models.weights import find_weights
from memos.models.wordpiece import WordPiece
from memos.retrieval.keywords import analyse
from memos.runtime import Runtime, build
from memos.settings import Settings

FOLDER = Path(os.environ.get("MEMOS_DATA_LOCOMO", "../shared/data/locomo"))
CURVE = (0.75, 0.6, 0.5, 0.4, 0.3, 0.2)
QUICK_CONVERSATIONS = 1
WAIT_S = 900.0
LATER = "left out by --quick"


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: recall, and tokens by what recall can find and by what it cannot."""

    scores: Scores
    live: int
    archived: int

    def lost(self, before: Point) -> tuple[float, float, float]:
        """Points of recall at 5, 10 and 20 less than before."""
        now, then = self.scores, before.scores
        return 100 * (then.r5 - now.r5), 100 * (then.r10 - now.r10), 100 * (then.r20 - now.r20)


def measure(options: Options) -> list[Row]:
    """All rows; `--quick` takes one conversation and no curve."""
    conversations = locomo.load(FOLDER)
    if options.quick:
        conversations = conversations[:QUICK_CONVERSATIONS]
    tokenizer = _tokenizer()
    with tempfile.TemporaryDirectory(prefix="memos-compaction-") as home:
        # Every round encodes the same full texts; only how long the run takes depends on the cache.
        settings = Settings(home=Path(home))
        models = settings.models.model_copy(update={"embedding_cache_entries_max": 20_000})
        with build(settings.model_copy(update={"models": models}), start=True) as runtime:
            rows = _documented_path(runtime, conversations, tokenizer, quick=options.quick)
    rows.append(_floor(conversations, tokenizer) if not options.quick else _floor_left_out())
    return rows


def _documented_path(
    runtime: Runtime, conversations: Sequence[locomo.Conversation], tokenizer: WordPiece, *, quick: bool
) -> list[Row]:
    system = PublicPath(runtime)
    for conversation in conversations:
        for turns in conversation.sessions:
            system.add(conversation.name, turns)
        _say(f"stored {conversation.name}")
    runtime.drain(WAIT_S)
    assert runtime.embedder is not None
    embedder = DiskCachedEmbedder(runtime.embedder)

    def point() -> Point:
        return _point(runtime.store, embedder, conversations, tokenizer)

    before, public_before = point(), _public(system, conversations)
    _ask(runtime, conversations, Wanted(SCOPE, ratio=RATIO, older_than_days=0))
    after, public_after = point(), _public(system, conversations)
    _say("compacted")
    _ask(runtime, conversations, Wanted(EXPAND_SCOPE))
    expanded = point()
    r5, r10, r20 = after.lost(before)
    asked = f"{before.scores.n} questions; r10 {before.scores.r10:.3f} before"
    rows = [
        Row("compaction_tokens", Bar("<=", 0.5), after.live / before.live, "share", f"of {before.live:,}"),
        Row("compaction_r10_loss", Bar("<=", 1.0), r10, "points", asked),
        Row("compaction_r5_loss", None, r5, "points"),
        Row("compaction_r20_loss", None, r20, "points"),
        Row("expanded_r10_loss", Bar("<=", 0.0), expanded.lost(before)[1], "points"),
        Row("archive_tokens", None, (after.archived - before.archived) / before.live, "share"),
        Row("public_r10_loss", None, 100 * (public_before.r10 - public_after.r10), "points", "in sample"),
    ]
    for ratio in CURVE:
        name = f"curve_{100 * ratio:.0f}"
        if quick:
            rows.append(Row(name, None, None, "points", LATER))
            continue
        _ask(runtime, conversations, Wanted(SCOPE, ratio=ratio, older_than_days=0))
        rows.append(_row(name, point(), before))
        _ask(runtime, conversations, Wanted(EXPAND_SCOPE))
        _say(name)
    embedder.save()
    return rows


def _row(name: str, after: Point, before: Point) -> Row:
    r5, r10, r20 = after.lost(before)
    return Row(
        name, None, r10, "points", f"tokens {after.live / before.live:.3f}; r5 {r5:+.2f}; r20 {r20:+.2f}"
    )


def _ask(runtime: Runtime, conversations: Sequence[locomo.Conversation], wanted: Wanted) -> None:
    """Every cube by one message, as a user would, until the last episode that it chains has run."""
    for conversation in conversations:
        runtime.scheduler.submit_messages(
            ScheduleMessageItem(
                user_id=USER_ID,
                mem_cube_id=conversation.name,
                label=MEM_ORGANIZE_TASK_LABEL,
                content=wanted.content(),
            )
        )
    if not runtime.drain(WAIT_S):
        raise RuntimeError(f"{wanted.scope} was not finished after {WAIT_S:.0f} s")


def _point(
    store: MemoryStore,
    embedder: Embedder,
    conversations: Sequence[locomo.Conversation],
    tokenizer: WordPiece,
) -> Point:
    scores = []
    for conversation in conversations:
        unseen = WeightedPath(store, embedder, locomo.fold_weights(conversation.name))
        for question in conversation.questions:
            found = unseen.search(conversation.name, question.text, top_k=locomo.TOP_K)
            scores.append(score(found.message_ids, question.wanted))
    live, archived = (
        sum(
            _tokens(tokenizer, item)
            for conversation in conversations
            for item in _all(store, conversation.name, statuses)
        )
        for statuses in ((ItemStatus.ACTIVATED, ItemStatus.RESOLVING), (ItemStatus.ARCHIVED,))
    )
    return Point(average(scores), live, archived)


def _public(system: PublicPath, conversations: Sequence[locomo.Conversation]) -> Scores:
    return average(
        score(system.search(one.name, question.text, top_k=locomo.TOP_K).message_ids, question.wanted)
        for one in conversations
        for question in one.questions
    )


def _floor(conversations: Sequence[locomo.Conversation], tokenizer: WordPiece) -> Row:
    """Sentences chosen whole within the same budget; vectors and links stay those of the full text."""
    with filled_store(conversations) as (store, embedder):
        before = _point(store, embedder, conversations, tokenizer)
        for conversation in conversations:
            episodes: dict[str, list[MemoryItem]] = {}
            for item in _all(store, conversation.name, (ItemStatus.ACTIVATED,)):
                episodes.setdefault(item.session_id, []).append(item)
            for items in episodes.values():
                _choose_whole(store, embedder, sorted(items, key=lambda item: item.position))
        return _row("whole_sentences_50", _point(store, embedder, conversations, tokenizer), before)


def _choose_whole(store: MemoryStore, embedder: Embedder, items: Sequence[MemoryItem]) -> None:
    from memos.memory.indexer import Indexer

    with store.read(items[0].cube_id) as view:
        names = view.participants()
    kept = compact(items, ratio=0.5, whole_sentences=True).by_item()
    for full in Indexer(embedder).index(items, participants=names):
        text = kept.get(full.item.id)
        if text is None:
            store.apply([SetStatus((full.item.id,), ItemStatus.ARCHIVED, "not chosen")])
        else:
            short = IndexedItem(replace(full.item, memory=text), analyse(text), full.vector)
            store.apply([UpdateItem(short, None, "chosen")])


def _floor_left_out() -> Row:
    return Row("whole_sentences_50", None, None, "points", LATER)


def _all(store: MemoryStore, cube_id: str, statuses: tuple[ItemStatus, ...]) -> list[MemoryItem]:
    found: list[MemoryItem] = []
    cursor: str | None = None
    while True:
        page = store.find(ItemFilter(cube_ids=(cube_id,), statuses=statuses), limit=500, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


def _tokens(tokenizer: WordPiece, item: MemoryItem) -> int:
    return len(tokenizer.encode(item.memory, tokens_max=100_000)) - 2  # without the two special ones


def _tokenizer() -> WordPiece:
    weights = find_weights()
    if weights is None:
        raise RuntimeError("tokens are counted by the embedder's tokenizer; run `memos models install`")
    return WordPiece.load(weights.vocabulary)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(
        "Compaction of long episodes",
        measure,
        settings={"data": FOLDER, "ratio": RATIO, "tokens_min": TOKENS_MIN, "older_than_days": 0},
    )
