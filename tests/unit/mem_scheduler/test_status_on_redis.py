"""The documented status tracker on a real Redis: shared by processes, atomic, bounded."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import redis
import tests.services
from tests.unit.mem_scheduler.parts import USER, Parts, message

from memos.errors import QueueUnavailable
from memos.mem_scheduler import status_entries
from memos.mem_scheduler.status_entries import KEPT_S
from memos.mem_scheduler.utils.status_tracker import TaskStatusTracker

pytestmark = pytest.mark.skipif(not tests.services.redis_is_there(), reason="no Redis answers on loopback")


@pytest.fixture
def prefix() -> Iterator[str]:
    made = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    yield made
    tests.services.drop_keys(tests.services.redis_address(), made)


@pytest.fixture(params=[True, False], ids=["decoding", "bytes"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(tests.services.redis_address().url, decode_responses=request.param)
    yield made
    made.close()


@pytest.fixture
def tracker(client: redis.Redis, prefix: str) -> TaskStatusTracker:
    return TaskStatusTracker(client, prefix=prefix)


STRANGE = ["a:b", "a/b%2F", "🙂 ü", "{tag}", "*", "line\nbreak", "\\", "'\"", " "]


def test_the_documented_life_of_an_item(tracker: TaskStatusTracker, client: redis.Redis, prefix: str) -> None:
    """Fields, values and shapes are those of the document, also for another process's tracker."""
    tracker.task_submitted("x", "u", "import", "cube", business_task_id="T")
    tracker.task_submitted("y", "u", "import", "other cube", business_task_id="T")
    tracker.task_submitted("z", "u", "import", "cube")
    other = TaskStatusTracker(client, prefix=prefix)
    waiting = other.get_task_status("x", "u")
    assert waiting is not None
    assert set(waiting) == {"status", "task_type", "mem_cube_id", "submitted_at", "business_task_id"}
    other.task_started("x", "u")
    other.task_completed("x", "u")
    other.task_failed("y", "u", "disk “full”")
    done = tracker.get_task_status("x", "u")
    assert done is not None
    assert done["status"] == "completed"
    assert done["submitted_at"] <= done["started_at"] <= done["completed_at"]
    assert tracker.get_task_status_by_business_id("T", "u") == {
        "status": "failed",
        "business_task_id": "T",
        "item_count": 2,
        "item_statuses": {"x": "completed", "y": "failed"},
        "errors": ["disk “full”"],
    }
    assert set(tracker.get_all_tasks_for_user("u")) == {"x", "y", "z"}
    assert tracker.get_all_tasks_global()["u"]["z"]["status"] == "waiting"
    tracker.task_completed("never submitted", "u")
    assert tracker.get_task_status("never submitted", "u") is None
    assert tracker.get_task_status("x", "somebody else") is None
    assert tracker.get_task_status_by_business_id("unknown", "u") is None


def test_ids_of_any_characters_are_kept_apart(tracker: TaskStatusTracker) -> None:
    """No id is cut, joined with another or taken for a pattern."""
    for user in STRANGE:
        for item in STRANGE:
            tracker.task_submitted(item, user, "t", item, business_task_id=user)
    everybody = tracker.get_all_tasks_global()
    assert set(everybody) == set(STRANGE)
    for user in STRANGE:
        assert set(everybody[user]) == set(STRANGE)
        assert tracker.get_task_status_by_business_id(user, user)["item_count"] == len(STRANGE)  # type: ignore[index]


def test_writers_of_many_threads_lose_nothing(tracker: TaskStatusTracker) -> None:
    """Eight threads write to one lane, and to one item: every field of every write is there."""
    tracker.task_submitted("shared", "u", "t", "c")

    def work(number: int) -> None:
        for step in range(25):
            item = f"{number}-{step}"
            tracker.task_submitted(item, "u", "t", "c", business_task_id=f"T{step % 2}")
            tracker.task_started(item, "u")
            (tracker.task_started, tracker.task_completed)[number % 2]("shared", "u")
            tracker.task_failed(item, "u", item)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    every = tracker.get_all_tasks_for_user("u")
    shared = every.pop("shared")
    assert {"submitted_at", "started_at", "completed_at"} <= set(shared)
    assert len(every) == 200
    assert all(
        {"started_at", "failed_at"} <= set(one) and one["error"] == item for item, one in every.items()
    )
    counts = [tracker.get_task_status_by_business_id(task, "u")["item_count"] for task in ("T0", "T1")]  # type: ignore[index]
    assert counts == [104, 96]


PROGRAM = """
import sys, redis
from memos.mem_scheduler.utils.status_tracker import TaskStatusTracker
url, prefix, number = sys.argv[1:]
tracker = TaskStatusTracker(redis.Redis.from_url(url), prefix=prefix)
for step in range(50):
    tracker.task_submitted(f"{number}-{step}", "u", "t", "c", business_task_id="T")
    tracker.task_completed(f"{number}-{step}", "u")
    tracker.task_failed("shared", "u", number) if number == "0" else tracker.task_started("shared", "u")
"""


def test_writers_of_several_processes_lose_nothing(tracker: TaskStatusTracker, prefix: str) -> None:
    """Three processes on one lane at once."""
    tracker.task_submitted("shared", "u", "t", "c", business_task_id="T")
    url = tests.services.redis_address().url
    writers = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, url, prefix, str(number)]) for number in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    whole = tracker.get_task_status_by_business_id("T", "u")
    assert whole is not None
    assert (whole["item_count"], whole["errors"]) == (151, ["0"])
    shared = tracker.get_task_status("shared", "u")
    assert shared is not None
    assert {"failed_at", "started_at"} <= set(shared)


def test_everything_has_an_end(client: redis.Redis, prefix: str) -> None:
    """Each key expires after 7 days without a write, and old items leave while their user goes on."""
    at = [datetime.now(UTC)]
    tracker = TaskStatusTracker(client, prefix=prefix, now=lambda: at[0])
    tracker.task_submitted("old", "u", "t", "c", business_task_id="T")
    tracker.task_submitted("lonely", "v", "t", "c")
    for key in client.scan_iter(f"{prefix}:*"):
        assert 0 < client.ttl(key) <= KEPT_S
    at[0] += timedelta(days=5)
    tracker.task_submitted("newer", "u", "t", "d", business_task_id="T")
    at[0] += timedelta(days=3)
    tracker.task_submitted("newest", "u", "t", "c")
    assert set(tracker.get_all_tasks_for_user("u")) == {"newer", "newest"}
    assert tracker.get_task_status_by_business_id("T", "u")["item_count"] == 1  # type: ignore[index]
    assert set(tracker.get_all_tasks_global()) == {"u"}


def test_a_user_has_a_bound(client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest items of a user leave beyond it, with all that points to them."""
    monkeypatch.setattr(status_entries, "ENTRIES_MAX", 5)
    tracker = TaskStatusTracker(client, prefix=prefix)
    for number in range(12):
        tracker.task_submitted(f"{number}", "u", "t", f"c{number % 2}", business_task_id="T")
    assert set(tracker.get_all_tasks_for_user("u")) == {"7", "8", "9", "10", "11"}
    assert tracker.get_task_status_by_business_id("T", "u")["item_count"] == 5  # type: ignore[index]
    assert sum(client.hlen(key) for key in client.scan_iter(f"{prefix}:tasks:*")) == 5


def test_an_item_that_is_submitted_again_starts_anew(tracker: TaskStatusTracker) -> None:
    """In another cube and task too; nothing of its first life is left."""
    tracker.task_submitted("x", "u", "t", "c", business_task_id="T")
    tracker.task_failed("x", "u", "broken")
    tracker.task_submitted("x", "u", "t", "d", business_task_id="S")
    again = tracker.get_task_status("x", "u")
    assert again is not None
    assert (again["status"], again["mem_cube_id"], "error" in again) == ("waiting", "d", False)
    assert tracker.get_task_status_by_business_id("T", "u") is None


def test_a_server_that_is_away_is_said_so() -> None:
    """QueueUnavailable, not the client's own error and not silence."""
    tracker = TaskStatusTracker(redis.Redis(port=1, socket_connect_timeout=1))
    with pytest.raises(QueueUnavailable):
        tracker.task_submitted("x", "u", "t", "c")
    with pytest.raises(QueueUnavailable):
        tracker.get_task_status("x", "u")


def test_scripts_that_the_server_forgot_are_sent_again(tracker: TaskStatusTracker) -> None:
    """The script's digest is unknown to a restarted server: the call goes through all the same."""
    tracker.task_submitted("x", "u", "t", "c")
    tracker._own._write.sha = "0" * 40  # type: ignore[attr-defined]
    tracker.task_completed("x", "u")
    assert tracker.get_task_status("x", "u")["status"] == "completed"  # type: ignore[index]


def test_the_queue_is_right_where_both_know_an_item(still: Parts, client: redis.Redis, prefix: str) -> None:
    """What programs write on Redis stands beside the queue's own statuses and never replaces them."""
    tracker = still.scheduler.status_tracker
    tracker.share(client, prefix=prefix)
    still.scheduler.submit_messages(message("nobody", item_id="x"))
    tracker.task_submitted("x", USER, "t", "c")
    tracker.task_submitted("own", USER, "t", "c")
    tracker.task_completed("x", USER)
    assert tracker.get_task_status("x", USER)["status"] == "waiting"  # type: ignore[index]
    assert set(tracker.get_all_tasks_for_user(USER)) == {"x", "own"}
