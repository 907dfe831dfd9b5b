"""Each stage that scores is switched by its name, and what it gave is told with each hit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.retrieval.conftest import NOW, item

from memos.memory.sqlite import SqliteStore
from memos.memory.store import TouchItems
from memos.retrieval.hybrid import HybridRetriever, RecallRequest, RecallWeights
from memos.retrieval.stage_table import SCORING
from memos.testing import ManualClock

SAID = (
    ("Ann", "Shall we have a drink with Doctor Lee on Monday?"),
    (
        "Bob",
        "The vet of Max is called Doctor Lee, I met the vet yesterday in Kiel on the way to the harbour.",
    ),
    ("Ann", "Max was at the vet in May."),
    ("Ann", "Who is the vet?"),
    ("Bob", "It rains."),
    ("Ann", "Doctor Lee went sailing on the Petrel."),
    *(("Bob", f"Bob saw it rain {number} times yesterday.") for number in range(2, 12)),
    ("Carl", "Every autumn the Petrel is painted."),  # only a name leads there
)
QUERY = "When did Bob meet Doctor Lee, the vet of Max, yesterday?"
WEIGHTS = RecallWeights(recency=0.1, use=0.1, context_floor=0.1)


@pytest.fixture
def filled(store: SqliteStore, fill: Any) -> SqliteStore:
    """Memories of which every stage has something to say."""
    fill(
        [
            item(
                f"i{place}",
                text,
                participants=(speaker,),
                session_id="s1" if place < 5 else "s2",
                position=place,
                happened_at=NOW - timedelta(days=1),
            )
            for place, (speaker, text) in enumerate(SAID)
        ]
    )
    store.apply([TouchItems(("i1",), "used", 3)])
    return store


def parts(
    store: SqliteStore, embedder: Any, clock: ManualClock, *, made: Sequence[str], asked: Sequence[str]
) -> dict[str, float]:
    """The greatest share, by amount, that each stage has in any hit."""
    retriever = HybridRetriever(store, embedder, clock=clock, weights=WEIGHTS, stages=made)
    request = RecallRequest(
        QUERY, ("cube",), top_k=20, session_id="s1", dedup="no", reference_time=NOW, stages=tuple(asked)
    )
    found: dict[str, float] = {}
    for hit in retriever.search(request).hits:
        assert sum(hit.parts.values()) == pytest.approx(hit.score, abs=1e-4)
        found |= {stage: max(found.get(stage, 0.0), abs(share)) for stage, share in hit.parts.items()}
    return found


def test_every_stage_that_scores_has_its_share_told(
    filled: SqliteStore, embedder: Any, clock: ManualClock
) -> None:
    """With all on, each of them has given something to a hit, and the shares add up to the scores."""
    told = parts(filled, embedder, clock, made=(), asked=())
    assert set(told) == SCORING and all(told.values())


@pytest.mark.parametrize("stage", sorted(SCORING))
def test_a_stage_is_off_where_the_settings_or_a_request_say_so(
    filled: SqliteStore, embedder: Any, clock: ManualClock, stage: str
) -> None:
    """It is told of no hit then, whichever of the two said it; a request turns on what the settings turned off."""
    off = f"-{stage}"
    for made, asked in (((off,), ()), ((), (off,))):
        assert stage not in parts(filled, embedder, clock, made=made, asked=asked)
    assert parts(filled, embedder, clock, made=(off,), asked=("lexical", stage)).get(stage)
