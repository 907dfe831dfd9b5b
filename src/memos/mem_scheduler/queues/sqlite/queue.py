"""The task queue in a SQLite file: the whole state machine of `queues.base`, shared by processes.

Guarantees: everything of `queues.base`, across a killed process and a restart. What a caller was promised
(submit, cancel, clear, dead letters, policies) is on disk when the call returns (synchronous=FULL). A
claim, a renewal or a finish survives a killed process too, but a power cut may undo the newest of them:
that is a lost reply to the machine, and the message is run again, which at-least-once allows.

Each call is one transaction. Leases and delays run on the monotonic clock, which the processes of one
machine share; after a restart of the machine they are carried over (`boot`). Nothing polls while work can
be announced: a claim sleeps until work, the next due time or its time-out; other processes ring
(`doorbell`), and a look at the file each second covers rings that were lost.

    queue.db          this file (with -wal and -shm): tables in `migrations/`
    queue.db-bells/   a socket of each process that waits
"""

from __future__ import annotations

import contextlib
import json
import random as random_module
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

from memos.clock import Clock
from memos.errors import LeaseLost, MemosError, QueueError, QueueUnavailable
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.adaptive import BatchSizes
from memos.mem_scheduler.queues.base import (
    Batch,
    Delivery,
    Finish,
    HeldLease,
    Instance,
    LabelTimes,
    Outcome,
    QueueDepth,
    QueueIdentity,
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
    only_answer,
    weight_function,
)
from memos.mem_scheduler.queues.local import TOKENS_MAX
from memos.mem_scheduler.queues.packs import LaneId, lane_id_of
from memos.mem_scheduler.queues.sqlite import history, instances, ledger, reading, settling
from memos.mem_scheduler.queues.sqlite.boot import boot_id, carry_over
from memos.mem_scheduler.queues.sqlite.dead import SqliteDeadLetters
from memos.mem_scheduler.queues.sqlite.doorbell import Doorbell
from memos.mem_scheduler.queues.sqlite.file import QueueFile
from memos.mem_scheduler.queues.sqlite.holder import Holder
from memos.mem_scheduler.queues.sqlite.policies import SqlitePolicyTable, store
from memos.mem_scheduler.queues.sqlite.rows import LaneRow
from memos.mem_scheduler.queues.sqlite.session import Cache, Rules, Session
from memos.mem_scheduler.queues.sqlite.statuses import statuses
from memos.mem_scheduler.queues.waiters import Waiters
from memos.mem_scheduler.schemas.keys import KeyMint
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import class_of

if TYPE_CHECKING:
    from memos.memory.store import Followup

JUDGE_EVERY_S = 0.5  # how often a claim looks at most whether those who hold leases are gone


_FORGET = (
    "UPDATE pack SET error = '' WHERE user_id = :user AND error <> ''",
    "DELETE FROM idempotency WHERE substr(scope, 1, length(:scope)) = :scope",
)


class SqliteQueue:
    """A `TaskQueue` in the file `path`, which is made where it is missing.

    `weights` is a user's share against others' under contention: 1 where nothing is said, at least 0.001.
    `random` is the source of retry jitter, `boot` names the start of the machine (None: ask the machine),
    `name` begins the name under which this queue claims.
    Raises QueueUnavailable (unwritable, locked, full disk), ConfigError (a newer layout, another program's
    file), QueueError (a damaged file).
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        messages_max: int = 200_000,
        lane_messages_max: int = 20_000,
        payload_bytes_max: int = 4 * 1024 * 1024,
        dead_letters_max: int = 10_000,
        status_entries_max: int = 200_000,
        idempotency_keys_max: int = 100_000,
        idempotency_ttl_s: float = 86_400.0,
        user_batches_max: int = 0,
        busy_timeout_s: float = 10.0,
        random: random_module.Random | None = None,
        weights: Mapping[str, float] | Callable[[str], float] | None = None,
        boot: str | None = None,
        name: str = "",
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
        self._presence = instances.Presence(Identity.new(name), since=clock.now())
        self._clock = clock
        self._mint = KeyMint(clock)
        self._lock = threading.Lock()
        self._waiters = Waiters(self._lock, clock)
        self._policies = SqlitePolicyTable(self._put_policy)
        self._dead = SqliteDeadLetters(lambda: self._writing(durable=True), lambda: self._file.read())
        boot = boot_id() if boot is None else boot
        self._me = Holder.me(boot)
        self._judged_at: float | None = None  # monotonic: when it looked last whether holders are gone
        self._rules = Rules(
            policies=self._policies,
            sizes=BatchSizes(),
            source=random or random_module.Random(),
            weight_of=weight_function(weights),
            owner=self._presence.identity.name,
            holder="" if self._me is None else self._me.text(),
            dead_letters_max=dead_letters_max,
            status_entries_max=status_entries_max,
            user_batches_max=user_batches_max,
        )
        self._cache = Cache()
        self._wakes = 0
        self._closed = False
        self._times: tuple[int, dict[str, LabelTimes]] = (-1, {})
        self._file = QueueFile(path, busy_timeout_s=busy_timeout_s)
        self._bell = Doorbell(
            path.with_name(f"{path.name}-bells"), on_ring=self._rung, on_look=self._look_again
        )
        with self._lock, self._file.write(durable=True) as connection:
            carry_over(connection, boot=boot, now=clock.monotonic(), wall=clock.now())
            version, self._id = connection.execute("SELECT policy_version, queue_id FROM counter").fetchone()
            self._policies.follow(connection, version)
        self._data_version = self._file.data_version()

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def policies(self) -> SqlitePolicyTable:
        return self._policies

    @property
    def dead(self) -> SqliteDeadLetters:
        return self._dead

    @property
    def identity(self) -> QueueIdentity:
        return QueueIdentity(self._id, str(self.path), self._presence.identity.name)

    @property
    def messages_max(self) -> int:
        return self._limits.messages_max

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
    ) -> list[str]:
        scoped = None
        if idempotency_key is not None:
            scoped = ScopedKey.of(idempotency_key, [*messages, *(one.message for one in followups)])
        self._limits.check_payloads([*messages, *(followup.message for followup in followups)])
        check_delays(delay_s, followups)
        keys = self._mint.mint(len(messages)) if messages else []
        answer = [*keys, *(followup.key for followup in followups)]
        lane_ids = [lane_id_of(message) for message in messages]
        with self._writing(durable=True) as session:
            self._refuse_closed()
            if token is not None:
                known = _answer_of(session, token)
                if known is not None:
                    return known
            if scoped is not None:
                known = self._known_answer(session, scoped)
                if known is not None:
                    return known
            joins = when_full == "coalesce" and delay_s <= 0 and _all_join(session, lane_ids, messages)
            if not inside_handler and not joins:
                self._limits.check_room(
                    Counter(lane_ids),
                    held=session.counters.held,
                    held_by=lambda lane_id: _held_by(session, lane_id),
                )
            touched = ledger.enter(session, keys, messages, lane_ids, delay_s=delay_s) if keys else []
            touched += _chain(session, followups)
            for line in {one.id: one for one in touched}.values():
                session.refresh(line)
            if token is not None:
                _remember(session, token, answer)
            if scoped is not None:
                session.connection.execute(
                    "INSERT INTO idempotency (scope, used_for, keys, ends_at) VALUES (?, ?, ?, ?)",
                    (
                        scoped.scope,
                        scoped.used_for,
                        json.dumps(answer),
                        session.now + self._limits.idempotency_ttl_s,
                    ),
                )
        return answer

    def claim(
        self, labels: Collection[str], *, lanes_max: int, batch_max: int | None = None, timeout_s: float = 1.0
    ) -> list[Batch]:
        check_claim(lanes_max, batch_max)
        wanted = labels if isinstance(labels, frozenset) else frozenset(labels)
        with self._lock:
            self._refuse_closed()
            deadline = self._clock.monotonic() + timeout_s
            wakes = self._wakes
            while True:
                batches, now, due_at = self._look(wanted, lanes_max, batch_max)
                if batches or now >= deadline or wakes != self._wakes or self._closed:
                    return batches
                self._bell.listen()
                until = deadline if due_at is None else min(deadline, due_at)
                self._waiters.wait(wanted, until=until)
                if self._closed:
                    return []

    def finish(
        self, batch: Batch, outcomes: Sequence[Outcome], *, followups: Sequence[Followup] = ()
    ) -> list[Settled]:
        return only_answer(self.finish_all([Finish(batch, outcomes, followups)]))

    def finish_all(self, finishes: Sequence[Finish]) -> list[list[Settled] | LeaseLost]:
        for one in finishes:
            check_outcomes(one.batch, one.outcomes)
            self._limits.check_payloads([followup.message for followup in one.followups])
        answers: list[list[Settled] | LeaseLost] = []
        with self._writing(durable=False) as session:
            for one in finishes:
                try:
                    settled, line = settling.settle_batch(session, one.batch, one.outcomes)
                except LeaseLost as lost:  # raised before anything is changed
                    answers.append(lost)
                    continue
                for touched in {
                    other.id: other for other in (line, *_chain(session, one.followups))
                }.values():
                    session.refresh(touched)
                answers.append(settled)
        return answers

    def renew(self, batches: Sequence[Batch]) -> list[Batch]:
        epochs = json.dumps([batch.epoch for batch in batches])
        with self._writing(durable=False) as session:
            held = settling.find_leases(session, "epoch IN (SELECT value FROM json_each(?))", (epochs,))
            settling.prolong(session, held)
            self._presence.note(session)
        known = {lease.epoch for lease in held}
        return [batch for batch in batches if batch.epoch not in known]

    def cancel(self, keys: Sequence[str]) -> list[str]:
        with self._writing(durable=True) as session:
            return [key for key in keys if settling.cancel(session, key)]

    def forget(self, user_id: str) -> bool:
        """Wipe the states of a user's finished tasks, the errors of open ones and the idempotency keys, and
        older pages of the file; False: a reader still needs those."""
        with self._writing(durable=True) as session:
            history.forget_user(session, user_id)
            for text in _FORGET:
                session.connection.execute(text, {"user": user_id, "scope": f"{quote(user_id, safe='')}/"})
        with self._lock:
            return self._file.checkpoint()

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Nothing: it is all in the file."""
        yield from ()

    def is_cancelled(self, key: str) -> bool:
        with self._file.read() as connection:
            return reading.is_cancelled(connection, key)

    def depth(self, *, lanes: bool = True) -> QueueDepth:
        with self._file.read() as connection:
            version: int = connection.execute("PRAGMA data_version").fetchone()[0]
            if version != self._times[0]:
                self._times = (version, reading.label_times(connection))
            return reading.depth(connection, now=self._clock.monotonic(), lanes=lanes, times=self._times[1])

    def instances(self) -> list[Instance]:
        with self._file.read() as connection:
            return instances.instances(connection, wall=self._clock.now())

    def leases(self, *, limit: int = 100) -> list[HeldLease]:
        with self._file.read() as connection:
            return instances.leases(connection, now=self._clock.monotonic(), limit=limit)

    def live(self, keys: Collection[str]) -> set[str]:
        with self._file.read() as connection:
            return reading.live(connection, keys)

    def statuses(
        self,
        *,
        user_id: str | None = None,
        item_id: str | None = None,
        task_id: str | None = None,
        limit: int | None = None,
    ) -> list[TaskStatus]:
        with self._file.read() as connection:
            return statuses(
                connection,
                wall=self._clock.now(),
                user_id=user_id,
                item_id=item_id,
                task_id=task_id,
                limit=limit,
            )

    def get(self, keys: Sequence[str]) -> list[Delivery]:
        with self._file.read() as connection:
            return reading.get(connection, keys)

    def clear(self) -> int:
        with self._writing(durable=True) as session:
            return settling.clear(session)

    def wake(self) -> None:
        with self._lock:
            self._wakes += 1
            self._waiters.call_all()

    def close(self) -> None:
        """Refuse new work and let waiting claims return. What runs may still be finished."""
        with self._lock:
            self._closed = True
            self._wakes += 1
            self._waiters.call_all()
            if self._presence.known:
                with contextlib.suppress(MemosError), self._file.write(durable=False) as connection:
                    self._presence.leave(connection)
            self._file.close()
        self._bell.close()

    def __enter__(self) -> SqliteQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside -----------------------------------------------------------------------------------

    @contextmanager
    def _writing(self, *, durable: bool) -> Iterator[Session]:
        with self._lock, self._session(durable=durable) as session:
            yield session

    @contextmanager
    def _session(self, *, durable: bool) -> Iterator[Session]:
        """One transaction; afterwards those who wait for what it brought about are called."""
        with self._file.write(durable=durable) as connection:
            session = Session(
                connection, self._rules, self._cache, now=self._clock.monotonic(), wall=self._clock.now()
            )
            self._policies.follow(connection, session.counters.policy_version)
            yield session
            session.save()
        self._cache.keep(session.counters)
        for label in session.ready:
            self._waiters.call(label)
        if session.due_at is not None:
            self._waiters.call_by(session.due_at)
            self._bell.ring(())
        elif session.ready:
            self._bell.ring(session.ready)

    def _look(
        self, wanted: frozenset[str], lanes_max: int, batch_max: int | None
    ) -> tuple[list[Batch], float, float | None]:
        """Look after what is due and take what is there. Also tells the time, and when to look again."""
        batches: list[Batch] = []
        with self._session(durable=False) as session:
            self._presence.note(session, wanted)
            if ledger.note_served(session, wanted):
                history.drop_old(session)
            ledger.look_after_times(session)
            for lease in settling.find_leases(session, "expires_at <= ?", (session.now,)):
                settling.lose(session, lease)
            if self._judged_at is None or not 0 <= session.now - self._judged_at < JUDGE_EVERY_S:
                self._judged_at = session.now
                for holder in self._gone_holders(session.connection):
                    for lease in settling.find_leases(session, "holder = ?", (holder,)):
                        settling.lose(session, lease)
            while len(batches) < lanes_max:
                batch = ledger.next_batch(session, wanted, batch_max=batch_max)
                if batch is None:
                    break
                batches.append(batch)
            due_at = ledger.next_due(session)
            left = session.order.ready_labels() if len(self._waiters) else frozenset()
        if left:
            self._waiters.call_if(lambda labels: not labels.isdisjoint(left))
        if due_at is not None:
            self._waiters.call_by(due_at)
        return batches, session.now, due_at

    def _gone_holders(self, connection: sqlite3.Connection) -> list[str]:
        """The processes that hold leases and are gone."""
        me = self._me
        if me is None:
            return []
        found = connection.execute("SELECT DISTINCT holder FROM lease WHERE holder <> ?", (me.text(),))
        others = {text: Holder.of(text) for (text,) in found}
        return [text for text, other in others.items() if other is not None and me.sees_end_of(other)]

    def _put_policy(self, label: str, policy: TaskPolicy) -> None:
        with self._writing(durable=True) as session:
            if not store(session.connection, label, policy):
                # A program that says at every start what stands already must not prolong, start after
                # start, the leases of those that died.
                return
            session.counters.policy_version += 1
            self._policies.follow(session.connection, session.counters.policy_version)
            held = [lease for lease in settling.find_leases(session, "1", ()) if label in lease.labels]
            settling.prolong(session, held)
            for lease in held:
                session.note_due(session.now + ledger.lease_s(session, lease.labels))
            for (lane_id,) in session.connection.execute(
                "SELECT id FROM lane WHERE class = ?", (class_of(label),)
            ).fetchall():
                session.refresh(session.lane(lane_id))

    def _known_answer(self, session: Session, scoped: ScopedKey) -> list[str] | None:
        """What the call with that key was answered. QueueFull when a new one cannot be remembered."""
        connection = session.connection
        connection.execute("DELETE FROM idempotency WHERE ends_at <= ?", (session.now,))
        row = connection.execute(
            "SELECT used_for, keys FROM idempotency WHERE scope = ?", (scoped.scope,)
        ).fetchone()
        if row is not None:
            scoped.check(row[0])
            keys: list[str] = json.loads(row[1])
            return keys
        keys_max = self._limits.idempotency_keys_max
        if connection.execute("SELECT count(*) FROM idempotency").fetchone()[0] >= keys_max:
            raise refuse_more_keys(keys_max)
        return None

    def _refuse_closed(self) -> None:
        if self._closed:
            raise QueueUnavailable("the queue is closed; build a new runtime to go on")

    def _rung(self, labels: frozenset[str]) -> None:
        with self._lock:
            if not labels:
                self._waiters.call_all()
            for label in labels:
                self._waiters.call(label)

    def _look_again(self) -> None:
        """Whether another process wrote and its ring was lost."""
        with self._lock:
            if not len(self._waiters):
                return
            try:
                version = self._file.data_version()
            except QueueError:
                self._waiters.call_all()  # they find out, and tell
                return
            if version != self._data_version or self._somebody_is_gone():
                self._data_version = version
                self._waiters.call_all()

    def _somebody_is_gone(self) -> bool:
        """Whether a claim would take back the lease of a process that is gone."""
        try:
            with self._file.read() as connection:
                gone = self._gone_holders(connection)
        except QueueError:
            return True  # whoever is called finds out, and tells
        if gone:
            self._judged_at = None
        return bool(gone)


def _held_by(session: Session, lane_id: LaneId) -> int:
    line = session.find_lane(lane_id)
    return line.held if line is not None else 0


def _all_join(session: Session, lane_ids: Sequence[LaneId], messages: Sequence[ScheduleMessageItem]) -> bool:
    wanted = Counter(zip(lane_ids, [message.label for message in messages], strict=True))
    return all(ledger.joins(session, lane_id, label, n) for (lane_id, label), n in wanted.items())


def _chain(session: Session, followups: Sequence[Followup]) -> list[LaneRow]:
    """Queue those followups that are not live yet; they are never refused. Returns their lanes."""
    touched: list[LaneRow] = []
    for followup in followups:
        if not ledger.knows(session, followup.key):
            touched += ledger.enter(
                session,
                [followup.key],
                [followup.message],
                [lane_id_of(followup.message)],
                delay_s=followup.delay_s,
                parent_key=followup.parent_key,
            )
    return touched


def _answer_of(session: Session, token: str) -> list[str] | None:
    row = session.connection.execute("SELECT keys FROM token WHERE token = ?", (token,)).fetchone()
    if row is None:
        return None
    session.connection.execute("UPDATE token SET number = ? WHERE token = ?", (session.next_number(), token))
    keys: list[str] = json.loads(row[0])
    return keys


def _remember(session: Session, token: str, answer: list[str]) -> None:
    number = session.next_number()
    session.connection.execute(
        "INSERT INTO token (number, token, keys) VALUES (?, ?, ?)", (number, token, json.dumps(answer))
    )
    session.connection.execute(
        "DELETE FROM token WHERE number <= (SELECT number FROM token ORDER BY number DESC LIMIT 1 OFFSET ?)",
        (TOKENS_MAX,),
    )
