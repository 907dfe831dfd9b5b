"""The composition root: opening, sharing, draining and closing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from memos import runtime as root
from memos.errors import ConfigError, QueueFull, StoreUnavailable
from memos.mem_scheduler.queues.base import Done
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import build
from memos.settings import ModelSettings, Settings


def message(content: str, label: str = "count") -> ScheduleMessageItem:
    return ScheduleMessageItem(user_id="u", mem_cube_id="c", label=label, content=content)


def test_closing_runs_what_waits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that is closed right after a submit has run all of it: the queue goes with the process."""
    monkeypatch.setenv("MEMOS_QUEUE__BACKEND", "local")
    seen: list[str] = []
    with build(Settings.load()) as runtime:
        runtime.scheduler.register_handlers(
            {"count": lambda messages: seen.extend(m.content for m in messages)}
        )
        runtime.scheduler.submit_messages([message(str(n)) for n in range(500)])
    assert sorted(seen, key=int) == [str(n) for n in range(500)]


def test_what_waits_in_a_durable_queue_is_run_by_the_next_runtime() -> None:
    """Messages that a closed runtime left are run by the next one on the same home, in order, once."""
    with build(Settings.load(), start=False) as runtime:
        runtime.scheduler.submit_messages([message(str(n), label="query") for n in range(50)])
    seen: list[str] = []
    with build(Settings.load(), start=False) as runtime:
        assert runtime.scheduler.get_tasks_status()["remaining"] == 50
        runtime.scheduler.register_handlers(
            {"query": lambda messages: seen.extend(m.content for m in messages)}
        )
        runtime.scheduler.start()
        assert runtime.drain(20.0)
    assert seen == [str(n) for n in range(50)]


def test_the_process_runtime_finishes_what_waits_before_it_ends() -> None:
    """What a program submitted and did not wait for has run when its process's runtime is reset."""
    seen: list[str] = []
    scheduler = root.current().scheduler
    scheduler.register_handlers({"count": lambda messages: seen.extend(m.content for m in messages)})
    scheduler.submit_messages([message(str(n)) for n in range(50)])
    root.reset()
    assert sorted(seen, key=int) == [str(n) for n in range(50)]


def test_closing_does_not_wait_for_labels_nobody_serves() -> None:
    """A message without a handler does not hold up the end."""
    with build(Settings.load()) as runtime:
        runtime.scheduler.submit_messages([message("x", label="never_registered")])
        assert runtime.drain(5.0)
        assert runtime.scheduler.get_tasks_status()["remaining"] == 1


def test_current_is_one_runtime_for_all_threads() -> None:
    """Concurrent first calls build once, `reset` closes it, and the next call builds another."""
    seen: list[root.Runtime] = []
    threads = [threading.Thread(target=lambda: seen.append(root.current())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in seen}) == 1
    root.reset()
    try:
        assert root.current() is not seen[0]
        assert not seen[0].scheduler._running
    finally:
        root.reset()


def test_a_failed_build_leaves_nothing_open(tmp_path: Path) -> None:
    """When the home cannot be made the error names it, and a later build in a good place works."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StoreUnavailable, match="file"):
        build(Settings(home=blocked / "inside"))
    with build(Settings(home=tmp_path / "good")) as runtime:
        assert runtime.store.cubes() == []


def test_a_model_folder_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    """A configured folder without weights is an error, not a silent fall-back."""
    settings = Settings(home=tmp_path, models=ModelSettings(embedder_folder=tmp_path / "none"))
    with pytest.raises(ConfigError, match="EMBEDDER_FOLDER"):
        build(settings)


def test_without_an_embedder_recall_still_works(tmp_path: Path) -> None:
    """With the embedder switched off a memory is stored and found by its words."""
    from memos.api.handlers import handlers_of
    from memos.api.product_models import APIADDRequest
    from memos.retrieval.hybrid import RecallRequest

    settings = Settings(home=tmp_path, models=ModelSettings(embedder="none"))
    with build(settings, start=False) as runtime:
        handlers_of(runtime).add.handle_add_memories(
            APIADDRequest(
                user_id="u", writable_cube_ids=["c"], messages="The kettle is blue", async_mode="sync"
            )
        )
        recall = runtime.retriever.search(RecallRequest(query="which colour has the kettle", cube_ids=("c",)))
    assert [hit.item.memory for hit in recall.hits] == ["The kettle is blue"]
    assert recall.degraded


def test_two_runtimes_share_one_file(tmp_path: Path) -> None:
    """What one process-like runtime writes, another on the same file recalls at once, by vector too."""
    from memos.api.handlers import handlers_of
    from memos.api.product_models import APIADDRequest
    from memos.retrieval.hybrid import RecallRequest

    settings = Settings(home=tmp_path)
    request = RecallRequest(query="who looks after the dog", cube_ids=("c",))
    with build(settings, start=False) as one, build(settings, start=False) as other:
        assert other.retriever.search(request).hits == ()
        handlers_of(one).add.handle_add_memories(
            APIADDRequest(
                user_id="u", writable_cube_ids=["c"], messages="Elena feeds the puppy", async_mode="sync"
            )
        )
        assert [hit.item.memory for hit in other.retriever.search(request).hits] == ["Elena feeds the puppy"]


@pytest.mark.parametrize("backend", ["local", "sqlite"])
def test_shares_of_users_reach_the_queue(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap, the weights and the time of idempotency keys are those of the settings."""
    monkeypatch.setenv("MEMOS_QUEUE__BACKEND", backend)
    monkeypatch.setenv("MEMOS_QUEUE__USER_BATCHES_MAX", "1")
    monkeypatch.setenv("MEMOS_QUEUE__USER_WEIGHTS", '{"v": 3}')
    monkeypatch.setenv("MEMOS_QUEUE__IDEMPOTENCY_KEYS_MAX", "1")
    with build(Settings.load(), start=False) as runtime:
        queue = runtime.queue
        queue.submit([message("x", label=label) for label in ("query", "own")], idempotency_key="k")
        with pytest.raises(QueueFull, match="idempotency_keys_max"):
            queue.submit([message("x")], idempotency_key="other")
        (held,) = queue.claim({"query", "own"}, lanes_max=9, timeout_s=0)
        queue.finish(held, [Done()])
        heavy = [message("x").model_copy(update={"user_id": "v"}) for _ in range(60)]
        queue.submit([*heavy, *(message("x") for _ in range(60))])
        served = []
        for _ in range(40):
            (batch,) = queue.claim({"count"}, lanes_max=1, batch_max=1, timeout_s=0)
            served.append(batch.lane.user_id)
            queue.finish(batch, [Done()])
        assert 28 <= served.count("v") <= 32
