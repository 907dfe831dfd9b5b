"""Working memories to compare: those of the books, the one of before, the one of production, the optimum.

A policy sees for each question, in this order, what recall found (`recalled`) and, after the answer, which of
the wanted items the answer could use (`answered`): those that stood in working memory or among the ten best
of the recall, which is what the chat recalls for itself. LRU, LFU, 2Q and ARC take both as requests: the
`depth` best of the recall, the best of them last, then what was used. Depth 0 is a cache of used items.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

from benchmarks.working_streams import POOL_FACTOR, Asked
from memos.memory.item import WorkingEntry
from memos.memory.working import POLICY, WorkingPolicy, plan_working
from memos.memory.working_record import WorkingRecord

AT = datetime(2024, 1, 1, tzinfo=UTC)


class Policy:
    """What every working memory does. This one is the plan of before: the best of the newest recall."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._newest: frozenset[str] = frozenset()

    def held(self) -> AbstractSet[str]:
        return self._newest

    def recalled(self, asked: Asked) -> None:
        self._newest = frozenset(one.item_id for one in asked.candidates[: self.capacity])

    def answered(self, used: Sequence[str]) -> None:
        pass


class Ours(Policy):
    """Production: the pure function and the record that `mem_update` uses."""

    def __init__(self, capacity: int, policy: WorkingPolicy = POLICY) -> None:
        super().__init__(capacity)
        self.policy = policy
        self.entries: tuple[WorkingEntry, ...] = ()
        self.record = WorkingRecord()
        self._used: Sequence[str] = ()

    def held(self) -> AbstractSet[str]:
        return {entry.item_id for entry in self.entries}

    def recalled(self, asked: Asked) -> None:
        uses = [self.record.use_of(one, recalled=True) for one in self._used]
        candidates = asked.candidates[: POOL_FACTOR * self.capacity]
        plan = plan_working(
            self.entries,
            candidates,
            capacity=self.capacity,
            now=AT,
            order=self.record.order,
            used=Counter(self._used),
            balance=self.record.balanced(uses),
            policy=self.policy,
        )
        first = [one.item_id for one in candidates]
        self.record = self.record.after(plan, uses, first=first, sufficed=0, gone=0)
        self.entries, self._used = plan.entries, ()

    def answered(self, used: Sequence[str]) -> None:
        self._used = used


class Requested(Policy):
    """A cache of the books: everything comes as requests. Subclasses decide about one."""

    def __init__(self, capacity: int, depth: int) -> None:
        super().__init__(capacity)
        self.depth = depth

    def recalled(self, asked: Asked) -> None:
        for one in reversed(asked.candidates[: self.depth]):
            self.request(one.item_id)

    def answered(self, used: Sequence[str]) -> None:
        for one in used:
            self.request(one)

    def request(self, item: str) -> None:
        raise NotImplementedError


class Lru(Requested):
    """Least recently used leaves."""

    def __init__(self, capacity: int, depth: int) -> None:
        super().__init__(capacity, depth)
        self._items: OrderedDict[str, None] = OrderedDict()

    def held(self) -> AbstractSet[str]:
        return self._items.keys()

    def request(self, item: str) -> None:
        self._items.pop(item, None)
        self._items[item] = None
        if len(self._items) > self.capacity:
            self._items.popitem(last=False)


class Lfu(Requested):
    """Least often used leaves, of equals the least recent; counts are kept for ever."""

    def __init__(self, capacity: int, depth: int) -> None:
        super().__init__(capacity, depth)
        self._counts: Counter[str] = Counter()
        self._times: dict[str, int] = {}
        self._now = 0

    def held(self) -> AbstractSet[str]:
        return self._times.keys()

    def request(self, item: str) -> None:
        self._now += 1
        self._counts[item] += 1
        self._times[item] = self._now
        if len(self._times) > self.capacity:
            others = (one for one in self._times if one != item)
            del self._times[min(others, key=lambda one: (self._counts[one], self._times[one]))]


class TwoQ(Requested):
    """2Q, full version (Johnson and Shasha 1994, VLDB, figure 2): a quarter in, a ghost half as long."""

    def __init__(self, capacity: int, depth: int) -> None:
        super().__init__(capacity, depth)
        self._inside: OrderedDict[str, None] = OrderedDict()
        self._ghosts: OrderedDict[str, None] = OrderedDict()
        self._main: OrderedDict[str, None] = OrderedDict()

    def held(self) -> AbstractSet[str]:
        return {*self._inside, *self._main}

    def request(self, item: str) -> None:
        if item in self._main:
            self._main.move_to_end(item)
        elif item in self._ghosts:
            del self._ghosts[item]
            self._make_room()
            self._main[item] = None
        elif item not in self._inside:
            self._make_room()
            self._inside[item] = None

    def _make_room(self) -> None:
        if len(self._inside) + len(self._main) < self.capacity:
            return
        if len(self._inside) > max(1, self.capacity // 4) or not self._main:
            self._ghosts[self._inside.popitem(last=False)[0]] = None
            if len(self._ghosts) > max(1, self.capacity // 2):
                self._ghosts.popitem(last=False)
        else:
            self._main.popitem(last=False)


class Arc(Requested):
    """ARC (Megiddo and Modha 2003, FAST, figure 4)."""

    def __init__(self, capacity: int, depth: int) -> None:
        super().__init__(capacity, depth)
        self._target = 0
        self._once: OrderedDict[str, None] = OrderedDict()
        self._often: OrderedDict[str, None] = OrderedDict()
        self._once_ghosts: OrderedDict[str, None] = OrderedDict()
        self._often_ghosts: OrderedDict[str, None] = OrderedDict()

    def held(self) -> AbstractSet[str]:
        return {*self._once, *self._often}

    def request(self, item: str) -> None:
        ghosts = (len(self._once_ghosts), len(self._often_ghosts))
        if item in self._once or item in self._often:
            self._once.pop(item, None)
            self._often.pop(item, None)
        elif item in self._once_ghosts:
            self._target = min(self.capacity, self._target + max(1, ghosts[1] // ghosts[0]))
            self._replace(item)
            del self._once_ghosts[item]
        elif item in self._often_ghosts:
            self._target = max(0, self._target - max(1, ghosts[0] // ghosts[1]))
            self._replace(item)
            del self._often_ghosts[item]
        else:
            self._make_room(item, sum(ghosts))
            self._once[item] = None
            return
        self._often[item] = None

    def _make_room(self, item: str, ghosts: int) -> None:
        if len(self._once) + len(self._once_ghosts) >= self.capacity:
            if len(self._once) < self.capacity:
                self._once_ghosts.popitem(last=False)
                self._replace(item)
            else:
                self._once.popitem(last=False)
            return
        held = len(self._once) + len(self._often)
        if held + ghosts >= self.capacity:
            if held + ghosts >= 2 * self.capacity:
                self._often_ghosts.popitem(last=False)
            if held >= self.capacity:
                self._replace(item)

    def _replace(self, item: str) -> None:
        over = len(self._once) > self._target
        at_target = item in self._often_ghosts and len(self._once) == self._target
        if self._once and (over or at_target):
            self._once_ghosts[self._once.popitem(last=False)[0]] = None
        elif self._often:
            self._often_ghosts[self._often.popitem(last=False)[0]] = None


PEERS: dict[str, type[Requested]] = {"lru": Lru, "lfu": Lfu, "twoq": TwoQ, "arc": Arc}
DEPTHS = (0, 5, 10, 20)


def optimum(stream: Iterable[Asked], capacity: int, *, demand: bool) -> int:
    """How many of the wanted items a clairvoyant working memory holds before their questions (Belady 1966).

    It may take in what recall offers (`demand`: only what a question wanted and recall offered) and keeps
    whatever is wanted soonest. Each time an item could be taken in for the last time before it is wanted
    begins an interval that ends with the question; at most `capacity` may overlap, and to drop the one that
    ends last is optimal for their number. Counts items, so for questions with several it is a bound.
    """
    seen: dict[str, int] = {}
    ending: dict[int, list[tuple[int, str]]] = {}
    last = 0
    for now, asked in enumerate(stream):
        for item in asked.wanted:
            if item in seen:
                ending.setdefault(seen[item], []).append((now, item))
        offered = [one.item_id for one in asked.candidates[: POOL_FACTOR * capacity]]
        seen |= {item: now for item in offered if not demand or item in asked.wanted}
        seen |= {item: now for item in asked.wanted if item in seen}  # what is held can stay
        last = now
    kept: list[tuple[int, str]] = []
    hits = 0
    for now in range(last + 1):
        hits += sum(end == now for end, _ in kept)
        kept = sorted([*(one for one in kept if one[0] > now), *ending.get(now, ())])[:capacity]
    return hits
