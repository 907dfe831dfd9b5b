"""In which order memories stand in the block, so that an update leaves its beginning as it was. Pure.

Order is residence time: oldest first, newcomers at the tail. A memory that only lost its rank stays where
it is as slack, as long as slack is at most `slack` of the wanted tokens; one that was deleted, changed or
contradicted goes at once. Over budget, the block is cut where leaving entries out frees enough for the
least to be computed again: what has no place is left out behind the cut, what is in front of it stays. A
memory that returns while it still stands there costs nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

SLACK = 0.25


@dataclass(frozen=True, slots=True)
class Wanted:
    """A memory that ought to stand in the block. tokens, digest: of its line.

    Two lines with one digest are one: the version of a row rises with each use, its line does not change.
    """

    item_id: str
    version: int
    tokens: int
    digest: str


@dataclass(frozen=True, slots=True)
class Resident:
    """A memory that stands there. mark: the short name that the block calls it by (`m7`), given once.

    version: of the row when it entered.
    """

    item_id: str
    version: int
    tokens: int
    digest: str
    mark: int


@dataclass(frozen=True, slots=True)
class LayoutState:
    """What stands in the block of one cube and reader, oldest first; `next_mark` is not used yet."""

    residents: tuple[Resident, ...] = ()
    next_mark: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """The next state. The first `kept` residents are as before; tokens are those of the lines alone.

    rank: the marks of what is wanted, most relevant first. slack_tokens: of what only stays in its place.
    """

    state: LayoutState
    kept: int
    kept_tokens: int
    tokens: int
    slack_tokens: int
    rank: tuple[int, ...] = field(default=())

    @property
    def reuse(self) -> float:
        """The share of the block's tokens that need not be computed again; 1 for an empty block."""
        return self.kept_tokens / self.tokens if self.tokens else 1.0


def plan(
    state: LayoutState,
    wanted: Sequence[Wanted],
    *,
    standing: Mapping[str, str],
    slack: float = SLACK,
    tokens_max: int | None = None,
) -> Plan:
    """The block that holds everything wanted (most relevant first, each memory once).

    standing: id -> digest of the line of every resident that may still be shown: live, not contradicted. A
    resident that is not in it, or has another digest, is purged. tokens_max: of the lines together; what is
    wanted and does not fit any more is left out, the least relevant first.
    """
    chosen = _fitting(wanted, tokens_max)
    wanted_tokens = sum(one.tokens for one in chosen.values())
    slack_max = int(slack * wanted_tokens)
    if tokens_max is not None:
        slack_max = min(slack_max, tokens_max - wanted_tokens)

    def holds(one: Resident) -> bool:
        newest = chosen.get(one.item_id)
        digest = standing.get(one.item_id) if newest is None else newest.digest
        return digest == one.digest

    kept = list(takewhile(holds, state.residents))
    cut = _cut(kept, chosen, slack_max)
    spare = sum(one.tokens for one in kept[:cut] if one.item_id not in chosen)
    length = sum(one.tokens for one in kept[:cut])
    residents = list(state.residents[:cut])
    residents += [one for one in state.residents[cut:] if one.item_id in chosen and holds(one)]
    here = {one.item_id for one in residents}
    next_mark = state.next_mark
    for new in chosen.values():
        if new.item_id not in here:
            residents.append(Resident(new.item_id, new.version, new.tokens, new.digest, next_mark))
            next_mark += 1
    marks = {one.item_id: one.mark for one in residents}
    return Plan(
        LayoutState(tuple(residents), next_mark),
        kept=cut,
        kept_tokens=length,
        tokens=wanted_tokens + spare,
        slack_tokens=spare,
        rank=tuple(marks[item_id] for item_id in chosen),
    )


def _cut(kept: Sequence[Resident], chosen: Mapping[str, Wanted], slack_max: int) -> int:
    """How many of `kept` stay: all of them, or, when their slack is too much, as many as make the tokens that
    are computed again fewest for each token of slack that goes.

    Cutting where just enough goes would come back with the next update: what is freed has to last.
    """
    spare = [0 if one.item_id in chosen else one.tokens for one in kept]
    total, left = sum(spare), 0
    if total <= slack_max:
        return len(kept)
    again = sum(one.tokens for one in kept) - total  # of what is wanted behind the cut
    best, best_cost = 0, math.inf
    for place, one in enumerate(kept):
        if left > slack_max:
            break
        if spare[place] and (cost := again / (total - left)) < best_cost:
            best, best_cost = place, cost
        left += spare[place]
        again -= one.tokens - spare[place]
    return best


def _fitting(wanted: Sequence[Wanted], tokens_max: int | None) -> dict[str, Wanted]:
    chosen: dict[str, Wanted] = {}
    spent = 0
    for one in wanted:
        if one.item_id in chosen or (tokens_max is not None and spent + one.tokens > tokens_max):
            continue
        chosen[one.item_id] = one
        spent += one.tokens
    return chosen


def digest_of(line: str) -> str:
    """What tells two lines apart."""
    return hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def namespace_of(reader: str, cube_ids: Sequence[str], *, salt: str = "") -> str:
    """Who may share a prefix: one reader of these cubes, in this order. Tells neither name.

    salt: of the store, so that two stores behind one server share nothing.
    """
    said = "\x1f".join((salt, reader, *cube_ids)).encode()
    return hashlib.sha256(b"memos activation namespace\x1e" + said).hexdigest()[:32]
