"""Web logs to a real broker: in order, at least once, and nothing lost while it is away."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest

from memos import metrics
from memos.clock import SystemClock
from memos.errors import ConfigError
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.mem_scheduler.sinks.fan_out import FanOutSink
from memos.mem_scheduler.sinks.local import LocalLogSink
from memos.mem_scheduler.sinks.rabbitmq import Broker, RabbitMqSink, verified_context
from memos.memory.sqlite import SqliteStore
from memos.runtime import build
from memos.settings import Settings

HOST = os.environ.get("MEMOS_TESTS_RABBITMQ_HOST", "127.0.0.1")
PORT = int(os.environ.get("MEMOS_TESTS_RABBITMQ_PORT", "5672"))
Consume = Callable[[int], list[tuple[str, str]]]


class Proxy:
    """Stands between a client and the broker, and can be taken away and brought back on the same port."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._open: list[socket.socket] = []
        self._server: socket.socket | None = None

    def start(self) -> None:
        server = socket.create_server(("127.0.0.1", self.port))
        self._server = server
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def stop(self) -> None:
        for one in [self._server, *self._open]:
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._server, self._open = None, []

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            broker = socket.create_connection((HOST, PORT))
            self._open += [client, broker]
            for source, target in ((client, broker), (broker, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while part := source.recv(65_536):
                target.sendall(part)
        except OSError:
            pass
        for one in (source, target):
            one.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    try:
        connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT))
    except (OSError, pika.exceptions.AMQPError) as error:
        if os.environ.get("MEMOS_TESTS_REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(f"no RabbitMQ on {HOST}:{PORT}: {type(error).__name__}")
    name = f"memos-test-{uuid.uuid4().hex}"
    yield Broker(HOST, PORT, exchange=f"{name}-x", queue=f"{name}-q")
    channel = connection.channel()
    channel.queue_delete(f"{name}-q")
    channel.exchange_delete(f"{name}-x")
    connection.close()


@pytest.fixture
def consume(broker: Broker) -> Iterator[Consume]:
    """Take so many messages off the queue: (text of the log, message id) each."""
    connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT))
    channel = connection.channel()
    channel.queue_declare(broker.queue, durable=True)

    def take(count: int) -> list[tuple[str, str]]:
        got: list[tuple[str, str]] = []
        for method, properties, body in channel.consume(broker.queue, inactivity_timeout=20):
            assert method is not None, f"{len(got)} of {count} came"
            channel.basic_ack(method.delivery_tag)
            log = json.loads(body)
            assert (properties.delivery_mode, properties.type) == (2, log["label"])
            assert properties.message_id == log["item_id"]
            got.append((log["log_content"], properties.message_id))
            if len(got) == count:
                break
        channel.cancel()
        return got

    yield take
    connection.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "memory.db", clock=SystemClock(), web_logs_max=50) as opened:
        yield opened


def sink_of(broker: Broker, store: SqliteStore) -> RabbitMqSink:
    return RabbitMqSink(broker, store, cursor=store.path.with_name("cursor"), clock=SystemClock())


def tell(store: SqliteStore, sink: RabbitMqSink | None, *texts: str) -> None:
    logs = [
        ScheduleLogForWebItem(user_id="u", mem_cube_id="u", label="addMessage", log_content=text)
        for text in texts
    ]
    store.apply([], logs=logs)
    if sink is not None:
        sink.emit(logs)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def through(proxy: Proxy, broker: Broker) -> Broker:
    return Broker("127.0.0.1", proxy.port, exchange=broker.exchange, queue=broker.queue)


def test_every_log_arrives_once_and_in_order(broker: Broker, store: SqliteStore, consume: Consume) -> None:
    """What is told from the start on is published, persistent and with its id; what was there before is not."""
    tell(store, None, "before")
    sink = sink_of(broker, store)
    sink.start()
    until(lambda: store.path.with_name("cursor").exists())
    published = metrics.WEB_LOGS.value(sink="rabbitmq")
    for number in range(20):
        tell(store, sink, f"log {number}")
    assert [text for text, _ in consume(20)] == [f"log {number}" for number in range(20)]
    sink.close()
    assert metrics.WEB_LOGS.value(sink="rabbitmq") - published == 20


def test_nothing_is_lost_while_the_broker_is_away(
    broker: Broker, store: SqliteStore, consume: Consume
) -> None:
    """Away at the start, cut off in the middle, back each time: all logs come, in order, under their ids."""
    proxy = Proxy()
    sink = sink_of(through(proxy, broker), store)
    sink.start()
    until(lambda: store.path.with_name("cursor").exists())
    tell(store, sink, "a", "b")
    proxy.start()
    got = consume(2)
    proxy.stop()
    tell(store, sink, "c", "d")
    proxy.start()
    while got[-1][0] != "d":  # one whose confirmation was lost comes again, under its id
        got += consume(1)
    assert [text for _, text in {one: text for text, one in got}.items()] == ["a", "b", "c", "d"]
    sink.close()
    proxy.stop()


def test_another_process_goes_on_where_the_last_one_ended(
    broker: Broker, store: SqliteStore, consume: Consume
) -> None:
    """Logs told while nobody published are published by the next one; two at once publish nothing twice."""
    first, second = sink_of(broker, store), sink_of(broker, store)
    first.start()
    until(lambda: store.path.with_name("cursor").exists())
    second.start()
    tell(store, first, "a")
    second.emit([])
    assert [text for text, _ in consume(1)] == ["a"]
    first.close()
    second.close()
    tell(store, None, "b", "c")
    third = sink_of(broker, store)
    third.start()
    assert [text for text, _ in consume(2)] == ["b", "c"]
    third.close()


def test_what_the_store_no_longer_holds_is_counted(
    broker: Broker, store: SqliteStore, consume: Consume
) -> None:
    """Logs that the store's bound pushed out before they could be published count as dropped."""
    first = sink_of(broker, store)
    first.start()
    until(lambda: store.path.with_name("cursor").exists())
    first.close()
    dropped = metrics.WEB_LOGS_DROPPED.value(sink="rabbitmq")
    tell(store, None, *(f"log {number}" for number in range(80)))  # the store keeps 50
    second = sink_of(broker, store)
    second.start()
    assert [text for text, _ in consume(50)] == [f"log {number}" for number in range(30, 80)]
    second.close()
    assert metrics.WEB_LOGS_DROPPED.value(sink="rabbitmq") - dropped == 30


def test_a_runtime_publishes_what_its_scheduler_does(
    broker: Broker, tmp_path: Path, consume: Consume
) -> None:
    """With a broker named in the settings an add is told there, and closing leaves nothing behind."""
    settings = Settings(
        home=tmp_path / "home",
        models={"embedder": "none"},
        rabbitmq={"host": HOST, "port": PORT, "exchange": broker.exchange, "queue": broker.queue},
    )
    with build(settings, start=True) as runtime:
        until(settings.rabbitmq_cursor_path.exists)
        runtime.chat.writer.write("My boat is called Petrel.", user_id="u", cube_ids=["u"])
        [(text, _)] = consume(1)
        assert "1 memories" in text or "Knowledge base updated" in text


def test_tls_is_always_verified(store: SqliteStore, tmp_path: Path) -> None:
    """On by port, with certificate and name checked; a broker with a certificate of its own is not spoken to."""
    assert Broker("h", 5671).uses_tls and not Broker("h").uses_tls and Broker("h", tls=True).uses_tls
    context = verified_context(None)
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(ConfigError):
        verified_context(tmp_path / "nowhere.pem")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    subprocess.run(
        [
            *(
                openssl,
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate, key)
    server = socket.create_server(("127.0.0.1", 0))
    greeted: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            try:
                with served.wrap_socket(client, server_side=True) as spoken:
                    greeted.append(spoken.recv(8))
            except OSError:
                greeted.append(b"")

    threading.Thread(target=serve, daemon=True).start()
    port = server.getsockname()[1]
    for ca_file, host in ((None, "localhost"), (certificate, "127.0.0.1"), (certificate, "localhost")):
        sink = sink_of(Broker(host, port, tls=True, ca_file=ca_file), store)
        seen = len(greeted)
        with pytest.raises((pika.exceptions.AMQPError, OSError)):
            sink._opened()
        until(lambda seen=seen: len(greeted) > seen)  # type: ignore[misc]
        trusted = (ca_file, host) == (certificate, "localhost")
        assert (greeted[-1][:4] == b"AMQP") is trusted
    server.close()


def test_the_fan_out_gives_to_all_and_takes_from_the_first() -> None:
    """Each sink gets each log."""
    first, second = LocalLogSink(), LocalLogSink()
    both = FanOutSink(first, second)
    both.emit([ScheduleLogForWebItem(user_id="u", mem_cube_id="u", label="l", log_content="x")])
    assert len(both.drain()) == 1 and len(first) == 0 and len(second) == 1
