"""Which shard is served next: the fair order over users, carried over several shards. Pure.

Each shard orders its own users by start tags (start-time fair queueing) and tells the tag of who is next. Tags
of two shards do not compare: each counts the service of its own users from its own beginning. What compares is
how fast they rise, as a shard's tags rise by the service that each of its users got. So each shard has a `pass`
in each class, which rises as its tags do, and the lowest is served next; a shard that had nothing to do comes
in at the pass that was served last, so that pausing saves up no credit. Every process keeps its own count.

Levels and classes are what they are in one queue: levels in order, one pick in 16 for the lower ones, and in a
level the class that was served longest ago.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

LOWER_EVERY = 16


@dataclass(slots=True)
class _Shard:
    tags: dict[str, float] = field(default_factory=dict)  # of who is next, as the shard last told
    offsets: dict[str, float] = field(default_factory=dict)  # pass = tag + offset
    served: int = 0  # when it was picked last

    def passed(self, name: str) -> float:
        return self.tags[name] + self.offsets[name]


@dataclass(frozen=True, slots=True)
class Choice:
    """Take up to `lanes` lanes of this class from this shard."""

    shard: int
    task_class: str
    lanes: int


class ShardOrder:
    """Not thread-safe. Classes are named as the scripts name them."""

    def __init__(self, count: int) -> None:
        self._shards = [_Shard() for _ in range(count)]
        self._time: dict[str, float] = {}  # by class: the pass that was served last
        self._served: dict[str, int] = {}  # by class: the pick that it had last
        self._picks = 0

    def told(self, number: int, tags: Mapping[str, float]) -> None:
        """The shard says who is next: the start tag by class; a class that is not named has nothing to run."""
        shard = self._shards[number]
        for name, tag in tags.items():
            now = self._time.get(name, 0.0)
            if name not in shard.offsets:
                shard.offsets[name] = now - tag
            elif name not in shard.tags or tag < shard.tags[name]:
                shard.offsets[name] = max(shard.offsets[name], now - tag)
        shard.tags = dict(tags)

    def is_busy(self, number: int, classes: Collection[str]) -> bool:
        """Whether the shard has work of one of these classes, as far as is known."""
        return not self._shards[number].tags.keys().isdisjoint(classes)

    def choose(
        self,
        levels: Sequence[Sequence[str]],
        room: int,
        *,
        whole: int = 0,
        without: Collection[int] = (),
        fruitless: Collection[tuple[int, str]] = (),
    ) -> Choice | None:
        """Who is next among the classes of `levels`, for a caller who takes `room` lanes more of `whole`; None: nobody.

        `without`: shards that do not answer; `fruitless`: what gave nothing just now.
        """
        turn = self._picks % LOWER_EVERY
        lower = turn == LOWER_EVERY - 1 and len(levels) > 1
        for level in self._lower_first(levels) if lower else levels:
            found = {
                name: able
                for name in level
                if (
                    able := [
                        number
                        for number, shard in enumerate(self._shards)
                        if name in shard.tags and number not in without and (number, name) not in fruitless
                    ]
                )
            }
            if found:
                name = min(found, key=lambda one: self._served.get(one, 0))
                number = min(found[name], key=lambda one: self._turn_of(one, name))
                lanes = 1 if lower or len(found) > 1 else -(-max(room, whole) // len(found[name]))
                if len(levels) > 1:
                    lanes = min(lanes, max(1, LOWER_EVERY - 1 - turn))
                return Choice(number, name, min(lanes, room))
        return None

    def took(self, number: int, name: str, lanes: int) -> None:
        """That many lanes of the class came from the shard. To be told before the tags that it then has.

        Without having been chosen: nobody else was ready, and what it was given is not held against it.
        """
        shard = self._shards[number]
        self._picks += lanes
        self._served[name] = shard.served = self._picks
        if name in shard.tags:
            self._time[name] = max(self._time.get(name, 0.0), shard.passed(name))
        else:
            shard.offsets.pop(name, None)

    def _turn_of(self, number: int, name: str) -> tuple[float, int]:
        shard = self._shards[number]
        return shard.passed(name), shard.served

    def _lower_first(self, levels: Sequence[Sequence[str]]) -> list[Sequence[str]]:
        lower = list(levels[1:])
        if self._picks // LOWER_EVERY % 2 == 0:
            lower.reverse()
        return [*lower, levels[0]]
