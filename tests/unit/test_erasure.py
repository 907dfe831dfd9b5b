"""A user who is erased is gone from every file, and nothing brings them back; nobody else loses anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from tests.conformance.redis_keys import check_keys
from tests.services import drop_keys, redis_address, redis_is_there
from typer.testing import CliRunner

from memos.cli.main import app as command_line
from memos.erasure import erase
from memos.errors import Discard, RetryLater
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.mem_scheduler.sinks.rabbitmq import Broker, RabbitMqSink
from memos.memory.item import ItemStatus
from memos.memory.store import ItemFilter, SetStatus
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import run_until_idle

SECRET = "The vault of Alice is behind the blue painting in Tavira."
PART = "behind the blue painting in Tavira"


@pytest.fixture(params=["sqlite", "redis"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    """On each queue that outlives its process; the prefix of the keys is the test's own."""
    queue: dict[str, object] = {"backend": request.param}
    if request.param == "redis":
        if not redis_is_there():
            pytest.skip("no Redis answers")
        queue |= {"redis_url": redis_address().url, "redis_prefix": f"test-erase-{uuid4().hex}"}
    settings = Settings(home=tmp_path / "data", models={"embedder": "none"}, queue=queue)
    try:
        with build(settings, start=False) as built:
            yield built
    finally:
        if request.param == "redis":
            drop_keys(redis_address(), str(queue["redis_prefix"]))


def say(runtime: Runtime, user: str, text: str, *, cubes: tuple[str, ...] = ()) -> str:
    written = runtime.chat.writer.write(text, user_id=user, cube_ids=cubes or (user,), read="later")
    return written.items[0].id


def left(runtime: Runtime, text: str) -> list[str]:
    """The files and keys of the installation in which the text stands, in any form."""
    forms = {text.encode(), quote(text, safe="").encode()}
    home = runtime.settings.store_path.parent
    found = [
        path.name
        for path in home.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in forms)
    ]
    client = runtime.redis_client
    if client is not None:
        for key in client.scan_iter(f"{runtime.settings.queue.redis_prefix}:*"):
            held = str(READ[client.type(key)](client, key)) + key
            found += [key] if any(form.decode() in held for form in forms) else []
    return found


READ: dict[str, Callable[[Any, str], object]] = {
    "string": lambda client, key: client.get(key),
    "hash": lambda client, key: client.hgetall(key),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: client.smembers(key),
    "zset": lambda client, key: client.zrange(key, 0, -1),
    "stream": lambda client, key: client.xrange(key),
}


def ask(runtime: Runtime, user: str, cube: str, text: str) -> None:
    runtime.scheduler.submit_messages(
        ScheduleMessageItem(user_id=user, mem_cube_id=cube, label="query", content=text)
    )


def test_nothing_of_the_user_is_left_in_any_file(runtime: Runtime) -> None:
    """Memories of every status, working memory, journal, logs, state, waiting tasks and dead letters."""

    def refuse(messages: list[ScheduleMessageItem]) -> None:
        raise Discard(f"cannot do {messages[0].content}")

    say(runtime, "alice", SECRET)
    archived = say(runtime, "alice", SECRET + " Long ago.", cubes=("team",))
    say(runtime, "bob", "Bob keeps bees in Tavira.", cubes=("team",))
    runtime.scheduler.register_handlers({"refused": refuse})
    runtime.scheduler.start()
    ask(runtime, "alice", "alice", "Where is the vault of Alice behind the painting?")
    ask(runtime, "bob", "team", "What is behind the blue painting of Alice in Tavira?")
    runtime.scheduler.submit_messages(
        ScheduleMessageItem(user_id="alice", mem_cube_id="alice", label="refused", content=SECRET)
    )
    run_until_idle(runtime.scheduler)
    runtime.store.apply([SetStatus((archived,), ItemStatus.ARCHIVED, "put away")])
    runtime.scheduler.stop()
    ask(runtime, "alice", "alice", SECRET)
    assert left(runtime, SECRET)
    receipt = erase(runtime, "alice")
    assert left(runtime, PART) == []
    assert receipt.traces == 0 and receipt.canaries >= 2 and receipt.log_emptied
    assert receipt.counts["items"] >= 2 and receipt.counts["tasks_cancelled"] == 1
    assert receipt.counts["journal_rows_redacted"] > 0 and receipt.counts["web_logs"] > 0
    assert left(runtime, PART) == []
    assert left(runtime, "Where is the vault") == []
    assert runtime.store.find(ItemFilter(user_ids=("alice",), statuses=tuple(ItemStatus))).total == 0
    assert runtime.store.verify() == []
    [bees] = runtime.store.find(ItemFilter(cube_ids=("team",), user_ids=("bob",), raw=True)).items
    assert bees.memory == "Bob keeps bees in Tavira."


def test_nothing_of_finished_tasks_is_left(runtime: Runtime) -> None:
    """Errors and names of tasks that failed, retry or were given up, keys of calls and what programs wrote."""
    failures = iter(range(1_000))

    def fail(messages: list[ScheduleMessageItem]) -> None:
        if next(failures) < 2:
            raise ValueError(f"cannot do {messages[0].content}")

    def retry(messages: list[ScheduleMessageItem]) -> None:
        raise RetryLater(3_600, f"not yet: {messages[0].content}")

    runtime.scheduler.register_handlers(
        {
            "flaky": (fail, TaskPolicy(backoff_base_s=0.001)),
            "later": retry,
        }
    )
    runtime.scheduler.start()
    for label in ("flaky", "later"):
        message = ScheduleMessageItem(
            item_id=f"item {SECRET}",
            user_id="alice",
            mem_cube_id="alice",
            label=label,
            content=SECRET,
            task_id=f"task: {SECRET}",
        )
        runtime.scheduler.submit_messages(message, idempotency_key=f"{label}: {SECRET}")
    until_state(runtime, "flaky", TaskState.COMPLETED)
    until_state(runtime, "later", TaskState.RETRYING)
    runtime.scheduler.stop()
    tracker = runtime.status_tracker
    tracker.task_submitted(f"own {SECRET}", "alice", "import", "alice", business_task_id=SECRET)
    tracker.task_failed(f"own {SECRET}", "alice", f"cannot read {SECRET}")
    tracker.task_submitted("bees", "bob", "import", "team")
    assert left(runtime, PART)
    receipt = erase(runtime, "alice")
    assert left(runtime, PART) == []
    assert receipt.traces == 0 and receipt.counts["statuses"] == 1
    assert (receipt.redis_keys > 0) == (runtime.redis_client is not None)
    assert runtime.queue.statuses(user_id="alice") == []
    assert tracker.get_all_tasks_for_user("alice") == {}
    assert list(tracker.get_all_tasks_for_user("bob")) == ["bees"]
    if isinstance(runtime.queue, RedisStreamsQueue):
        check_keys(runtime.queue)


def until_state(runtime: Runtime, label: str, state: TaskState) -> None:
    for _ in range(2_000):
        if [one.state for one in runtime.queue.statuses(user_id="alice") if one.label == label] == [state]:
            return
        threading.Event().wait(0.005)
    raise AssertionError([(one.label, one.state) for one in runtime.queue.statuses(user_id="alice")])


@pytest.mark.parametrize("label", ["mem_read", "mem_feedback", "mem_update", "query", "answer", "pref_add"])
def test_a_late_task_brings_nothing_back(runtime: Runtime, label: str) -> None:
    """A task that was taken before the erasure and ends after it stores, chains and tells nothing."""
    item = say(runtime, "alice", f"I live in Tavira. I prefer tea. {SECRET}")
    content = json.dumps([item]) if label == "mem_read" else f"No, I live in Lyon. I like tea. {SECRET}"
    if label != "mem_read":
        runtime.queue.cancel([one.key for one in runtime.queue.statuses(user_id="alice")])
        runtime.scheduler.submit_messages(
            ScheduleMessageItem(
                user_id="alice", mem_cube_id="alice", label=label, content=content, task_id="all of it"
            )
        )
    [batch] = runtime.queue.claim({label}, lanes_max=1)
    receipt = erase(runtime, "alice")
    assert receipt.counts["tasks_running"] == 1
    runtime.scheduler.dispatcher.run(batch)
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    nothing_is_left(runtime)


def nothing_is_left(runtime: Runtime) -> None:
    assert runtime.store.find(ItemFilter(cube_ids=("alice",))).total == 0
    assert runtime.store.web_logs(user_id="alice") == []
    assert runtime.store.pending_followups() == []
    assert {one.state for one in runtime.queue.statuses(user_id="alice")} <= {
        TaskState.CANCELLED,
        TaskState.COMPLETED,
    }
    assert runtime.queue.dead.list(user_id="alice") == []
    assert erase(runtime, "alice").traces == 0
    assert left(runtime, PART) == []


@pytest.mark.parametrize("how", ["returns", "fails", "discards", "chains"])
def test_an_erasure_beside_a_running_task(runtime: Runtime, how: str) -> None:
    """While a worker runs a handler, another runtime erases its user, waits for it and finds nothing,
    whatever the handler does then."""
    begun, go_on = threading.Event(), threading.Event()

    def handler(messages: list[ScheduleMessageItem]) -> None:
        begun.set()
        assert go_on.wait(30)
        if how == "chains":
            runtime.scheduler.submit_messages(messages[0].model_copy(update={"label": "query"}))
        if how != "returns":
            raise (Discard if how == "discards" else ValueError)(f"cannot do {messages[0].content}")

    runtime.scheduler.register_handlers({"slow": handler})
    say(runtime, "alice", SECRET)
    runtime.queue.cancel([one.key for one in runtime.queue.statuses(user_id="alice")])
    runtime.scheduler.start()
    runtime.scheduler.submit_messages(
        ScheduleMessageItem(user_id="alice", mem_cube_id="alice", label="slow", content=SECRET)
    )
    assert begun.wait(30)
    with build(runtime.settings, start=False) as other:
        threading.Timer(0.2, go_on.set).start()
        receipt = erase(other, "alice", wait_s=30)
    assert (receipt.counts["tasks_running"], receipt.traces) == (0, 0)
    run_until_idle(runtime.scheduler)
    nothing_is_left(runtime)


def test_who_comes_back_is_a_user_again(runtime: Runtime) -> None:
    """What is said and asked after the erasure is stored and worked on like anybody's."""
    say(runtime, "alice", SECRET)
    erase(runtime, "alice")
    say(runtime, "alice", "I live in Lyon.")
    ask(runtime, "alice", "alice", "Where do I live?")
    runtime.scheduler.start()
    run_until_idle(runtime.scheduler)
    states = {one.state for one in runtime.queue.statuses(user_id="alice")}
    assert states == {TaskState.COMPLETED}
    assert runtime.store.find(ItemFilter(cube_ids=("alice",))).total >= 2
    assert len(runtime.store.working("alice").entries) >= 1


def test_logs_for_a_broker_that_is_away_are_never_published(tmp_path: Path) -> None:
    """The store is the spool: what was erased while the broker was away does not reach it later."""
    published: list[str] = []
    settings = Settings(home=tmp_path / "data", models={"embedder": "none"})
    with build(settings, start=False) as runtime:
        broker = Broker(host="127.0.0.1", port=1)
        sink = RabbitMqSink(broker, runtime.store, cursor=tmp_path / "cursor", clock=runtime.clock)
        sink._publish = lambda number, entry: published.append(entry.model_dump_json())  # type: ignore[method-assign]
        for user in ("alice", "bob"):
            ask(runtime, user, user, f"{SECRET} says {user}")
        runtime.scheduler.start()
        run_until_idle(runtime.scheduler)
        assert any(PART in log.model_dump_json() for _, log in runtime.store.web_logs(user_id="alice"))
        erase(runtime, "alice")
        sink._publish_after(0)
    assert published and not any("says alice" in text for text in published)
    assert any("says bob" in text for text in published)


def test_erasing_again_finds_nothing(runtime: Runtime) -> None:
    """The second receipt counts nothing, and one for somebody unknown neither."""
    say(runtime, "alice", SECRET)
    erase(runtime, "alice")
    for user in ("alice", "nobody"):
        counts = erase(runtime, user).counts
        assert {name: count for name, count in counts.items() if count} == {}


def test_users_with_like_names_are_kept_apart(runtime: Runtime) -> None:
    """Only the very user goes, not one whose name begins the same."""
    say(runtime, "al", "I keep bees."), say(runtime, "alice", SECRET)
    erase(runtime, "al")
    assert runtime.store.find(ItemFilter(user_ids=("alice",))).total == 1
    assert runtime.store.journal(cube_id="alice")[0].after is not None


def test_the_command_prints_the_receipt(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks first, and what it prints is the receipt."""
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    runner = CliRunner()
    assert runner.invoke(command_line, ["add", SECRET, "--user", "alice"]).exit_code == 0
    assert runner.invoke(command_line, ["erase", "alice"], input="n\n").exit_code == 1
    done = runner.invoke(command_line, ["erase", "alice", "--yes"])
    assert done.exit_code == 0, done.output
    receipt = json.loads(done.output)
    assert receipt["counts"]["items"] >= 1 and receipt["traces"] == 0 and receipt["not_reached"]
