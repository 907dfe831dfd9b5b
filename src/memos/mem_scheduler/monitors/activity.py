"""What a user has asked of a cube and was answered lately: windows, keyword counts, the last recall.

The values are immutable and the functions pure; the state stands in the store (`PutState`), is committed
together with the working set that follows from it, and so survives a restart. It is kept per user of a
cube: the tasks of one user and cube run in order, so no two of them write the same state at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from memos.errors import ConfigError
from memos.memory.store import MemoryStore, PutState
from memos.memory.working_record import Use, WorkingRecord
from memos.retrieval.keywords import keywords

KEYWORDS_KEPT_MAX = 500
ANSWER_CHARS_MAX = 4_000
USED_KEPT_MAX = 100
USES_KEPT_MAX = 200  # of memories by answers, until the next recall takes them into the cube's record


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """A query of the window. `recalled`: a recall ran for it, and the working set holds its result."""

    text: str
    keywords: tuple[str, ...]
    asked_at: float  # wall time
    recalled: bool = False


@dataclass(frozen=True, slots=True)
class Activity:
    """The state of one user in one cube. `queries` are oldest first.

    What working memory was good for since its last recall waits here for the next one: `uses` by answers,
    `sufficed` queries without a recall. The cube's own record is written with the working set alone.
    """

    queries: tuple[AskedQuery, ...] = ()
    keyword_counts: Mapping[str, int] = field(default_factory=dict)
    recalled_at: float | None = None  # wall time of the last recall
    answers_seen: int = 0  # of all answers ever, those whose uses were taken in
    uses: tuple[Use, ...] = ()
    sufficed: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "queries": [
                {"text": q.text, "keywords": list(q.keywords), "asked_at": q.asked_at, "recalled": q.recalled}
                for q in self.queries
            ],
            "keyword_counts": dict(self.keyword_counts),
            "recalled_at": self.recalled_at,
            "answers_seen": self.answers_seen,
            "uses": [use.to_json() for use in self.uses],
            "sufficed": self.sufficed,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Activity:
        return cls(
            queries=tuple(
                AskedQuery(q["text"], tuple(q["keywords"]), float(q["asked_at"]), bool(q["recalled"]))
                for q in value.get("queries", ())
            ),
            keyword_counts=dict(value.get("keyword_counts", {})),
            recalled_at=value.get("recalled_at"),
            answers_seen=int(value.get("answers_seen", 0)),
            uses=tuple(Use.from_json(use) for use in value.get("uses", ())),
            sufficed=int(value.get("sufficed", 0)),
        )


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer of the window, and the ids of the memories that it used."""

    text: str
    used: tuple[str, ...]
    answered_at: float  # wall time


@dataclass(frozen=True, slots=True)
class Answers:
    """The last answers to one user over one cube, oldest first, and how many there ever were."""

    window: tuple[GivenAnswer, ...] = ()
    count: int = 0
    used_count: int = 0  # memories used by all of them together

    def to_json(self) -> dict[str, Any]:
        return {
            "window": [
                {"text": one.text, "used": list(one.used), "answered_at": one.answered_at}
                for one in self.window
            ],
            "count": self.count,
            "used_count": self.used_count,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Answers:
        return cls(
            window=tuple(
                GivenAnswer(one["text"], tuple(one["used"]), float(one["answered_at"]))
                for one in value.get("window", ())
            ),
            count=int(value.get("count", 0)),
            used_count=int(value.get("used_count", 0)),
        )


class ActivityMonitor:
    """Reads, extends and writes `Activity`. Holds no state of its own."""

    def __init__(self, *, window: int = 5, keywords_max: int = 20) -> None:
        if window < 1 or keywords_max < 1:
            raise ConfigError(f"window and keywords_max must be at least 1, not {window!r}, {keywords_max!r}")
        self._window = window
        self._keywords_max = keywords_max

    def read(self, store: MemoryStore, cube_id: str, user_id: str) -> Activity:
        """The state as the store has it; an empty one for a user who never asked."""
        value = store.state(cube_id, _name(user_id))
        return Activity() if value is None else Activity.from_json(value)

    def keywords_of(self, query: str) -> tuple[str, ...]:
        """The words that a query is about, best first."""
        return tuple(keywords(query, self._keywords_max))

    def asked(self, before: Activity, query: str, found: Sequence[str], at: float) -> Activity:
        """The state after a query. The window is bounded, and so are the counts: the rarest leave."""
        counts = dict(before.keyword_counts)
        for word in found:
            counts[word] = counts.get(word, 0) + 1
        if len(counts) > KEYWORDS_KEPT_MAX:
            best = sorted(counts, key=lambda word: (-counts[word], word not in found))[:KEYWORDS_KEPT_MAX]
            counts = {word: counts[word] for word in best}
        window = (*before.queries, AskedQuery(query, tuple(found), at))[-self._window :]
        return replace(before, queries=window, keyword_counts=counts)

    def recalled(self, before: Activity, at: float) -> Activity:
        """The state after a recall for the newest query."""
        newest = replace(before.queries[-1], recalled=True)
        return replace(before, queries=(*before.queries[:-1], newest), recalled_at=at)

    def used(self, before: Activity, answers: Answers, record: WorkingRecord) -> Activity:
        """The state with what the answers since have used; those that left the window are not known."""
        fresh = answers.count - before.answers_seen
        if fresh <= 0:
            return replace(before, answers_seen=answers.count)
        recalled = bool(before.queries) and before.queries[-1].recalled
        ids = [one for answer in answers.window[-fresh:] for one in answer.used]
        uses = [record.use_of(one, recalled=recalled) for one in ids]
        kept = (*before.uses, *uses)[-USES_KEPT_MAX:]
        return replace(before, answers_seen=answers.count, uses=kept)

    def left(self, before: Activity) -> Activity:
        """The state after a query for which nothing was recalled."""
        return replace(before, sufficed=before.sufficed + 1)

    def taken(self, before: Activity) -> Activity:
        """The state after its uses went into the record of the cube."""
        return replace(before, uses=(), sufficed=0)

    def recall_due(self, activity: Activity, *, at: float, interval_s: float) -> bool:
        """Whether the last recall is so long ago that time alone asks for one."""
        if interval_s <= 0:
            return False
        return activity.recalled_at is None or at - activity.recalled_at >= interval_s

    def read_answers(self, store: MemoryStore, cube_id: str, user_id: str) -> Answers:
        """The answers as the store has them. Kept apart from the queries: tasks of another lane write them."""
        value = store.state(cube_id, _answers_name(user_id))
        return Answers() if value is None else Answers.from_json(value)

    def answered(self, before: Answers, text: str, used: Sequence[str], at: float) -> Answers:
        """The state after an answer. The window and its texts are bounded."""
        newest = GivenAnswer(text[:ANSWER_CHARS_MAX], tuple(used[:USED_KEPT_MAX]), at)
        window = (*before.window, newest)[-self._window :]
        return Answers(window, before.count + 1, before.used_count + len(used))

    def answers_change(self, cube_id: str, user_id: str, answers: Answers) -> PutState:
        """The change that stores the answers."""
        return PutState(cube_id, _answers_name(user_id), answers.to_json())

    def change(self, cube_id: str, user_id: str, activity: Activity) -> PutState:
        """The change that stores the state."""
        return PutState(cube_id, _name(user_id), activity.to_json())


def _name(user_id: str) -> str:
    return f"activity/{user_id}"


def _answers_name(user_id: str) -> str:
    return f"answers/{user_id}"
