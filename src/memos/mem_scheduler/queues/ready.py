"""Which lane is claimed next: levels, classes, then users in fair order.

A lane is ready when its head is due and a slot is free; it then stands in the fair order of its class
under the label of its head, so that a claim finds what it serves without looking at other lanes.
Levels are gone through in order, but one pick in 16 begins with a lower one. Classes of one level take
turns. The waiting messages are counted by the label of their lane's head: a lane whose head nobody
serves is parked whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from memos.mem_scheduler.queues.base import PolicyTable
from memos.mem_scheduler.queues.fair import FairOrder
from memos.mem_scheduler.queues.lanes import LaneQueue
from memos.mem_scheduler.queues.policies import slots_of
from memos.mem_scheduler.schemas.task_schemas import class_of

LOWER_SHARE = 16  # one pick in so many begins with a lower level
_PLANS_MAX = 64


class _Class:
    """The ready lanes of one class."""

    __slots__ = ("lanes", "order", "served")

    def __init__(self, aside: Collection[str]) -> None:
        self.order: FairOrder[LaneQueue] = FairOrder(aside)
        self.lanes = 0  # lanes of the class that exist
        self.served = 0  # number of the last pick


@dataclass(frozen=True, slots=True)
class _Plan:
    """The classes that a set of labels serves, by level; valid for one version of the policies."""

    version: int
    levels: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...]


class ReadyLanes:
    """Not thread-safe: the queue's lock covers it."""

    def __init__(
        self,
        policies: PolicyTable,
        weight_of: Callable[[str], float],
        *,
        aside: Collection[str] = frozenset(),
    ) -> None:
        """`aside`: the users who get no turn now; `set_aside` and `bring_back` follow its changes."""
        self._aside = aside
        self._policies = policies
        self._weight_of = weight_of
        self._classes: dict[str, _Class] = {}
        self._plans: dict[frozenset[str], _Plan] = {}
        self._picks = 0
        self.waiting_by_head: dict[str, int] = {}

    def opened(self, line: LaneQueue) -> None:
        """A lane came into being."""
        name = line.lane.task_class
        if name not in self._classes:
            self._classes[name] = _Class(self._aside)
        self._classes[name].lanes += 1

    def closed(self, line: LaneQueue) -> None:
        """A lane holds nothing any more. A class without lanes is at rest and starts anew."""
        name = line.lane.task_class
        self._classes[name].lanes -= 1
        if not self._classes[name].lanes:
            del self._classes[name]

    def update(self, line: LaneQueue, now: float) -> bool:
        """Put the lane where its head says. True when it is ready now, even if its user is set aside."""
        head = line.head
        label = head.label if head is not None else None
        self._count(line, label)
        wanted = label
        if head is not None and (head.due_at > now or not self._has_slot(line, head.label)):
            wanted = None
        before = line.ready_label
        if wanted != before:
            order = self._classes[line.lane.task_class].order
            if before is not None:
                order.remove(line.lane.user_id, before, line)
            if wanted is not None:
                order.add(line.lane.user_id, wanted, line)
            line.ready_label = wanted
        return wanted is not None

    def has(self, labels: frozenset[str]) -> bool:
        """Whether a claim of these labels would find a lane."""
        return any(self._ready(name, own) for level in self._plan(labels).levels for name, own in level)

    def pick(self, labels: frozenset[str]) -> LaneQueue | None:
        """Take out the lane to be claimed next. The caller follows with `charge` and `update`."""
        levels = self._plan(labels).levels
        if self._picks % LOWER_SHARE == LOWER_SHARE - 1:
            lower = levels[1:] if self._picks // LOWER_SHARE % 2 else levels[:0:-1]
            levels = (*lower, *levels[:1])
        for level in levels:
            chosen: _Class | None = None
            chosen_labels: tuple[str, ...] = ()
            for name, own in level:
                candidate = self._classes.get(name)
                if (
                    candidate is not None
                    and candidate.order.has(own)
                    and (chosen is None or candidate.served < chosen.served)
                ):
                    chosen, chosen_labels = candidate, own
            if chosen is None:
                continue
            line = chosen.order.pop(chosen_labels)
            if line is not None:
                self._picks += 1
                chosen.served = self._picks
                line.ready_label = None
                return line
        return None

    def set_aside(self, user_id: str) -> None:
        """None of the user's lanes is picked from now on."""
        for one in self._classes.values():
            one.order.set_aside(user_id)

    def bring_back(self, user_id: str) -> list[str]:
        """The user's lanes are picked again. Returns the labels under which some are ready."""
        return [label for one in self._classes.values() for label in one.order.bring_back(user_id)]

    def charge(self, line: LaneQueue, messages: int) -> None:
        """The lane's user was served so many messages."""
        user_id = line.lane.user_id
        order = self._classes[line.lane.task_class].order
        order.charge(user_id, messages, weight=self._weight_of(user_id))

    def virtual_time(self, task_class: str) -> float | None:
        """The virtual time of a class; None when it is at rest."""
        found = self._classes.get(task_class)
        return found.order.virtual_time if found is not None else None

    def _has_slot(self, line: LaneQueue, label: str) -> bool:
        return not line.leases or len(line.leases) < slots_of(self._policies.get(label))

    def _ready(self, name: str, labels: tuple[str, ...]) -> bool:
        found = self._classes.get(name)
        return found is not None and found.order.has(labels)

    def _count(self, line: LaneQueue, label: str | None) -> None:
        number = line.waiting
        counts = self.waiting_by_head
        if label == line.head_label:
            if label is not None:
                counts[label] += number - line.waiting_counted
                line.waiting_counted = number
            return
        if line.head_label is not None:
            left = counts[line.head_label] - line.waiting_counted
            if left:
                counts[line.head_label] = left
            else:
                del counts[line.head_label]
        if label is not None:
            counts[label] = counts.get(label, 0) + number
        line.head_label, line.waiting_counted = label, number

    def _plan(self, labels: frozenset[str]) -> _Plan:
        version = self._policies.version
        plan = self._plans.get(labels)
        if plan is not None and plan.version == version:
            return plan
        if len(self._plans) >= _PLANS_MAX:
            self._plans.clear()
        levels: dict[int, dict[str, list[str]]] = {1: {}, 2: {}, 3: {}}
        for label in sorted(labels):
            level = int(self._policies.get(label).level)
            levels[level].setdefault(class_of(label), []).append(label)
        plan = _Plan(
            version,
            tuple(
                tuple((name, tuple(own)) for name, own in classes.items())
                for _, classes in sorted(levels.items())
            ),
        )
        self._plans[labels] = plan
        return plan
