"""One trace from the request through the queue into chained tasks, in every process; nothing when it is off."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.services import drop_keys, redis_address, redis_is_there

from memos import tracing
from memos.api.app import create_app
from memos.errors import ConfigError
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.otel import OtelTracer
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import run_until_idle
from memos.tracing import first_run_of

USER, TEXT = "canary-user-71", "The vault stands behind the canary painting"
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = CLIENT[3:35]


class Receiver:
    """An OTLP endpoint over HTTP on a free port: what it was sent, span by span and as bytes."""

    def __init__(self) -> None:
        self.spans: list[tuple[dict[str, Any], Any]] = []  # attributes of the resource, span
        self.bodies: list[bytes] = []
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver._take(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def _take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            self.bodies.append(body)
            for group in request.resource_spans:
                said = {one.key: one.value.string_value for one in group.resource.attributes}
                self.spans += [(said, span) for scope in group.scope_spans for span in scope.spans]
            self._changed.notify_all()

    def wait_for(self, *names: str) -> None:
        with self._changed:
            there = self._changed.wait_for(
                lambda: set(names) <= {span.name for _, span in self.spans}, timeout=60
            )
        assert there, sorted({span.name for _, span in self.spans})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()


@pytest.fixture
def otel(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """The standard variables of this process and its children name the receiver."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    return receiver


@pytest.fixture(params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    queue: dict[str, object] = {"backend": request.param}
    if request.param == "redis":
        if not redis_is_there():
            pytest.skip("no Redis answers")
        queue |= {"redis_url": redis_address().url, "redis_prefix": f"test-traces-{uuid4().hex}"}
    yield settings_of(tmp_path, queue)
    if request.param == "redis":
        drop_keys(redis_address(), str(queue["redis_prefix"]))


def settings_of(home: Path, queue: dict[str, object] | None = None, *, on: bool = True) -> Settings:
    return Settings(
        home=home,
        models={"embedder": "none"},
        queue=queue or {},
        api={"enable_chat": True},
        tracing={"enabled": on},
    )


def worker(settings: Settings, *labels: str) -> subprocess.Popen[bytes]:
    """`memos worker` as a process of its own."""
    environment = {
        **os.environ,
        "MEMOS_HOME": str(settings.home),
        "MEMOS_MODELS__EMBEDDER": "none",
        "MEMOS_TRACING__ENABLED": "true",
        "OTEL_RESOURCE_ATTRIBUTES": "role=worker",
        "MEMOS_QUEUE__BACKEND": str(settings.queue.backend),
    }
    if settings.queue.redis_url is not None:
        environment |= {
            "MEMOS_QUEUE__REDIS_URL": settings.queue.redis_url.get_secret_value(),
            "MEMOS_QUEUE__REDIS_PREFIX": settings.queue.redis_prefix,
        }
    command = [sys.executable, "-m", "memos.cli", "worker", "--labels", ",".join(labels)]
    return subprocess.Popen(command, env=environment)


def test_one_trace_through_every_process(settings: Settings, otel: Receiver) -> None:
    """A client's traceparent is the root of the request, of its submit, of the wait, of the tasks that another
    process runs and of what they do; every span's parent is there; nobody's name or words are."""
    with build(settings, start=False) as runtime, TestClient(create_app(runtime)) as client:
        added = client.post("/product/add", json={"user_id": USER, "messages": TEXT})
        asked = client.post(
            "/product/chat/complete",
            json={"user_id": USER, "query": f"What do you know? {TEXT}"},
            headers={"traceparent": CLIENT, "x-trace-id": "another"},
        )
        assert (added.status_code, asked.status_code) == (200, 200)
        assert asked.headers["x-trace-id"] == TRACE
        process = worker(settings, "query", "mem_update", "answer")
        try:
            otel.wait_for("run query", "run answer", "run mem_update")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    mine = [(said, span) for said, span in otel.spans if span.trace_id.hex() == TRACE]
    names = {span.name for _, span in mine}
    assert names >= {
        "POST /product/chat/complete",
        *("submit query", "wait query", "run query", "run mem_update", "wait mem_update"),
        *("submit answer", "run answer", "recall", "recall channels", "store transaction", "settle"),
    }
    ids = {span.span_id for _, span in mine}
    assert len(ids) == len(mine)
    orphans = [span.name for _, span in mine if span.parent_span_id not in ids]
    assert orphans == ["POST /product/chat/complete"]
    [root] = [span for _, span in mine if span.name == orphans[0]]
    assert root.parent_span_id.hex() == CLIENT[36:52]
    parents = {span.name: {one.name: one.span_id for _, one in mine} for _, span in mine}
    by_name = {span.name: span for _, span in mine}
    assert by_name["run query"].parent_span_id == parents["run query"]["submit query"]
    assert by_name["run mem_update"].parent_span_id == parents["run query"]["run query"]
    ran_in = {span.name: said.get("role") for said, span in mine}
    assert (ran_in["run mem_update"], ran_in["submit query"]) == ("worker", None)
    assert {said["service.name"] for said, _ in otel.spans} == {"memscheduler"}
    sent = b"".join(otel.bodies)
    assert USER.encode() not in sent and b"canary painting" not in sent


def test_a_retry_is_a_span_of_its_own(settings: Settings, otel: Receiver) -> None:
    """After a failure and a restart the second run stands in the same trace, and links to the first."""
    policy = TaskPolicy(backoff_base_s=0.0)

    def fails(messages: list[ScheduleMessageItem]) -> None:
        raise ValueError(TEXT)

    message = ScheduleMessageItem(user_id=USER, mem_cube_id=USER, label="flaky", content=TEXT)
    with build(settings, start=False) as runtime:
        [key] = runtime.scheduler.submit_messages(message)
        runtime.scheduler.register_handlers({"flaky": (fails, policy)})
        assert runtime.scheduler.run_once() == 1
    with build(settings, start=False) as runtime:
        runtime.scheduler.register_handlers({"flaky": (lambda messages: None, policy)})
        assert runtime.scheduler.run_once() == 1
        assert [one.state for one in runtime.queue.statuses(user_id=USER)] == [TaskState.COMPLETED]
    runs = [span for _, span in otel.spans if span.name == "run flaky"]
    first, second = sorted(runs, key=lambda span: span.start_time_unix_nano)
    [submit] = [span for _, span in otel.spans if span.name == "submit flaky"]
    assert first.span_id.hex() == first_run_of(key)
    assert {first.trace_id.hex(), second.trace_id.hex()} == {message.trace_id}
    assert first.parent_span_id == second.parent_span_id == submit.span_id
    assert [link.span_id for link in second.links] == [first.span_id] and not first.links
    assert (first.status.code, second.status.code) == (2, 0)
    assert {one.key: one.value.string_value for one in first.attributes}["error.type"] == "ValueError"
    assert TEXT.encode() not in b"".join(otel.bodies)


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[Runtime, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    tracer = OtelTracer(exporter)
    with build(settings_of(tmp_path, on=False), start=False) as runtime:
        tracing.install(tracer)
        yield runtime, exporter
        tracing.uninstall(tracer)


def spans_of(exporter: InMemorySpanExporter) -> list[Any]:
    tracing._installed._provider.force_flush()  # type: ignore[union-attr]
    return list(exporter.get_finished_spans())


def test_the_trace_id_is_the_same_everywhere(traced: tuple[Runtime, InMemorySpanExporter]) -> None:
    """Without a traceparent a span's trace is the id that the answer, the messages and the journal name; an id
    that is no trace id is traced under its hash."""
    runtime, exporter = traced
    with TestClient(create_app(runtime)) as client:
        plain = client.post("/product/add", json={"user_id": "u", "messages": "A lamp."}).headers[
            "x-trace-id"
        ]
        body = {"user_id": "u", "messages": "A kettle."}
        named = client.post("/product/add", json=body, headers={"x-trace-id": "order:7"}).headers[
            "x-trace-id"
        ]
    assert named == "order:7"
    roots = [span for span in spans_of(exporter) if span.name == "POST /product/add"]
    assert [f"{span.context.trace_id:032x}" for span in roots] == [plain, tracing.as_trace_id("order:7")]
    journal = {row.cause.trace_id for row in runtime.store.journal(cube_id="u")}
    assert journal == {plain, "order:7"}
    while runtime.scheduler.run_once():
        pass
    reads = [span for span in spans_of(exporter) if span.name == "run mem_read"]
    assert {f"{span.context.trace_id:032x}" for span in reads} <= {plain, tracing.as_trace_id("order:7")}
    assert reads


def test_a_call_with_several_messages_is_in_the_trace_of_each(
    traced: tuple[Runtime, InMemorySpanExporter],
) -> None:
    """Every message of a batch has a run in its own trace; the others link to the one that holds the details."""
    runtime, exporter = traced
    runtime.scheduler.register_handlers({"many": lambda messages: None})
    messages = [
        ScheduleMessageItem(user_id="u", mem_cube_id="u", label="many", content=f"{n}") for n in range(3)
    ]
    for message in messages:
        runtime.scheduler.submit_messages(message)
    [batch] = runtime.queue.claim({"many"}, lanes_max=1, batch_max=3)
    count = len(batch.deliveries)
    runtime.scheduler.dispatcher.run(batch)
    runs = [span for span in spans_of(exporter) if span.name == "run many"]
    assert len(runs) == count
    assert {f"{span.context.trace_id:032x}" for span in runs} == {one.trace_id for one in messages[:count]}
    primary = next(span for span in runs if not span.links)
    assert all(
        [link.context.span_id for link in span.links] == [primary.context.span_id]
        for span in runs
        if span is not primary
    )


def test_what_is_not_sampled_stays_so_behind_the_queue(traced: tuple[Runtime, InMemorySpanExporter]) -> None:
    """A client that does not record its trace gets no spans, from the request to the tasks."""
    runtime, exporter = traced
    with TestClient(create_app(runtime)) as client:
        client.post(
            "/product/add",
            json={"user_id": "u", "messages": "A lamp."},
            headers={"traceparent": CLIENT.removesuffix("01") + "00"},
        )
    while runtime.scheduler.run_once():
        pass
    assert [span.name for span in spans_of(exporter) if f"{span.context.trace_id:032x}" == TRACE] == []


@pytest.mark.parametrize("bad", ["", "00-0-0-00", CLIENT + "-x", "00-" + "0" * 32 + CLIENT[35:], "\xff"])
def test_a_malformed_traceparent_is_none(bad: str) -> None:
    """What is no traceparent, by form or by zeros, is as if none had been sent."""
    assert tracing.checked(bad) == "" and tracing.checked(f" {CLIENT.upper()} ") == CLIENT


def test_an_endpoint_that_is_away_costs_spans_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing listens, and where somebody takes the connection and never answers, everything is stored and
    run, more spans than fit are dropped, and the runtime closes."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for place, port in (("refusing", 9), ("silent", silent.getsockname()[1])):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
            monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "32")
            with build(settings_of(tmp_path / place), start=True) as runtime:
                for number in range(20):
                    runtime.chat.writer.write(f"Note {number}.", user_id="u", cube_ids=("u",), read="later")
                run_until_idle(runtime.scheduler)
                assert runtime.store.sizes("u").long_term >= 20
                states = {one.state for one in runtime.queue.statuses(user_id="u")}
                assert states == {TaskState.COMPLETED}


def test_off_costs_nothing(tmp_path: Path) -> None:
    """By default nothing that traces is loaded, messages carry nothing, and a span is the same nothing."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from memos.runtime import build\n"
        "from memos.settings import Settings\n"
        "from memos.api.app import create_app\n"
        f"with build(Settings(home=Path({str(tmp_path)!r}), models={{'embedder': 'none'}})) as runtime:\n"
        "    create_app(runtime)\n"
        "    runtime.chat.writer.write('A lamp.', user_id='u', cube_ids=('u',), read='later')\n"
        "print([name for name in sys.modules if name.startswith(('memos.otel', 'opentelemetry.sdk', "
        "'opentelemetry.exporter', 'google.protobuf'))])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stderr
    assert tracing.span("a") is tracing.span("b", memos_n=1)


def test_without_its_package_the_switch_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra, and nothing of the runtime stays open."""
    monkeypatch.setitem(sys.modules, "memos.otel", None)
    with pytest.raises(ConfigError, match=r"memscheduler\[otel\]"):
        build(settings_of(tmp_path), start=False)
    assert not tracing.is_on()
