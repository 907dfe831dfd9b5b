"""The task queue on Redis Streams: the whole state machine of `queues.base`, for workers on many machines.

Guarantees: everything of `queues.base`, across killed workers, lost replies and a restarted server. How
durable an answered call is, is the server's to say: with `appendonly yes` and `appendfsync always` it is
on disk, with `everysec` (the usual) a crash of the machine may take the last second, without a file a
restart takes everything. Nothing is trimmed: a stream exists while it holds work, and has no MAXLEN.

Each call is one script, hence one step and one round trip, whatever its number of messages. The time is
the server's, so that the clocks of workers do not matter. Nothing polls: a claim sleeps until work is
published, the next due time or its time-out.

A call whose reply is lost is repeated with the same names (keys, call number, epoch), which the scripts
recognise. Every call waits for a server that is away, with growing pauses, for `reconnect_s`; a finish
for at least the length of its lease, as its handler has run.

There is no consumer group: XREADGROUP takes what it sees, while a claim has to look first (labels it does
not serve, a message that is not due, a suspect that goes alone), and it writes one record a message. A
cursor for each lane and a lease with an epoch say the same in one step.

Keys begin with "<prefix>:{ms:0}:", the part in braces being the queue's tag: where it is cut into several
(`shards`) each has its own, and on a cluster all keys of a tag stand on one node. A lane is "<user>/<cube>/<class>", percent-encoded.

    lane:<lane>    stream of the messages until they are settled, each one text: key, label, at, parent, message
    at:<lane>      hash: counts by label (q: d:), held (h), cursor (cur), head (hl, hd), slots, ready label (rl)
    back:<lane>    list: entries handed back while others hold batches of the lane
    aside:<lane>   hash: payloads of delayed messages and of those that another runs for
    x:<lane>       hash: exceptional state by key (failed, lost, cancelled, coalesced, delayed)
    info:<lane>    hash: status rows, key -> since submit, =key -> since the end; kept for 7 days
    where          hash: key -> its place and lane, for every live message
    leases leased  hash and sorted set: who holds what until when
    ready:<label> turn:<label>:<user> flow:<class> capped:<user>   the fair order
    delayed blocked waiting served heads lanes rows counts policy weight
    dead dead_order absorbed:<lane>   dead letters
    instances instances_seen   who claims
    seen seen_order idempotent idempotent_ends task:<user>/<task> cancelled times:<label> timed finished reply:<call> store
    waited         a text, for WAIT; kept for a minute
"""

from __future__ import annotations

import contextlib
import json
import os
import random as random_module
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import redis
from pydantic_core import to_json

from memos.clock import Clock
from memos.errors import ConfigError, LeaseLost, QueueUnavailable
from memos.mem_scheduler.queues.adaptive import BatchSizes
from memos.mem_scheduler.queues.base import (
    INSTANCE_REFRESH_S,
    Batch,
    Delivery,
    Finish,
    HeldLease,
    Instance,
    Outcome,
    QueueDepth,
    QueueIdentity,
    Release,
    Settled,
    TaskStatus,
    WhenFull,
)
from memos.mem_scheduler.queues.idempotency import ScopedKey, refuse_more_keys
from memos.mem_scheduler.queues.instance import Identity
from memos.mem_scheduler.queues.limits import (
    Limits,
    check_claim,
    check_delays,
    check_outcomes,
    lease_lost,
    only_answer,
    weight_function,
)
from memos.mem_scheduler.queues.local import TOKENS_MAX
from memos.mem_scheduler.queues.redis_streams.batches import (
    batch_of,
    by_lane,
    delivery_of,
    finish_arguments,
    samples_of,
    settled_of,
)
from memos.mem_scheduler.queues.redis_streams.cluster import Nodes
from memos.mem_scheduler.queues.redis_streams.connection import RedisAddress, check_client, check_server
from memos.mem_scheduler.queues.redis_streams.dead import RedisDeadLetters
from memos.mem_scheduler.queues.redis_streams.lines import Replicas
from memos.mem_scheduler.queues.redis_streams.policies import RedisPolicyTable
from memos.mem_scheduler.queues.redis_streams.reading import (
    StatusRows,
    depth_of,
    everything_under,
    instances_of,
    leases_of,
)
from memos.mem_scheduler.queues.redis_streams.scripts import Scripts
from memos.mem_scheduler.queues.redis_streams.server import Repeated, Server
from memos.mem_scheduler.queues.redis_streams.wakes import WakeListener
from memos.mem_scheduler.queues.redis_streams.wire import (
    encoded,
    followup_arguments,
)
from memos.mem_scheduler.queues.served import SERVED_S
from memos.mem_scheduler.queues.waiters import Waiters
from memos.mem_scheduler.schemas.keys import KeyMint
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import class_of
from memos.mem_scheduler.status_entries import PREFIX as STATUS_PREFIX

if TYPE_CHECKING:
    from memos.memory.store import Followup


FORGETS_S = 30.0  # replicas are behind by less, and a file is synced each second
PREFIX = "scheduler:messages:stream:v2.0"  # the documented default
TAG = "ms:0"
_HELD_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """What a queue is told that is one of several which together are one. `on_work` gets the labels of a wake-up,
    `on_look` says that anything may have happened."""

    identity: Identity
    nodes: Nodes | None
    on_work: Callable[[list[str]], None]
    on_look: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What one look took. `due_in_s`: when something is due; `tops`: by class, the start tag of who is next, of
    a part that was asked for it."""

    batches: list[Batch]
    due_in_s: float | None
    tops: dict[str, float]


@dataclass(slots=True)
class _Held:
    """What this process remembers of a batch it claimed."""

    claimed_at: float  # monotonic
    length_s: float
    waited_s: list[float]  # by delivery


class RedisStreamsQueue:
    """A `TaskQueue` on the server at `address`, under `prefix`.

    `weights` is a user's share against others' under contention: 1 where nothing is said, at least 0.001;
    they are stored for all instances. `random` is the source of retry jitter; `name` begins the name under
    which this queue claims. `server_time=False` takes the time
    from `clock` instead of the server: for tests that drive it. `wait_replicas`: how many replicas have to hold what is
    submitted before `submit` returns; when too few say so within `wait_replicas_s` it raises QueueUnavailable.
    Raises QueueUnavailable when the server does not answer, ConfigError when it cannot hold the queue.
    """

    def __init__(
        self,
        address: RedisAddress | None = None,
        *,
        clock: Clock,
        prefix: str = PREFIX,
        messages_max: int = 200_000,
        lane_messages_max: int = 20_000,
        payload_bytes_max: int = 4 * 1024 * 1024,
        dead_letters_max: int = 10_000,
        status_entries_max: int = 200_000,
        idempotency_keys_max: int = 100_000,
        idempotency_ttl_s: float = 86_400.0,
        user_batches_max: int = 0,
        reconnect_s: float = 10.0,
        wait_replicas: int = 0,
        wait_replicas_s: float = 1.0,
        random: random_module.Random | None = None,
        weights: Mapping[str, float] | None = None,
        name: str = "",
        server_time: bool = True,
        tag: str = TAG,
        part: Part | None = None,
    ) -> None:
        self._limits = Limits(
            messages_max,
            lane_messages_max,
            payload_bytes_max,
            dead_letters_max,
            status_entries_max,
            idempotency_keys_max,
            idempotency_ttl_s,
            user_batches_max,
        )
        self.address = address or RedisAddress()
        self.prefix = prefix
        self.tag = tag
        self._name = name
        self._part = part
        self._identity = Identity.new(name) if part is None else part.identity
        self._since = clock.now()
        self._id = ""  # until it is asked for
        self._told: tuple[str, float] | None = None  # the labels that were last told, and when
        self._base = f"{prefix}:{{{tag}}}:"
        self._clock = clock
        self._random = random or random_module.Random()
        self._mint = KeyMint(clock)
        self._sizes = BatchSizes()
        self._lock = threading.Lock()
        self._waiters = Waiters(self._lock, clock)
        self._held: OrderedDict[tuple[str, int], _Held] = OrderedDict()  # by claim and epoch
        self._wakes = 0
        self._rings = 0
        self._closed = False
        self._plans: dict[tuple[frozenset[str], int], tuple[str, str]] = {}
        self._replicas = (
            Replicas(wait_replicas, wait_replicas_s, f"{self._base}waited") if wait_replicas else None
        )
        self._server = Server(
            self.address,
            Scripts(
                self._base,
                letters_max=dead_letters_max,
                statuses_max=status_entries_max,
                tokens_max=TOKENS_MAX,
                sharded=self.address.is_cluster,
            ),
            clock=clock,
            server_time=server_time,
            reconnect_s=reconnect_s,
            source=self._random,
            user_batches_max=user_batches_max,
            base=self._base,
            nodes=None if part is None else part.nodes,
        )
        self._client = self._server.client
        self._policies = RedisPolicyTable(read=self.read_policies, write=self.write_policy)
        self._rows = StatusRows(self._client, self._base, run=self._server.run)
        self._dead = RedisDeadLetters(
            page=self._letters, find=self._letter, change=lambda *args: int(self._named("dead", *args))
        )
        self._listener = self._new_listener()
        if part is None:
            _QUEUES.add(self)
            if self.address.is_cluster:
                check_client(self._client, self.address)
            else:
                check_server(self.address)
        if weights:
            weight_function(weights)  # checks them
            texts: dict[Any, Any] = {encoded(user): weight for user, weight in weights.items()}
            self._server.ask(lambda: self._client.hset(f"{self._base}weight", mapping=texts))
        self._policies.follow(self._policy_version())

    def _new_listener(self) -> WakeListener:
        return WakeListener(
            self._client,
            f"{self._base}wake",
            own=f"{self._base}wake:{self._identity.name}",
            on_work=self._rung if self._part is None else self._part.on_work,
            on_look=self._look_again if self._part is None else self._part.on_look,
            sharded=self.address.is_cluster,
        )

    def be_another(self, part: Part | None = None) -> None:
        """In a forked child: an instance of its own, as the server takes two calls of one name for one call. The
        threads of the parent are gone, and what they held locked stays so: all that is made anew."""
        self._lock = threading.Lock()
        self._waiters = Waiters(self._lock, self._clock)
        self._mint = KeyMint(self._clock)
        self._part = part
        self._identity = Identity.new(self._name) if part is None else part.identity
        self._told = None
        self._server.after_fork(closed=self._closed)
        if part is None and self._server.nodes is not None:
            self._server.nodes.after_fork()
        self._listener = self._new_listener()

    # -- what it is ---------------------------------------------------------------------------------

    @property
    def client(self) -> redis.Redis:
        """The connection pool, for parts that share the server."""
        return self._client

    @property
    def nodes(self) -> Nodes | None:
        """Those of the cluster; None of a single server."""
        return self._server.nodes

    @property
    def shared_client(self) -> Any:
        """A client for other programs: of the server, or of all nodes of a cluster. Raises QueueUnavailable."""
        nodes = self._server.nodes
        return self._client if nodes is None else self._server.ask(nodes.whole)

    @property
    def policies(self) -> RedisPolicyTable:
        return self._policies

    @property
    def dead(self) -> RedisDeadLetters:
        return self._dead

    @property
    def identity(self) -> QueueIdentity:
        if not self._id:
            self._id = self._kept_or_put("id", secrets.token_hex(16))
        place = f"{self.prefix} at {self.address}"
        return QueueIdentity(self._id, place, self._identity.name, FORGETS_S)

    def _kept_or_put(self, name: str, value: str) -> str:
        """What the server keeps by that name, which is `value` from the first call on."""
        key = f"{self._base}{name}"
        kept = self._server.ask(lambda: self._client.get(key))
        if kept is None:  # only then: a server that is full refuses any SET, and its workers must start
            self._server.ask(lambda: self._client.set(key, value, nx=True))
            kept = self._server.ask(lambda: self._client.get(key))
        return str(kept)

    @property
    def messages_max(self) -> int:
        return self._limits.messages_max

    def bind_store(self, store_id: str) -> None:
        """This queue's work is for one memory store: two would be two brains. Raises ConfigError."""
        bound = self._kept_or_put("store", store_id)
        if bound != store_id:
            raise ConfigError(
                f"the queue {self.prefix!r} at {self.address} belongs to the memory store {bound}, and this is "
                f"{store_id}: give every process the same store, or this one another "
                "MEMSCHEDULER_REDIS_STREAM_KEY_PREFIX"
            )

    # -- in -----------------------------------------------------------------------------------------

    def submit(
        self,
        messages: Sequence[ScheduleMessageItem],
        *,
        delay_s: float = 0.0,
        token: str | None = None,
        idempotency_key: str | None = None,
        followups: Sequence[Followup] = (),
        inside_handler: bool = False,
        when_full: WhenFull = "reject",
        messages_max: int | None = None,
        only_ask: bool = False,
        accepted: bool = False,
    ) -> list[str]:
        """`messages_max`: of this call, below the queue's own. `only_ask`: refuse what would be refused, queue
        nothing and answer with keys that nobody has; `accepted`: that was asked, refuse nothing."""
        self._refuse_closed()
        everything = [*messages, *(followup.message for followup in followups)]
        self._limits.check_payloads(everything)
        check_delays(delay_s, followups)
        scoped = None if idempotency_key is None else ScopedKey.of(idempotency_key, everything)
        keys = self._mint.mint(len(messages)) if messages else []
        answer = [*keys, *(followup.key for followup in followups)]
        options: dict[str, Any] = {
            "delay_s": delay_s,
            "inside": inside_handler or accepted,
            "coalesce": when_full == "coalesce" and delay_s <= 0,
            "messages_max": self._limits.messages_max if messages_max is None else messages_max,
            "lane_max": self._limits.lane_messages_max,
        }
        if only_ask:
            options["ask"] = True
        if token is not None:
            options["token"] = token
        if scoped is not None:
            options |= {
                "scope": scoped.scope,
                "used_for": scoped.used_for,
                "ttl_s": self._limits.idempotency_ttl_s,
                "keys_max": self._limits.idempotency_keys_max,
            }
        if token is not None or scoped is not None:
            options["answer"] = json.dumps(answer)
        lanes, arguments, tasks = by_lane(keys, messages)
        if tasks:
            options["tasks"] = tasks
        reply = self._server.run(
            "submit",
            to_json(options),
            lanes,
            *arguments,
            *followup_arguments(followups),
            replicas=None if inside_handler or only_ask else self._replicas,
        )
        self._policies.follow(int(reply[1]))
        if reply[0] == "known":
            if scoped is not None and reply[3]:
                scoped.check(reply[3])
            known: list[str] = json.loads(reply[2])
            return known
        if reply[0] == "keys":
            raise refuse_more_keys(self._limits.idempotency_keys_max)
        if reply[0] == "full":
            raise self._limits.refusal(reply[2], held=int(reply[3]), number=len(messages))
        return answer

    # -- out ----------------------------------------------------------------------------------------

    def claim(
        self, labels: Collection[str], *, lanes_max: int, batch_max: int | None = None, timeout_s: float = 1.0
    ) -> list[Batch]:
        check_claim(lanes_max, batch_max)
        wanted = labels if isinstance(labels, frozenset) else frozenset(labels)
        with self._lock:
            self._refuse_closed()
            wakes = self._wakes
        deadline = self._clock.monotonic() + timeout_s
        while True:
            asked_at = self._clock.monotonic()
            left_s = deadline - asked_at
            if left_s > 0:
                self._listener.listen()
            with self._lock:
                rings = self._rings
            found = self.look(wanted, lanes_max, batch_max, max(0.0, left_s))
            if found.batches:
                return found.batches
            with self._lock:
                now = self._clock.monotonic()
                if now >= deadline or wakes != self._wakes or self._closed:
                    return []
                if rings == self._rings:
                    # Counted from before the call: rather a little early, to look again, than late.
                    due_in_s = found.due_in_s
                    until = deadline if due_in_s is None else min(deadline, asked_at + due_in_s)
                    self._waiters.wait(wanted, until=until)
                if self._closed:
                    return []

    def look(
        self,
        wanted: frozenset[str],
        lanes_max: int,
        batch_max: int | None,
        wait_s: float,
        *,
        only: str | None = None,
        tops: bool = False,
        patience_s: float | None = None,
    ) -> Found:
        """Take what is there: of the class `only` where one is named. `wait_s`: for how long the caller is then
        going to wait for wake-ups; `tops` asks for them; `patience_s`: for a server that is away."""
        plan, claimed = self._plan(wanted)
        limits = {
            label: min(self._policies.get(label).batch_size_max, self._sizes.of(label), batch_max or 1 << 30)
            for label in wanted
        }
        call = self._server.new_call(self._identity.name)
        chosen = plan
        if only is not None:
            levels: list[list[list[Any]]] = json.loads(plan)
            chosen = json.dumps([[one for one in level if one[0] == only] for level in levels])
        reply = self._server.run(
            "claim",
            call,
            "0",
            lanes_max,
            wait_s,
            "1",
            chosen,
            to_json(limits),
            claimed,
            self._presence(claimed),
            *((plan,) if tops else ()),
            again=1,
            patience_s=patience_s,
        )
        next_ones = dict(json.loads(reply.pop())) if tops else {}
        self._policies.follow(int(reply[0]))
        if reply[2]:
            with self._lock:
                self._sizes.reset(json.loads(reply[2]))
        batches = []
        for batch, waited_s, length_s in (batch_of(one, call) for one in reply[3:]):
            batches.append(batch)
            with self._lock:
                self._held[call, batch.epoch] = _Held(self._clock.monotonic(), length_s, waited_s)
                while len(self._held) > _HELD_MAX:  # batches that were never finished
                    self._held.popitem(last=False)
        return Found(
            batches,
            float(reply[1]) if reply[1] else None,
            {name: float(tag) for name, tag in next_ones.items()},
        )

    def _presence(self, claimed: str | None = None) -> str:
        """What tells others that this instance is there: when something is new, and now and then."""
        now = self._clock.monotonic()
        with self._lock:
            labels = claimed or (self._told[0] if self._told is not None else None)
            if labels is None or (
                self._told is not None
                and labels == self._told[0]
                and now - self._told[1] < INSTANCE_REFRESH_S
            ):
                return ""
            self._told = (labels, now)
        me = self._identity
        return json.dumps(
            {
                "name": me.name,
                "host": me.host,
                "pid": me.pid,
                "labels": json.loads(labels),
                "since": self._since,
            }
        )

    def _plan(self, wanted: frozenset[str]) -> tuple[str, str]:
        """The labels by level and class, and the labels alone, as JSON."""
        name = (wanted, self._policies.version)
        found = self._plans.get(name)
        if found is None:
            levels: dict[int, dict[str, list[str]]] = {}
            for label in sorted(wanted):
                classes = levels.setdefault(int(self._policies.get(label).level), {})
                classes.setdefault(encoded(class_of(label)), []).append(label)
            plan = [[[one, own] for one, own in levels[level].items()] for level in sorted(levels)]
            if len(self._plans) >= 64:
                self._plans.clear()
            found = self._plans[name] = (json.dumps(plan), json.dumps(sorted(wanted)))
        return found

    # -- settling -----------------------------------------------------------------------------------

    def finish(
        self, batch: Batch, outcomes: Sequence[Outcome], *, followups: Sequence[Followup] = ()
    ) -> list[Settled]:
        return only_answer(self.finish_all([Finish(batch, outcomes, followups)]))

    def finish_all(self, finishes: Sequence[Finish]) -> list[list[Settled] | LeaseLost]:
        arguments: list[Any] = [len(finishes), *(one.batch.epoch for one in finishes)]
        held: list[_Held | None] = []
        took_s: list[float] = []
        now = self._clock.monotonic()
        for one in finishes:
            check_outcomes(one.batch, one.outcomes)
            self._limits.check_payloads([followup.message for followup in one.followups])
            found = self._held.get((one.batch.claim, one.batch.epoch))
            held.append(found)
            took_s.append(0.0 if found is None else now - found.claimed_at)
            times = {} if found is None else samples_of(one, found.waited_s, took_s[-1])
            arguments += finish_arguments(one, times, self._policies.get, self._random)
        repeated = Repeated()
        reply = self._server.run(
            "finish",
            *arguments,
            wait_s=max((one.length_s for one in held if one is not None), default=0.0),
            repeated=repeated,
        )
        self._policies.follow(int(reply[0]))
        answers: list[list[Settled] | LeaseLost] = []
        with self._lock:
            for place, one in enumerate(finishes):
                batch, kind, said = one.batch, reply[1 + 2 * place], reply[2 + 2 * place]
                self._held.pop((batch.claim, batch.epoch), None)
                if kind == "lost" and not (repeated and said):
                    answers.append(lease_lost(batch))
                    continue
                if held[place] is not None and kind == "ok" and Release not in set(map(type, one.outcomes)):
                    self._sizes.record(batch.labels, len(batch.deliveries), took_s[place])
                answers.append(settled_of(batch, said))
        return answers

    def renew(self, batches: Sequence[Batch], *, patience_s: float | None = None) -> list[Batch]:
        if not batches:
            return []
        proofs = [part for batch in batches for part in (batch.epoch, batch.claim)]
        kept = [
            text == "1"
            for text in self._server.run("renew", self._presence(), *proofs, patience_s=patience_s)
        ]
        lost = [batch for batch, still in zip(batches, kept, strict=True) if not still]
        with self._lock:
            for batch in lost:
                self._held.pop((batch.claim, batch.epoch), None)
        return lost

    def cancel(self, keys: Sequence[str]) -> list[str]:
        taken: list[str] = list(json.loads(self._named("cancel", *keys))) if keys else []
        return taken

    def forget(self, user_id: str) -> bool:
        """Wipe the states of a user's finished tasks, the errors of open ones, and the idempotency keys."""
        self._named("forget", encoded(user_id))
        return True

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """What stands under each key of this queue, and of the statuses beside it."""
        return everything_under(self._client, (self._base, f"{STATUS_PREFIX}:"))

    def is_cancelled(self, key: str) -> bool:
        return self._server.ask(lambda: self._client.zscore(f"{self._base}cancelled", key)) is not None

    def clear(self) -> int:
        return int(self._named("clear"))

    # -- seen from outside --------------------------------------------------------------------------

    def depth(self, *, lanes: bool = True) -> QueueDepth:
        return depth_of(self.told_depth(lanes=lanes))

    def told_depth(self, *, lanes: bool = True) -> str:
        """What the server says of its depth; several of them can be put together."""
        return str(self._server.run("depth", "1" if lanes else "0", SERVED_S))

    def held(self) -> int:
        """How many messages are there, as the bound counts them."""
        return int(float(self._server.ask(lambda: self._client.hget(f"{self._base}counts", "held")) or 0))

    def instances(self) -> list[Instance]:
        return instances_of(self._server.run("operators", "instances", 0))

    def leases(self, *, limit: int = 100) -> list[HeldLease]:
        return leases_of(self._server.run("operators", "leases", limit))

    def live(self, keys: Collection[str]) -> set[str]:
        asked = list(keys)
        if not asked:
            return set()
        places = self._server.ask(lambda: self._client.hmget(f"{self._base}where", asked))
        return {key for key, place in zip(asked, places, strict=True) if place is not None}

    def statuses(
        self,
        *,
        user_id: str | None = None,
        item_id: str | None = None,
        task_id: str | None = None,
        limit: int | None = None,
    ) -> list[TaskStatus]:
        found: list[TaskStatus] = self._server.ask(
            lambda: self._rows.find(
                wall=self._clock.now(), user_id=user_id, item_id=item_id, task_id=task_id, limit=limit
            )
        )
        return found

    def get(self, keys: Sequence[str]) -> list[Delivery]:
        if not keys:
            return []
        return [
            delivery_of(lane, text, attempts, recoveries, json.loads(payloads) if payloads else ())
            for lane, text, attempts, recoveries, payloads in self._server.run("get", *keys)
        ]

    # -- waiting and closing ------------------------------------------------------------------------

    def wake(self) -> None:
        with self._lock:
            self._wakes += 1
            self._waiters.call_all()

    def close(self) -> None:
        """Refuse new work and let waiting claims return. What runs may still be finished."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._wakes += 1
            self._waiters.call_all()
        self._server.stop_waiting()
        self._listener.close()
        if self._told is not None:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                pipe = self._client.pipeline(transaction=False)
                pipe.hdel(f"{self._base}instances", self._identity.name)
                pipe.zrem(f"{self._base}instances_seen", self._identity.name)
                pipe.zrem(f"{self._base}waiting", self._identity.name)
                pipe.execute()
        self._server.hang_up()

    def __enter__(self) -> RedisStreamsQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rung(self, labels: list[str]) -> None:
        with self._lock:
            self._rings += 1
            for label in labels:
                self._waiters.call(label)

    def _look_again(self) -> None:
        with self._lock:
            self._rings += 1
            self._waiters.call_all()

    # -- asking the server --------------------------------------------------------------------------

    def _named(self, name: str, *args: Any) -> str:
        """Run a script that keeps its answer under the call's name."""
        return str(self._server.run(name, self._server.new_call(self._identity.name), *args))

    def _refuse_closed(self) -> None:
        if self._closed:
            raise QueueUnavailable("the queue is closed; build a new runtime to go on")

    def _policy_version(self, *, patience_s: float | None = None) -> int:
        def ask() -> Any:
            return self._client.hget(f"{self._base}counts", "policy_version")

        return int(self._server.ask(ask, patience_s=patience_s) or 0)

    def listen(self) -> None:
        """Be there for wake-ups from now on."""
        self._listener.listen()

    def reach(self) -> None:
        """Raises QueueUnavailable where the server does not answer now."""
        self._policies.follow(self._policy_version(patience_s=0.0))

    def read_policies(self) -> tuple[int, Mapping[str, str]]:
        # No MULTI: a full server refuses whatever is queued inside one. The version comes first, so that what
        # is read is never older than it says.
        def ask() -> Any:
            pipe = self._client.pipeline(
                transaction=False
            )  # a repeat needs its own: one that failed is empty
            pipe.hget(f"{self._base}counts", "policy_version")
            pipe.hgetall(f"{self._base}policy")
            return pipe.execute()

        version, texts = self._server.ask(ask)
        return int(version or 0), texts

    def write_policy(self, label: str, text: str) -> int:
        return int(self._server.run("policy", label, text, encoded(class_of(label))))

    def _letters(self, first: int, last: int) -> list[tuple[str, str]]:
        keys = self._server.ask(lambda: self._client.zrevrange(f"{self._base}dead_order", first, last))
        if not keys:
            return []
        texts = self._server.ask(lambda: self._client.hmget(f"{self._base}dead", keys))
        return [(key, text) for key, text in zip(keys, texts, strict=True) if text is not None]

    def _letter(self, key: str) -> str | None:
        text: str | None = self._server.ask(lambda: self._client.hget(f"{self._base}dead", key))
        return text


_QUEUES: weakref.WeakSet[RedisStreamsQueue] = weakref.WeakSet()


def _after_fork() -> None:
    for queue in list(_QUEUES):
        queue.be_another()


os.register_at_fork(after_in_child=_after_fork)
