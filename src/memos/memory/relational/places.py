"""The places of working memory: an ordered set of references to items, replaced whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memos.errors import InvalidInput
from memos.memory.item import WorkingEntry
from memos.memory.relational.cubes import CubeRow


@dataclass(frozen=True, slots=True)
class Place:
    """One place and the number of the item that holds it."""

    item_no: int
    entry: WorkingEntry


def check_scores(places: Sequence[Place]) -> None:
    """InvalidInput for a score that cannot be compared."""
    for place in places:
        if not math.isfinite(place.entry.score):
            raise InvalidInput(
                f"the score of item {place.entry.item_id!r} is {place.entry.score}; give a number"
            )


def place_fields(cube: CubeRow, places: Sequence[Place]) -> dict[str, Any]:
    """A working set for the journal: who is there and why, no text."""
    return {
        "version": cube.working_version,
        "entries": [{"id": place.entry.item_id, "reason": place.entry.reason} for place in places],
    }
