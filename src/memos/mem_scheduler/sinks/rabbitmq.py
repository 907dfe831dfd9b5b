"""Web logs to RabbitMQ: at least once, in order, from the store, whatever becomes of the broker.

    exchange memos-fanout (fanout, durable) ──▶ queue memos-scheduler (durable)
    body: the log as JSON; persistent; message_id = item_id, type = label, header `number`

The store is the spool: every log is a row there before it is published, and the number of the last one
that the broker confirmed stands in a small file. A broker that is away, a connection that breaks or a
process that is killed therefore loses nothing that the store keeps; a log whose confirmation was lost comes
again, under the same message_id. What the store's own bound pushed out meanwhile is counted as dropped.
Of several processes on one store, the one that holds the file's lock publishes. `emit` only wakes the thread.

TLS is on for port 5671 or where it is asked for, and then always verified: certificate and name.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memos import log, metrics
from memos.clock import Clock
from memos.errors import ConfigError, MemosError
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.memory.store import MemoryStore

LOOK_S = 2.0  # for logs of other processes, which wake nobody here
CHUNK = 200
RETRY_MIN_S, RETRY_MAX_S = 0.5, 30.0
TIMEOUT_S = 10.0  # of connecting, and of a broker that blocks
TLS_PORT = 5671
SINK = "rabbitmq"

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to publish. `tls` None: on for port 5671. `ca_file`: instead of the system's authorities."""

    host: str
    port: int = 5672
    user: str = "guest"
    password: str = "guest"
    virtual_host: str = "/"
    tls: bool | None = None
    ca_file: Path | None = None
    exchange: str = "memos-fanout"
    exchange_type: str = "fanout"
    queue: str = "memos-scheduler"  # "": none is made, consumers bind their own

    @property
    def uses_tls(self) -> bool:
        return self.port == TLS_PORT if self.tls is None else self.tls


class RabbitMqSink:
    """Fulfils `LogSink`. `start` begins to publish; `close` publishes what is left, briefly, and ends."""

    def __init__(self, broker: Broker, store: MemoryStore, *, cursor: Path, clock: Clock) -> None:
        try:
            self._pika: Any = importlib.import_module("pika")
        except ImportError as error:
            raise ConfigError(
                "web logs to RabbitMQ need the package pika: pip install 'memscheduler[rabbitmq]'"
            ) from error
        self._broker = broker
        self._store = store
        self._clock = clock
        self._cursor = cursor
        self._parameters = self._connection_parameters()
        self._changed = threading.Condition()
        self._news = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._channel: Any = None

    def emit(self, logs: Sequence[ScheduleLogForWebItem]) -> None:
        """There is something new in the store."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def drain(self, limit: int | None = None) -> list[ScheduleLogForWebItem]:
        """Nothing is buffered here."""
        return []

    def start(self) -> None:
        """Publish on a thread of its own, from where the last publisher of this store ended."""
        self._thread = threading.Thread(target=self._work, name="memos-rabbitmq", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """One more try for what is left, then end. What the broker did not take stays in the store."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=TIMEOUT_S)
            self._thread = None

    # -- the thread -------------------------------------------------------------------------------------

    def _work(self) -> None:
        with contextlib.ExitStack() as held:
            lock = self._locked()
            if lock is None:
                return
            held.callback(os.close, lock)
            held.callback(self._disconnect)
            number = self._start_number()
            wait_s = RETRY_MIN_S
            while True:
                stopping = self._stopping
                try:
                    number = self._publish_after(number)
                    wait_s = RETRY_MIN_S
                    pause_s = LOOK_S
                except (self._pika.exceptions.AMQPError, OSError, MemosError) as error:
                    # Away, refusing, or a store that is locked: later.
                    logger.warning("rabbitmq.unavailable", error=type(error).__name__, retry_s=wait_s)
                    self._disconnect()
                    number = self._kept_number(number)
                    pause_s, wait_s = wait_s, min(RETRY_MAX_S, wait_s * 2)
                except Exception as error:  # the thread loop: no log would ever be published again
                    logger.error("rabbitmq.died", error=type(error).__name__, exc_info=True)
                    self._disconnect()
                    pause_s = RETRY_MAX_S
                if stopping:
                    return
                self._pause(pause_s, for_news=pause_s == LOOK_S)

    def _pause(self, seconds: float, *, for_news: bool) -> None:
        with self._changed:
            if not self._stopping and not (for_news and self._news):
                self._clock.wait(self._changed, seconds)
            self._news = False

    def _publish_after(self, number: int) -> int:
        """Publish everything newer; returns the last number that the broker confirmed."""
        newest = self._newest()
        if self._connection is not None:
            self._connection.process_data_events(0)  # heartbeats, and a connection that is gone
        while number < newest:
            # Numbers rise without gaps but where logs were pushed out: the oldest ones of a chunk.
            page = self._store.web_logs(limit=CHUNK, before=number + CHUNK + 1)
            fresh = sorted((one for one in page if one[0] > number), key=lambda one: one[0])
            missing = (fresh[0][0] if fresh else min(number + CHUNK, newest) + 1) - number - 1
            if missing:
                metrics.WEB_LOGS_DROPPED.add(missing, sink=SINK)
            number += missing
            self._keep(number)
            for n, entry in fresh:
                self._publish(n, entry)
                number = n
                self._keep(number)
        return number

    def _publish(self, number: int, entry: ScheduleLogForWebItem) -> None:
        """One log, confirmed by the broker when this returns."""
        properties = self._pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            message_id=entry.item_id,
            type=entry.label,
            headers={"number": number},
        )
        self._opened().basic_publish(
            self._broker.exchange, "", entry.model_dump_json().encode(), properties, mandatory=False
        )
        metrics.WEB_LOGS.add(sink=SINK)

    # -- the broker -------------------------------------------------------------------------------------

    def _connection_parameters(self) -> Any:
        broker = self._broker
        options = None
        if broker.uses_tls:
            options = self._pika.SSLOptions(verified_context(broker.ca_file), broker.host)
        return self._pika.ConnectionParameters(
            host=broker.host,
            port=broker.port,
            virtual_host=broker.virtual_host,
            credentials=self._pika.PlainCredentials(broker.user, broker.password),
            ssl_options=options,
            connection_attempts=1,
            socket_timeout=TIMEOUT_S,
            stack_timeout=TIMEOUT_S,
            blocked_connection_timeout=TIMEOUT_S,
            heartbeat=30,
        )

    def _opened(self) -> Any:
        """The channel, with the exchange and queue there and confirmations on."""
        if self._channel is not None:
            return self._channel
        broker = self._broker
        self._connection = self._pika.BlockingConnection(self._parameters)
        channel = self._connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare(broker.exchange, exchange_type=broker.exchange_type, durable=True)
        if broker.queue:
            channel.queue_declare(broker.queue, durable=True)
            channel.queue_bind(broker.queue, broker.exchange, routing_key="")
        logger.info("rabbitmq.connected", host=broker.host, exchange=broker.exchange)
        self._channel = channel
        return channel

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(self._pika.exceptions.AMQPError, OSError):
                connection.close()

    # -- where it stands --------------------------------------------------------------------------------

    def _locked(self) -> int | None:
        """The lock of the store's one publisher, waited for; None when asked to stop before."""
        self._cursor.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._cursor.with_name(self._cursor.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        while not self._stopping:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._pause(LOOK_S, for_news=False)
            else:
                return lock
        os.close(lock)
        return None

    def _newest(self) -> int:
        found = self._store.web_logs(limit=1)
        return found[0][0] if found else 0

    def _start_number(self) -> int:
        """Where the last publisher ended; at the first start: now. A file of another store counts as none."""
        while True:
            try:
                newest = self._newest()
            except MemosError as error:
                logger.warning("rabbitmq.store_unreadable", error=type(error).__name__)
                if self._stopping:
                    return 0
                self._pause(RETRY_MIN_S, for_news=False)
                continue
            kept = self._kept_number(-1)
            if 0 <= kept <= newest:
                return kept
            self._keep(newest)
            return newest

    def _kept_number(self, otherwise: int) -> int:
        try:
            text = self._cursor.read_text()
        except FileNotFoundError:
            return otherwise
        return int(text) if text.strip().isdecimal() else otherwise

    def _keep(self, number: int) -> None:
        """Whole or not at all; what a crash of the machine takes back is published again."""
        beside = self._cursor.with_name(f".{self._cursor.name}.new")
        beside.write_text(str(number))
        beside.replace(self._cursor)


def verified_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS that checks the certificate and the name. Raises ConfigError when the file is of no use."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the authorities in {ca_file} cannot be read: {error}") from error
