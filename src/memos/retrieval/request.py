"""What is asked of recall and what comes back, as values. No vendor is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from memos.errors import InvalidInput
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.store import ItemFilter
from memos.retrieval.filters import Predicate
from memos.retrieval.stage_table import switched

Dedup = Literal["no", "sim", "mmr"]

TOP_K_MAX = 1_000
CANDIDATES_MAX = 10_000
CUBES_MAX = 100
QUERY_CHARS_MAX = 32_000


@dataclass(frozen=True, slots=True)
class RecallRequest:
    """One search.

    session_id and scenario favour what belongs to them and hide nothing. `filter` and `predicate` restrict
    (see `filters.parse_filter`); a predicate reads every item that the filter selects. What the turns
    `exclude_turn_ids` wrote is left out, and so are `exclude_ids`. `relativity` leaves out hits that fit
    less on the absolute scale of `memos.retrieval.relativity`. `reference_time` is the 'now' of words
    such as "yesterday" in the query; default: the clock's. `valid_at` asks for what held then, `known_at` for
    what was known then (see `timeline`). `candidates_max` bounds how deep the channels look, half of it each,
    but never less than twice `top_k`. `stages` names the stages that run, or with a "-" those that do not (see
    `stage_table.switched`); default: those of the settings.
    """

    query: str
    cube_ids: tuple[str, ...]
    user_id: str = ""
    top_k: int = 10
    session_id: str = ""
    scenario: str = ""
    kinds: tuple[MemoryKind, ...] = ()
    filter: ItemFilter | None = None
    predicate: Predicate | None = None
    reference_time: datetime | None = None
    valid_at: datetime | None = None
    known_at: datetime | None = None
    exclude_turn_ids: frozenset[str] = frozenset()
    exclude_ids: frozenset[str] = frozenset()
    relativity: float = 0.0
    dedup: Dedup = "mmr"
    candidates_max: int = 400
    stages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.query.strip():
            raise InvalidInput(f"query={self.query!r} is empty; give the text to search for")
        if len(self.query) > QUERY_CHARS_MAX:
            raise InvalidInput(f"query has {len(self.query)} characters; at most {QUERY_CHARS_MAX} are taken")
        if not self.cube_ids or len(self.cube_ids) > CUBES_MAX or not all(self.cube_ids):
            raise InvalidInput(f"cube_ids={self.cube_ids!r:.200} must name 1 to {CUBES_MAX} cubes")
        if not 1 <= self.top_k <= TOP_K_MAX:
            raise InvalidInput(f"top_k={self.top_k} must be between 1 and {TOP_K_MAX}")
        if not 1 <= self.candidates_max <= CANDIDATES_MAX:
            raise InvalidInput(f"candidates_max={self.candidates_max} must be between 1 and {CANDIDATES_MAX}")
        if not 0.0 <= self.relativity <= 1.0:
            raise InvalidInput(f"relativity={self.relativity} must be between 0 and 1")
        if self.dedup not in ("no", "sim", "mmr"):
            raise InvalidInput(f"dedup={self.dedup!r} is unknown; give 'no', 'sim' or 'mmr'")
        switched(self.stages)
        for name in ("reference_time", "valid_at", "known_at"):
            moment: datetime | None = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise InvalidInput(f"{name}={moment} has no time zone; give an aware datetime")


@dataclass(frozen=True, slots=True)
class Way:
    """One way by which a hit was found: the stage, the memory that it came from (of a channel: none), and
    the name that leads from one to the other (of `walk` alone)."""

    stage: str
    from_id: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One recalled memory.

    `score` orders the hits of one search and compares with nothing else. `relativity` is absolute, in
    [0, 1]. `parts` is the share of each stage in the score, by stage name; they sum up to it. `ways` are
    those by which it became a candidate.
    """

    item: MemoryItem
    score: float
    relativity: float
    parts: Mapping[str, float] = field(default_factory=dict)
    ways: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True)
class Recall:
    """The hits, best first; the `seq` at which each cube was read; what had to be done without, in words."""

    hits: tuple[Hit, ...]
    seqs: Mapping[str, int] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
