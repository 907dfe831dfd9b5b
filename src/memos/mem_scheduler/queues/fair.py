"""Who is served next: start-time fair queueing over users (Goyal, Vin & Cheng, 1996, section 2). Pure.

Each user is a flow with a start tag; the ready flow with the smallest tag is served, the virtual time
moves to that tag, and the flow's tag grows by cost / weight. A flow that comes back after a pause
starts at the virtual time: it neither saves up credit nor waits behind the others' backlog. All items
(lanes) of a user share one tag and take turns, so a thousand cubes weigh as much as one.

A user who is set aside keeps its items and gets no turn until it is brought back, at the virtual time.

Items stand under a label, and `pop` looks only at the labels it is asked for. Each label keeps a heap
of flows; a flow's position in a heap may be out of date, which is put right when it comes to the top
(tags only grow). Every operation is O(log users).
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

_COMPACT_ABOVE = 64


class _Flow(Generic[Item]):
    """One user: its start tag and its ready items by label."""

    __slots__ = ("heaps", "in_idle", "ready", "tag", "user")

    def __init__(self, user: str, tag: float) -> None:
        self.user = user
        self.tag = tag
        self.ready: dict[str, OrderedDict[Item, None]] = {}
        self.heaps: set[str] = set()  # labels in whose heap this flow stands, up to date or not
        self.in_idle = False


class FairOrder(Generic[Item]):
    """The ready items of one class. Not thread-safe: the queue's lock covers it."""

    def __init__(self, aside: Collection[str] = frozenset()) -> None:
        """`aside`: the users who get no turn. Its owner says so by `set_aside` and `bring_back` as well."""
        self.virtual_time = 0.0
        self._aside = aside
        self._flows: dict[str, _Flow[Item]] = {}
        self._heaps: dict[str, list[tuple[float, int, _Flow[Item]]]] = {}
        self._flows_ready: dict[str, int] = {}  # label -> flows that have items under it
        self._idle: list[tuple[float, int, _Flow[Item]]] = []
        self._ticket = itertools.count()  # equal tags: first come, first served

    def add(self, user: str, label: str, item: Item) -> None:
        """`item` of `user` is ready under `label`, behind the user's other items there."""
        flow = self._flows.get(user)
        if flow is None:
            flow = self._flows[user] = _Flow(user, self.virtual_time)
        elif not flow.ready:
            flow.tag = max(flow.tag, self.virtual_time)
        items = flow.ready.get(label)
        if items is None:
            items = flow.ready[label] = OrderedDict()
            if user not in self._aside:
                self._enter(flow, label)
        items[item] = None

    def remove(self, user: str, label: str, item: Item) -> None:
        """`item` is no longer ready; nothing happens if it was not."""
        flow = self._flows.get(user)
        items = flow.ready.get(label) if flow is not None else None
        if flow is None or items is None or item not in items:
            return
        del items[item]
        if not items:
            self._leave(flow, label)
            self._compact(label)

    def set_aside(self, user: str) -> None:
        """The user, who is among those aside from now on, gets no turn."""
        flow = self._flows.get(user)
        for label in flow.ready if flow is not None else ():
            self._uncount(label)
            self._compact(label)

    def bring_back(self, user: str) -> list[str]:
        """The user, who is not among those aside any more, gets turns again: the labels it has items of."""
        flow = self._flows.get(user)
        if flow is None or not flow.ready:
            return []
        flow.tag = max(flow.tag, self.virtual_time)
        for label in flow.ready:
            self._enter(flow, label)
        return list(flow.ready)

    def has(self, labels: Iterable[str]) -> bool:
        """Whether an item is ready under one of `labels`."""
        ready = self._flows_ready
        return any(label in ready for label in labels)

    def pop(self, labels: Iterable[str]) -> Item | None:
        """Take out the next item of the user whose turn it is; None when nothing is ready.

        The caller follows with `charge`, and with `add` when the item has more to give.
        """
        best: tuple[float, int, _Flow[Item]] | None = None
        best_label = ""
        for label in labels:
            if label not in self._flows_ready:
                continue
            top = self._top(label)
            if best is None or top < best:
                best, best_label = top, label
        if best is None:
            return None
        flow = best[2]
        if flow.tag > self.virtual_time:
            self.virtual_time = flow.tag
            self._forget_idle()
        items = flow.ready[best_label]
        item, _ = items.popitem(last=False)
        if not items:
            self._leave(flow, best_label)
        return item

    def charge(self, user: str, cost: float, *, weight: float = 1.0) -> None:
        """The user was served `cost` units."""
        flow = self._flows.get(user)
        if flow is None:
            flow = self._flows[user] = _Flow(user, self.virtual_time)
            self._rest(flow)
        flow.tag = max(flow.tag, self.virtual_time) + cost / weight

    def _top(self, label: str) -> tuple[float, int, _Flow[Item]]:
        """The flow with the smallest tag among those with items under `label`, of which there is one."""
        heap = self._heaps[label]
        while True:
            entry = heap[0]
            tag, _, flow = entry
            if label not in flow.ready or flow.user in self._aside:
                heapq.heappop(heap)
                flow.heaps.discard(label)
            elif tag < flow.tag:
                heapq.heapreplace(heap, (flow.tag, next(self._ticket), flow))
            else:
                return entry

    def _enter(self, flow: _Flow[Item], label: str) -> None:
        """The flow may be served under that label."""
        self._flows_ready[label] = self._flows_ready.get(label, 0) + 1
        if label not in flow.heaps:
            flow.heaps.add(label)
            heapq.heappush(self._heaps.setdefault(label, []), (flow.tag, next(self._ticket), flow))

    def _leave(self, flow: _Flow[Item], label: str) -> None:
        del flow.ready[label]
        if flow.user not in self._aside:
            self._uncount(label)
        if not flow.ready:
            self._rest(flow)

    def _uncount(self, label: str) -> None:
        left = self._flows_ready[label] - 1
        if left:
            self._flows_ready[label] = left
        else:  # every entry of the heap is out of date
            del self._flows_ready[label]
            for _, _, stale in self._heaps.pop(label):
                stale.heaps.discard(label)

    def _rest(self, flow: _Flow[Item]) -> None:
        if not flow.in_idle:
            flow.in_idle = True
            heapq.heappush(self._idle, (flow.tag, next(self._ticket), flow))

    def _forget_idle(self) -> None:
        """Drop flows that have nothing ready and whose tag no longer says anything."""
        while self._idle and self._idle[0][0] <= self.virtual_time:
            _, _, flow = heapq.heappop(self._idle)
            flow.in_idle = False
            if flow.ready:
                continue
            if flow.tag > self.virtual_time:
                self._rest(flow)
            else:  # a heap may still name the object; without items it is dropped there
                del self._flows[flow.user]

    def _compact(self, label: str) -> None:
        heap = self._heaps.get(label)
        if heap is None or len(heap) <= _COMPACT_ABOVE or len(heap) <= 2 * self._flows_ready[label]:
            return
        kept = []
        for entry in heap:
            if label in entry[2].ready and entry[2].user not in self._aside:
                kept.append(entry)
            else:
                entry[2].heaps.discard(label)
        heapq.heapify(kept)
        self._heaps[label] = kept
