"""What the ledger, the store and the queue say about each guarantee. Pure: values in, a `Verdict` out.

Nothing here trusts the queue alone: a message counts as done only if a handler's successful return stands
in the ledger, an effect only if it stands in the store, and an order only as handlers saw it.

A handler may run again only where its first run did not get through: its process was killed, stood still
or was cut off while it held the message. Any other repeat is a fault, so the number of repeats can never
pass what was in flight.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from memos.chaos import labels
from memos.chaos.ledger import (
    Accepted,
    Began,
    Claimed,
    Ended,
    Event,
    Killed,
    Refused,
    Settled,
    Stood,
    Tried,
)

EXAMPLES_MAX = 20
DONE, DEAD = "completed", "failed"
_FINAL = frozenset({DONE, DEAD, "cancelled"})
_NEVER = float("inf")
_BY_A_USER = frozenset({labels.ORDERED, labels.PLAIN, labels.RELAY, labels.FLAKY})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is there when all is over: effects in the store by name, and the queue's states by name.

    `states` None: the queue was in memory and went with its processes; the ledger's answers count.
    """

    effects: Mapping[str, int]
    states: Mapping[str, str] | None


@dataclass(slots=True)
class Verdict:
    """The numbers of a run. Those of `broken` must be 0."""

    submitted: int = 0
    unanswered: int = (
        0  # submits whose process was killed, or whose call failed: there or not, both are right
    )
    done: int = 0
    dead: int = 0
    gone: int = 0  # waited in the memory of a process that was killed: only with the queue in memory
    lost: int = 0
    wrongly_dead: int = 0
    effects: int = 0
    effects_twice: int = 0
    effects_lost: int = 0
    repeats: int = 0
    in_flight: int = 0
    repeats_unexplained: int = 0
    out_of_order: int = 0
    overlaps: int = 0
    kills: int = 0
    kills_by_place: dict[str, int] = field(default_factory=dict)
    stood_still: int = 0
    recoveries: list[float] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def broken(self) -> dict[str, int]:
        """The guarantees that do not hold, with how often."""
        numbers = {
            "lost": self.lost,
            "wrongly dead": self.wrongly_dead,
            "effects applied twice": self.effects_twice,
            "effects lost": self.effects_lost,
            "repeats without a fault": self.repeats_unexplained,
            "out of order": self.out_of_order,
            "lease overlaps": self.overlaps,
        }
        return {name: count for name, count in numbers.items() if count}

    def tell(self, text: str) -> None:
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(text)


@dataclass(slots=True)
class _Run:
    began: Began
    ended: Ended | None = None


@dataclass(slots=True)
class _Claim:
    at: float
    pid: int
    state: str = ""  # "" while `finish` has not answered


class _Seen:
    """The events of one run, by what they are asked for."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.tried: dict[str, Tried] = {}
        self.accepted: set[str] = set()
        self.claims: dict[str, list[_Claim]] = defaultdict(list)
        self.runs: dict[tuple[int, int], _Run] = {}
        self.killed: dict[int, Killed] = {}
        self.stood: list[Stood] = []
        self.claims_of: dict[int, list[tuple[str, _Claim]]] = defaultdict(list)
        self.final: dict[str, str] = {}
        self.ran_well: set[str] = set()
        open_claims: dict[tuple[int, int], dict[str, _Claim]] = {}
        for event in events:
            match event:
                case Tried():
                    self.tried.update(dict.fromkeys(event.items, event))
                case Accepted():
                    self.accepted.update(event.items)
                case Claimed():
                    batch = {item: _Claim(event.at, event.pid) for item in event.items}
                    open_claims[event.pid, event.epoch] = batch
                    for item, claim in batch.items():
                        self.claims[item].append(claim)
                        self.claims_of[event.pid].append((item, claim))
                case Settled():
                    batch = open_claims.get((event.pid, event.epoch), {})
                    for item, state in zip(event.items, event.states, strict=True):
                        if item in batch:
                            batch[item].state = state
                        if state in _FINAL:
                            self.final[item] = state
                case Began():
                    self.runs[event.pid, event.run] = _Run(event)
                case Ended():
                    run = self.runs.get((event.pid, event.run))
                    if run is not None:
                        run.ended = event
                        if event.ok:
                            self.ran_well.update(run.began.items)
                case Killed():
                    self.killed.setdefault(event.pid, event)
                case Stood():
                    self.stood.append(event)
                case Refused():
                    pass  # the claim stays open: what becomes of it is for the next holder to say

    def stood_in(self, pid: int, since: float, until: float) -> list[Stood]:
        return [one for one in self.stood if one.pid in (0, pid) and one.at < until and one.until > since]


def judge(events: Sequence[Event], outcome: Outcome, *, lease_s: float) -> Verdict:
    """Hold everything that was seen against the guarantees. `events` in the order of their times."""
    seen = _Seen(events)
    found = Verdict(
        submitted=len(seen.accepted),
        unanswered=len(seen.tried.keys() - seen.accepted),
        kills=len(seen.killed),
        kills_by_place=dict(Counter(one.where for one in seen.killed.values())),
        stood_still=len(seen.stood),
        effects=sum(outcome.effects.values()),
    )
    states = dict(seen.final) if outcome.states is None else dict(outcome.states)
    _account(found, seen, states, in_memory=outcome.states is None)
    _effects(found, seen, states, outcome.effects)
    _repeats(found, seen)
    _order(found, seen, in_memory=outcome.states is None)
    _overlaps(found, seen, grace_s=lease_s / 3 + 0.2)
    _recoveries(found, seen)
    return found


def _label(item: str) -> str:
    return item.split(":", 1)[0]


def _account(found: Verdict, seen: _Seen, states: Mapping[str, str], *, in_memory: bool) -> None:
    """Each accepted message is done (and a handler said so), dead where it has to be, or lost."""
    wanted = set(seen.accepted)
    for parent, child in labels.CHAINS.items():
        wanted |= {
            f"{child}:{item.split(':', 1)[1]}"
            for item in seen.accepted
            if _label(item) == parent and states.get(item) == DONE
        }
    for item in sorted(wanted):
        state = states.get(item, "")
        if state == DONE and item in seen.ran_well and _label(item) not in labels.TO_DIE:
            found.done += 1
        elif state == DEAD and _label(item) in labels.TO_DIE:
            found.dead += 1
        elif state == DEAD:
            found.wrongly_dead += 1
            found.tell(f"{item} is a dead letter")
        elif in_memory and state != DONE and _went_with_a_process(item, seen):
            found.gone += 1
        else:
            found.lost += 1
            found.tell(f"{item} is lost: the queue says {state or 'nothing'}")


def _went_with_a_process(item: str, seen: _Seen) -> bool:
    """With the queue in memory: the process that took it, or that its parent was in, was killed."""
    name = item.split(":", 1)[1]
    tried = seen.tried.get(item) or next(
        (seen.tried[f"{parent}:{name}"] for parent in labels.CHAINS if f"{parent}:{name}" in seen.tried), None
    )
    return tried is not None and tried.pid in seen.killed


def _effects(found: Verdict, seen: _Seen, states: Mapping[str, str], effects: Mapping[str, int]) -> None:
    """Once each; there for what is done; and what was chained to an effect that is there is there too."""
    for item, count in effects.items():
        if count > 1:
            found.effects_twice += 1
            found.tell(f"{item} took effect {count} times")
        child = labels.CHAINS.get(_label(item))
        if child is not None and not effects.get(f"{child}:{item.split(':', 1)[1]}"):
            found.effects_lost += 1
            found.tell(f"{item} took effect, what it chained did not")
    for item, state in states.items():
        if state == DONE and _label(item) in labels.WITH_EFFECT and not effects.get(item):
            found.effects_lost += 1
            found.tell(f"{item} is done and took no effect")


def _repeats(found: Verdict, seen: _Seen) -> None:
    """A message of a user's handler is claimed again only where its holder failed, gave up, or was struck."""
    for item, claims in seen.claims.items():
        if _label(item) not in _BY_A_USER:
            continue
        found.in_flight += sum(claim.state == "" for claim in claims)
        for earlier, later in itertools.pairwise(claims):
            if earlier.state and earlier.state not in _FINAL:
                continue  # retried, or handed back
            killed = seen.killed.get(earlier.pid)
            struck = (killed is not None and killed.at <= later.at) or bool(
                seen.stood_in(earlier.pid, earlier.at, later.at)
            )
            if earlier.state or not struck:
                found.repeats_unexplained += 1
                found.tell(
                    f"{item} came again at {later.at:.3f}, after {earlier.state or 'no fault'} "
                    f"in process {earlier.pid} at {earlier.at:.3f}"
                )
            found.repeats += 1


def _order(found: Verdict, seen: _Seen, *, in_memory: bool) -> None:
    """No handler begins with a message of an ordered lane before each older one has returned well."""
    lanes: dict[tuple[str, int], list[str]] = defaultdict(list)
    for item, tried in seen.tried.items():  # in the order in which they were submitted
        if tried.label == labels.ORDERED and item in seen.accepted:
            lanes[tried.lane, tried.pid if in_memory else 0].append(item)
    place: dict[str, tuple[tuple[str, int], int]] = {
        item: (lane, number) for lane, items in lanes.items() for number, item in enumerate(items)
    }
    well: dict[tuple[str, int], set[int]] = defaultdict(set)
    reached: Counter[tuple[str, int]] = Counter()
    moments: list[tuple[float, bool, _Run]] = []
    for run in seen.runs.values():
        if run.began.items[0] in place or any(item in place for item in run.began.items):
            moments.append((run.began.at, True, run))
            if run.ended is not None and run.ended.ok:
                moments.append((run.ended.at, False, run))
    for _, begins, run in sorted(moments, key=lambda moment: moment[0]):
        here: set[int] = set()
        for item in run.began.items:
            if item not in place:
                continue
            lane, number = place[item]
            if not begins:
                well[lane].add(number)
                while reached[lane] in well[lane]:
                    well[lane].remove(reached[lane])
                    reached[lane] += 1
                continue
            ahead = [n for n in range(reached[lane], number) if n not in well[lane] and n not in here]
            if ahead:
                found.out_of_order += 1
                found.tell(f"{item} began at {run.began.at:.3f} before {lanes[lane][ahead[0]]} was done")
            here.add(number)


def _overlaps(found: Verdict, seen: _Seen, *, grace_s: float) -> None:
    """Two processes, both alive and awake, never run handlers of one ordered lane at the same time."""
    by_lane: dict[str, list[tuple[float, float, int, str]]] = defaultdict(list)
    for run in seen.runs.values():
        began = run.began
        if _label(began.items[0]) != labels.ORDERED:
            continue
        end = run.ended.at if run.ended is not None else _NEVER
        killed = seen.killed.get(began.pid)
        if killed is not None:
            end = min(end, killed.at)
        for one in seen.stood:
            if one.pid in (0, began.pid) and one.at < end and one.until + grace_s > began.at:
                end = min(end, max(one.at, began.at))  # from then on it is a zombie, and fenced off
        by_lane[began.lane].append((began.at, end, began.pid, began.items[0]))
    for lane, spans in by_lane.items():
        spans.sort()
        last_end, last_pid = -_NEVER, 0
        for begin, end, pid, item in spans:
            if begin < last_end and pid != last_pid:
                found.overlaps += 1
                found.tell(f"{lane}: {pid} began {item} at {begin:.3f} while {last_pid} still ran")
            if end > last_end:
                last_end, last_pid = end, pid


def _recoveries(found: Verdict, seen: _Seen) -> None:
    """From each kill with work in flight to the first claim of some of it by another process."""
    for pid, killed in seen.killed.items():
        held = {item for item, claim in seen.claims_of[pid] if claim.state == ""}
        again = [
            claim.at
            for item in held
            for claim in seen.claims[item]
            if claim.pid != pid and claim.at > killed.at
        ]
        if again:
            found.recoveries.append(min(again) - killed.at)
