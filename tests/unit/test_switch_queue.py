"""From the queue file to Redis and back on one store: by the documented switch, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres import schemas_of
from tests.services import drop_keys, redis_address, redis_is_there
from typer.testing import CliRunner

from memos.cli.main import app
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.store import ItemFilter
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import run_until_idle


@pytest.fixture(params=["sqlite", "postgres"])
def installation(
    request: pytest.FixtureRequest, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    if not redis_is_there():
        pytest.skip("there is no Redis")
    prefix = f"memos-test-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    monkeypatch.setenv("MEMSCHEDULER_REDIS_STREAM_KEY_PREFIX", prefix)
    monkeypatch.setenv("MEMOS_QUEUE__REDIS_URL", redis_address().url)
    if request.param == "sqlite":
        yield monkeypatch
    else:
        with schemas_of("postgres").lent() as address:
            monkeypatch.setenv("MEMOS_STORE__URL", address.url)
            monkeypatch.setenv("MEMOS_STORE__SCHEMA_NAME", address.schema)
            monkeypatch.setenv("MEMOS_STORE__ROLE", address.role)
            yield monkeypatch
    drop_keys(redis_address(), prefix)


@pytest.fixture(autouse=True)
def nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks go at once: the server of these tests does not fail."""
    monkeypatch.setattr("memos.mem_scheduler.queues.redis_streams.queue.FORGETS_S", 0.0)


def work(runtime: Runtime, text: str) -> None:
    runtime.chat.writer.write(text, user_id="u", cube_ids=["c"], read="later")
    run_until_idle(runtime.scheduler)
    assert any(text in one.memory for one in runtime.store.find(ItemFilter(cube_ids=("c",))).items)


def test_an_empty_queue_is_left_without_a_word(installation: pytest.MonkeyPatch) -> None:
    """There and back: one queue is noted while it runs, none afterwards, and marks are swept."""
    for number, redis in enumerate(("false", "true", "false")):
        installation.setenv("MOS_SCHEDULER_USE_REDIS_QUEUE", redis)
        with build(Settings.load(), start=True) as runtime:
            work(runtime, f"My boat number {number} is called Petrel.")
            assert [one.id for one in runtime.store.queues()] == [runtime.queue.identity.id]
            runtime.scheduler.keep_house()
            assert runtime.store.marks(limit=9) == []
    with build(Settings.load(), start=False) as runtime:
        assert runtime.store.queues() == []


def test_a_queue_with_work_left_is_told_of(installation: pytest.MonkeyPatch) -> None:
    """Marks stay, doctor says why, and the operator may retire the old queue, not the one in use."""
    with build(Settings.load(), start=True) as runtime:
        work(runtime, "My boat is called Petrel.")
        runtime.queue.submit(
            [ScheduleMessageItem(user_id="u", mem_cube_id="c", label="nobody-s", content="x")]
        )
        old = runtime.queue.identity
    installation.setenv("MOS_SCHEDULER_USE_REDIS_QUEUE", "true")
    with build(Settings.load(), start=True) as runtime:
        work(runtime, "My car is red.")
        runtime.scheduler.keep_house()
        assert runtime.store.marks(limit=9) != []
        runtime.queue.submit(
            [ScheduleMessageItem(user_id="u", mem_cube_id="c", label="nobody-s", content="x")]
        )
        own = runtime.queue.identity
    said = CliRunner().invoke(app, ["doctor"])
    assert said.exit_code == 0 and old.id in said.output.replace("\n", "")
    listed = CliRunner().invoke(app, ["queue", "list"])
    assert old.id in listed.output and own.id in listed.output
    assert CliRunner().invoke(app, ["queue", "retire", own.id]).exit_code != 0
    assert CliRunner().invoke(app, ["queue", "retire", "none"]).exit_code != 0
    assert CliRunner().invoke(app, ["queue", "retire", old.id]).exit_code == 0
    with build(Settings.load(), start=False) as runtime:
        assert [one.id for one in runtime.store.queues()] == [own.id]
        runtime.scheduler.keep_house()
        assert runtime.store.marks(limit=9) == []
