"""A recount of the Redis queue from its raw keys: everything that is stored twice must agree.

The scripts keep counts, heads and ready orders beside the messages, so that no call reads a whole lane.
`check_keys` reads the whole lane. What it asserts holds between any two calls; a lane for which it holds
is either empty, or leased, or blocked until a time that is noted, or ready for its user's next turn.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue, ShardedQueue


@dataclass
class _Lease:
    slot: int
    labels: dict[str, int]
    ids: list[str]
    keys: list[str]


@dataclass
class _Lane:
    """What the keys of one lane hold."""

    name: str
    at: dict[str, str]
    entries: dict[str, tuple[str, str]]  # id -> key and label, oldest first
    back: list[str]
    states: dict[str, Any]
    aside: dict[str, str]
    absorbed: dict[str, str]
    leases: list[_Lease] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # key -> place, of those that are live

    def number(self, name: str) -> int:
        return int(float(self.at.get(name, 0)))

    @property
    def user(self) -> str:
        return self.name.partition("/")[0]

    def waiting(self) -> list[str]:
        """Ids in the order in which they are taken: handed back ones, then those behind the cursor."""
        back = [one for one in self.back if one in self.entries]
        cursor = _order(self.at.get("cur", "0-0"))
        return back + [one for one in self.entries if _order(one) > cursor]


def _order(identity: str) -> tuple[int, int]:
    time_ms, _, number = identity.partition("-")
    return int(time_ms), int(number)


def check_queue(queue: TaskQueue) -> None:
    """`check_keys` of a queue on Redis, of each shard where it has several; of another nothing."""
    if isinstance(queue, ShardedQueue):
        for part in queue.parts:
            check_keys(part)
    elif isinstance(queue, RedisStreamsQueue):
        check_keys(queue)


def check_keys(queue: RedisStreamsQueue) -> None:
    """Assert that all keys of a queue that nobody is using agree with each other."""
    client: Any = queue.client
    base = f"{queue.prefix}:{{{queue.tag}}}:"
    pipe = client.pipeline(transaction=False)
    for name in ("where", "dead", "counts", "leases", "heads"):
        pipe.hgetall(f"{base}{name}")
    pipe.smembers(f"{base}lanes")
    where, dead, counted, leases, heads, names = pipe.execute()
    counts = Counter({name: float(value) for name, value in counted.items()})
    lanes = _read_lanes(client, base, sorted(names))
    _read_leases(client, base, leases, lanes)
    _check_letters(client, base, where, dead)
    for key, text in where.items():
        place, _, name = text.partition(" ")
        runner = where.get(place[1:], "") if place[0] == "a" else ""
        if place[0] != "x" and not runner.startswith("x"):
            assert name in lanes, f"{key} is in a lane that is closed: {text}"
            lanes[name].places[key] = place
    for lane in lanes.values():
        _check_messages(lane)
        _check_counts(lane)
        _check_head(lane)
    _check_sums(client, base, lanes, counts, heads)
    _check_order(client, base, lanes, counts)


def _read_lanes(client: Any, base: str, names: list[str]) -> dict[str, _Lane]:
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hgetall(f"{base}at:{name}")
        pipe.xrange(f"{base}lane:{name}")
        pipe.lrange(f"{base}back:{name}", 0, -1)
        for kind in ("x", "aside", "absorbed"):
            pipe.hgetall(f"{base}{kind}:{name}")
    replies = pipe.execute()
    return {name: _lane(name, *replies[6 * n : 6 * n + 6]) for n, name in enumerate(names)}


def _lane(name: str, at: Any, stream: Any, back: Any, states: Any, aside: Any, absorbed: Any) -> _Lane:
    entries: dict[str, tuple[str, str]] = {}
    for identity, fields in stream:
        key, label, _ = states.get(f"@{identity}", fields["m"]).split("\n", 2)
        entries[identity] = (key, label)
    redirects = {key[1:] for key in states if key.startswith("@")}
    assert redirects <= set(entries), (
        f"{name}: redirects of entries that are gone: {redirects - set(entries)}"
    )
    return _Lane(
        name,
        {part: value for part, value in at.items() if value != ""},
        entries,
        back,
        {key: json.loads(text) for key, text in states.items() if not key.startswith("@")},
        aside,
        absorbed,
    )


def _read_leases(client: Any, base: str, leases: dict[str, str], lanes: dict[str, _Lane]) -> None:
    assert set(leases) == set(client.zrange(f"{base}leased", 0, -1)), (
        "a lease without an end, or an end alone"
    )
    for text in leases.values():
        head, ids, keys = text.split("\n")
        told = json.loads(head)
        assert told["lane"] in lanes, f"a lease in a closed lane: {told}"
        lanes[told["lane"]].leases.append(
            _Lease(int(told["slot"]), told["labels"], json.loads(ids), json.loads(keys))
        )


def _check_letters(client: Any, base: str, where: dict[str, str], dead: dict[str, str]) -> None:
    assert set(dead) == set(client.zrange(f"{base}dead_order", 0, -1))
    assert set(dead) == {key for key, text in where.items() if text.startswith("x ")}
    for key, text in dead.items():
        letter = json.loads(text)
        kept = client.hgetall(f"{base}absorbed:{letter['lane']}")
        for one in letter.get("m", ()):
            assert one in kept and where[one] == f"a{key} {letter['lane']}"


def _check_messages(lane: _Lane) -> None:
    """Each message is in exactly one place, with what that place needs."""
    leased = {identity: key for one in lane.leases for identity, key in zip(one.ids, one.keys, strict=True)}
    assert len(leased) == sum(len(one.ids) for one in lane.leases), f"{lane.name}: leased twice"
    in_stream = {key: place[1:] for key, place in lane.places.items() if place[0] == "q"}
    assert {identity: key for key, identity in in_stream.items()} == {
        identity: key for identity, (key, _) in lane.entries.items()
    }, f"{lane.name}: places and stream differ"
    assert all(lane.entries[identity][0] == key for identity, key in leased.items())
    waiting = lane.waiting()
    assert len(waiting) == len(set(waiting)), f"{lane.name}: an entry waits twice"
    assert set(waiting) == set(lane.entries) - set(leased), f"{lane.name}: an entry that nobody reaches"
    runs_for = {one: key for key, x in lane.states.items() for one in x.get("m", ())}
    absorbed = {key: place[1:] for key, place in lane.places.items() if place[0] == "a"}
    assert runs_for == absorbed
    assert {key: x["i"] for key, x in lane.states.items() if "i" in x} == absorbed
    delayed = {key for key, place in lane.places.items() if place[0] == "d"}
    assert set(lane.aside) == delayed | set(absorbed)
    assert set(lane.states) <= set(lane.places), f"{lane.name}: states of messages that are gone"


def _check_counts(lane: _Lane) -> None:
    waiting = lane.waiting()
    assert lane.number("h") == len(lane.places) > 0, f"{lane.name}: {lane.at} holds {lane.places}"
    assert lane.number("q") == len(waiting)
    assert lane.number("back") == len(lane.back)
    assert lane.back == [] or waiting, f"{lane.name}: only cancelled entries were handed back"
    labels = {
        "q": Counter(lane.entries[identity][1] for identity in waiting),
        "d": Counter(
            lane.aside[key].split("\n", 2)[1] for key, place in lane.places.items() if place[0] == "d"
        ),
    }
    for kind, expected in labels.items():
        counted = {name[2:]: int(value) for name, value in lane.at.items() if name.startswith(f"{kind}:")}
        assert counted == expected
    assert lane.number("leased") == len(lane.leases)
    slots = sorted(int(name[5:]) for name in lane.at if name.startswith("slot:"))
    assert slots == sorted(one.slot for one in lane.leases)
    for one in lane.leases:
        assert one.labels == Counter(lane.entries[identity][1] for identity in one.ids)


def _check_head(lane: _Lane) -> None:
    waiting = lane.waiting()
    label = lane.entries[waiting[0]][1] if waiting else None
    assert lane.at.get("hl") == label == lane.at.get("hc"), f"{lane.name}: {lane.at}"
    assert lane.number("hw") == len(waiting)
    if waiting:
        due = float(lane.states.get(lane.entries[waiting[0]][0], {}).get("u", 0))
        assert float(lane.at.get("hd", 0)) == due
        assert "rl" in lane.at or "bl" in lane.at or lane.leases, f"{lane.name} is never ready again"
    assert lane.at.get("rl", label) == label
    leased = {key for one in lane.leases for key in one.keys}
    for name, key in lane.at.items():
        if name.startswith("n:"):
            assert lane.places[key][0] == "q" and key not in leased
            assert lane.entries[lane.places[key][1:]][1] == name[2:]


def _check_sums(
    client: Any, base: str, lanes: dict[str, _Lane], counts: Counter[str], told: dict[str, str]
) -> None:
    assert counts["held"] == sum(len(lane.places) for lane in lanes.values())
    assert counts["queued"] == sum(lane.number("q") for lane in lanes.values())
    delayed = {
        f"{lane.name} {key}"
        for lane in lanes.values()
        for key, place in lane.places.items()
        if place[0] == "d"
    }
    assert set(client.zrange(f"{base}delayed", 0, -1)) == delayed
    assert counts["delayed"] == len(delayed)
    heads: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    for lane in lanes.values():
        classes[f"lanes:{lane.name.rpartition('/')[2]}"] += 1
        if "hl" in lane.at:
            heads[lane.at["hl"]] += lane.number("q")
    assert {name: int(value) for name, value in told.items()} == heads
    assert {name: value for name, value in counts.items() if name.startswith("lanes:") and value} == classes
    blocked = {lane.name: float(lane.at["bl"]) for lane in lanes.values() if "bl" in lane.at}
    assert dict(client.zrange(f"{base}blocked", 0, -1, withscores=True)) == blocked


def _check_order(client: Any, base: str, lanes: dict[str, _Lane], counts: Counter[str]) -> None:
    """Who is ready stands in the order of its label, or is set aside while it holds leases."""
    turns: dict[tuple[str, str], set[str]] = {}
    for lane in lanes.values():
        if "rl" in lane.at:
            turns.setdefault((lane.at["rl"], lane.user), set()).add(lane.name)
    asked: dict[str, set[str]] = {lane.user: set() for lane in lanes.values()}
    for lane in lanes.values():
        asked[lane.user] |= {lane.at["hl"]} if "hl" in lane.at else set()
    pipe = client.pipeline(transaction=False)
    for user in asked:
        pipe.hgetall(f"{base}capped:{user}")
    set_aside = dict(zip(asked, pipe.execute(), strict=True))
    assert counts["aside"] == sum(map(len, set_aside.values()))
    places = [(user, label) for user in asked for label in asked[user] | set(set_aside[user])]
    for user, label in places:
        pipe.zrange(f"{base}turn:{label}:{user}", 0, -1)
        pipe.zscore(f"{base}ready:{label}", user)
    replies = pipe.execute()
    for (user, label), told, score in zip(places, replies[::2], replies[1::2], strict=True):
        capped = label in set_aside[user]
        assert set(told) == turns.get((label, user), set())
        assert ((score is not None) or capped) == bool(told), f"{user} has {told} under {label}"
        assert not (score is not None and capped)
    for user, capped in set_aside.items():
        assert not capped or any(lane.leases for lane in lanes.values() if lane.user == user), (
            f"{user} is set aside, and no end of a lease will bring it back"
        )
