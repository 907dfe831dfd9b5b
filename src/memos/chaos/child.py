"""What one process of a chaos run does: run handlers, submit messages, or both.

It is a whole runtime over the run's folder, as a user would build it, with a scheduler whose queue is
witnessed. SIGTERM lets it finish what runs (with the queue in memory: what waits as well) and end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memos.chaos import labels
from memos.chaos.ledger import Accepted, Began, Ended, Killed, Ledger, Stood, Stopped, Tried, names, now
from memos.chaos.witness import COMMIT_FINISH, IN_HANDLER, Points, WitnessedQueue
from memos.errors import Discard, MemosError
from memos.mem_scheduler.base_scheduler import BaseScheduler
from memos.mem_scheduler.current import batch_run
from memos.mem_scheduler.handlers.context import HandlerContext, RecallLimits
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.item import MemoryItem
from memos.memory.store import AddItems, IndexedItem
from memos.runtime import Runtime, build
from memos.settings import Settings

USERS_OF_A_SUBMITTER = 4
CUBE = "chaos"
BACKLOG_MAX = 400
TICK_S = 0.1


@dataclass(frozen=True)
class Order:
    """What a child is to do. `environment` holds the settings of the run, nothing else is read."""

    ledger: str
    environment: dict[str, str]
    name: str
    start: int  # the how manieth process of this name
    seed: int
    lease_s: float
    works: bool = True
    submits: bool = False
    in_memory: bool = False
    chance: float = 0.0  # of killing itself at any exact point
    die_at: str = ""
    die_nth: int = 1
    messages_max: int = 0  # a submitter ends after so many; 0: never
    rate: float = 100.0  # messages a second that a submitter aims at
    only: list[str] = field(default_factory=list)  # labels to submit; none: all
    handler_s: float = 0.0  # how long each message takes; 0: as it is drawn


def run(order: Order) -> None:
    """Work until SIGTERM (or, for a submitter with `messages_max`, until all are sent)."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ledger = Ledger(Path(order.ledger))
    source = random.Random(f"{order.seed}/{order.name}/{order.start}")
    points = Points(ledger, source, chance=order.chance, at=order.die_at, nth=order.die_nth)
    _Ticker(ledger, order.lease_s / 3).start()
    try:
        _serve(order, ledger, points, source, stop)
    except BaseException as error:  # a process that ends by an error ends like a killed one, and says so
        ledger.write(Killed(now(), os.getpid(), f"error: {type(error).__name__}"))
        raise
    ledger.write(Stopped(now(), os.getpid()))


def _serve(
    order: Order, ledger: Ledger, points: Points, source: random.Random, stop: threading.Event
) -> None:
    with build(Settings.load(order.environment), start=False) as runtime:
        queue: Any = WitnessedQueue(runtime.queue, ledger, points, stall_s=order.lease_s / 3)
        scheduler = BaseScheduler(runtime.scheduler.config, queue=queue, services=runtime.scheduler.services)
        if order.works:
            handlers = Handlers(runtime, scheduler, ledger, points, source, order)
            scheduler.register_handlers(handlers.table())
            scheduler.start()
            with contextlib.suppress(MemosError):  # the housekeeper of the scheduler does it as well
                scheduler.keep_house()  # what a dead process chained and did not queue
        if order.submits:
            Submitter(scheduler, runtime, ledger, source, order).run(stop)
        else:
            stop.wait()
        if order.in_memory:
            _drain(runtime)
        scheduler.stop(grace_s=10.0)


def _drain(runtime: Runtime) -> None:
    while True:
        depth = runtime.queue.depth(lanes=False)
        if not depth.remaining and not depth.running:
            return
        time.sleep(0.02)


class _Ticker(threading.Thread):
    """Notices when this process stood still for longer than its heartbeat, whoever stopped it."""

    def __init__(self, ledger: Ledger, stall_s: float) -> None:
        super().__init__(name="memos-chaos-ticker", daemon=True)
        self._ledger = ledger
        self._stall_s = stall_s

    def run(self) -> None:
        last = now()
        while True:
            time.sleep(TICK_S)
            if now() - last > self._stall_s + TICK_S:
                self._ledger.write(Stood(last, now(), os.getpid(), "stood still"))
            last = now()


class Handlers:
    """The functions behind the labels; each call is written down before and after."""

    def __init__(
        self,
        runtime: Runtime,
        scheduler: BaseScheduler,
        ledger: Ledger,
        points: Points,
        source: random.Random,
        order: Order,
    ) -> None:
        self._runtime = runtime
        self._scheduler = scheduler
        self._ledger = ledger
        self._points = points
        self._source = source
        self._order = order
        self._runs = itertools.count(1)

    def table(self) -> dict[str, Any]:
        functions = {
            labels.ORDERED: self._ordered,
            labels.PLAIN: self._plain,
            labels.EFFECT: self._effect,
            labels.CHILD: self._effect,
            labels.RELAY: self._relay,
            labels.RELAYED: self._plain,
            labels.FLAKY: self._flaky,
            labels.HOPELESS: self._hopeless,
            labels.POISON: self._poison,
        }
        policies = labels.policies(self._order.lease_s)
        return {label: (function, policies[label]) for label, function in functions.items()}

    @contextlib.contextmanager
    def _written(self, batch: Sequence[ScheduleMessageItem]) -> Any:
        number, pid = next(self._runs), os.getpid()
        lane = f"{batch[0].user_id}/{batch[0].label}"
        self._ledger.write(Began(now(), pid, number, lane, names([(m.label, m.item_id) for m in batch])))
        ok = False
        try:
            yield
            ok = True
        finally:
            self._ledger.write(Ended(now(), pid, number, ok))

    def _take_time(self) -> None:
        """Mostly nothing, sometimes long, rarely longer than a lease."""
        drawn = self._source.random()
        if self._order.handler_s:
            time.sleep(self._order.handler_s)
        elif drawn < 0.001:
            time.sleep(self._order.lease_s * 1.3)
        elif drawn < 0.02:
            time.sleep(self._source.uniform(0.02, 0.2))
        else:
            time.sleep(self._source.uniform(0, 0.004))
        self._points.passed(IN_HANDLER)

    def _ordered(self, batch: list[ScheduleMessageItem]) -> None:
        with self._written(batch):
            self._take_time()
            if self._source.random() < 0.03:
                raise ValueError("an ordered message fails now and then")

    def _plain(self, batch: list[ScheduleMessageItem]) -> None:
        with self._written(batch):
            self._take_time()

    def _effect(self, batch: list[ScheduleMessageItem]) -> None:
        with self._written(batch):
            run = batch_run()
            assert run is not None
            context = HandlerContext(self._scheduler.services, run, limits=RecallLimits())
            for message in batch:
                self._take_time()
                if context.is_repeat(message):
                    continue
                chained = labels.CHAINS.get(message.label)
                context.apply(
                    message,
                    [AddItems((_item(message),))],
                    # The copy keeps its `item_id`, by which the ledger knows parent and child.
                    followups=[]
                    if chained is None
                    else [run.child(message.model_copy(update={"label": chained}))],
                )
                self._points.passed(COMMIT_FINISH)

    def _relay(self, batch: list[ScheduleMessageItem]) -> None:
        with self._written(batch):
            for message in batch:
                self._take_time()
                self._scheduler.submit_messages(message.model_copy(update={"label": labels.RELAYED}))

    def _flaky(self, batch: list[ScheduleMessageItem]) -> None:
        with self._written(batch):
            self._take_time()
            if self._source.random() < 0.5:
                raise ValueError("a flaky message fails every other time")

    def _hopeless(self, batch: list[ScheduleMessageItem]) -> None:
        with self._written(batch):
            raise ValueError("a hopeless message fails always")

    def _poison(self, batch: list[ScheduleMessageItem]) -> None:
        with self._written(batch):
            if self._order.in_memory:  # the process holds everybody's messages: it only refuses
                raise Discard("a poisonous message")
            self._points.die("poison")


def _item(message: ScheduleMessageItem) -> IndexedItem:
    """A new item each time: an effect that happens twice is there twice."""
    item = MemoryItem(
        id=str(uuid.uuid4()),
        cube_id=message.mem_cube_id,
        user_id=message.user_id,
        memory=f"{message.label}:{message.item_id}",
        raw=False,
    )
    return IndexedItem(item, terms={})


class Submitter:
    """Submits one to eight messages of one label and lane at a time; every lane is one submitter's own."""

    def __init__(
        self,
        scheduler: BaseScheduler,
        runtime: Runtime,
        ledger: Ledger,
        source: random.Random,
        order: Order,
    ) -> None:
        self._scheduler = scheduler
        self._runtime = runtime
        self._ledger = ledger
        self._source = source
        self._order = order
        self._number = itertools.count(1)

    def run(self, stop: threading.Event) -> None:
        sent = 0
        wanted = {k: v for k, v in labels.SUBMITTED.items() if not self._order.only or k in self._order.only}
        while not stop.is_set() and (not self._order.messages_max or sent < self._order.messages_max):
            [label] = self._source.choices(list(wanted), weights=list(wanted.values()))
            size = 1 if label in labels.TO_DIE else self._source.randint(1, 8)
            try:
                if self._runtime.queue.depth(lanes=False).remaining > BACKLOG_MAX:
                    stop.wait(0.05)
                    continue
                self._submit(label, size)
                sent += size
            except MemosError:
                stop.wait(0.1)  # the queue is away, or full: nothing was promised
            stop.wait(size / self._order.rate)

    def _submit(self, label: str, size: int) -> None:
        order = self._order
        user = f"{order.name}-{self._source.randrange(USERS_OF_A_SUBMITTER)}"
        ids = [f"{order.name}.{order.start:06d}.{next(self._number):08d}" for _ in range(size)]
        items = names([(label, item_id) for item_id in ids])
        pid = os.getpid()
        self._ledger.write(Tried(now(), pid, items, label, f"{user}/{label}"))
        self._scheduler.submit_messages(
            [
                ScheduleMessageItem(
                    user_id=user, mem_cube_id=f"{CUBE}-{user}", label=label, content="x", item_id=item_id
                )
                for item_id in ids
            ]
        )
        self._ledger.write(Accepted(now(), pid, items))
