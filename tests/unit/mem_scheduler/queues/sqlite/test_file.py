"""The queue's file: what it keeps, and how it fails."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.conformance.queue_model import message

from memos.errors import ConfigError, InvalidInput, LeaseLost, QueueError, QueueUnavailable
from memos.mem_scheduler.orchestrator import TaskPolicy
from memos.mem_scheduler.queues.base import Dead, Done, Retry
from memos.mem_scheduler.queues.sqlite import SqliteQueue, statuses
from memos.mem_scheduler.schemas.message_schemas import UserContext
from memos.mem_scheduler.schemas.task_schemas import TaskState
from memos.memory.store import Followup
from memos.testing import EPOCH_S, ManualClock

BOOT = "one start of the machine"


def opened(path: Path, clock: ManualClock | None = None, **options: object) -> SqliteQueue:
    return SqliteQueue(path, clock=clock or ManualClock(), **{"boot": BOOT, **options})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "queue.db"


@pytest.mark.parametrize(
    "bad",
    [
        {"messages_max": 0},
        {"lane_messages_max": -1},
        {"payload_bytes_max": 0},
        {"dead_letters_max": 0},
        {"status_entries_max": 0},
        {"weights": {"a": 0.0}},
        {"weights": {"a": float("nan")}},
    ],
)
def test_a_bound_that_cannot_work_is_refused(path: Path, bad: dict) -> None:
    """ConfigError names the setting, and no file is made."""
    with pytest.raises(ConfigError, match=next(iter(bad)).removesuffix("s")):
        opened(path, **bad)
    assert not path.exists()


def test_reopening_keeps_everything(path: Path) -> None:
    """Waiting, delayed, blocked, leased, dead and settled messages, tokens and policies stand in the file."""
    clock = ManualClock()
    with opened(path, clock) as queue:
        queue.policies.put("custom", TaskPolicy(concurrency=2, max_attempts=7))
        (done,) = queue.submit([message(user="done", content="secret of the done")])
        queue.finish(queue.claim({"query"}, lanes_max=1, timeout_s=0)[0], [Done()])
        (dead,) = queue.submit([message(user="dead", content="kept")])
        queue.finish(queue.claim({"query"}, lanes_max=1, timeout_s=0)[0], [Dead("broken")])
        blocked, behind = queue.submit([message(user="blocked")] * 2)
        (batch,) = queue.claim({"query"}, lanes_max=1, batch_max=1, timeout_s=0)
        queue.finish(batch, [Retry("down", 10.0)])
        (held_key,) = queue.submit([message("custom")])
        (held,) = queue.claim({"custom"}, lanes_max=1, timeout_s=0)
        (late,) = queue.submit([message(user="late")], delay_s=5.0)
        waiting = queue.submit([message(user="waiting")], token="call")
        before = (queue.depth(), queue.statuses(), queue.dead.list())
    with opened(path, clock) as queue:
        assert (queue.depth(), queue.statuses(), queue.dead.list()) == before
        assert queue.policies.get("custom") == TaskPolicy(concurrency=2, max_attempts=7)
        assert queue.policies.version == 1
        assert queue.submit([message(user="waiting")], token="call") == waiting
        assert queue.dead.show(dead).message.content == "kept"
        assert queue.live([done, dead, blocked, behind, late, held_key, *waiting]) == {
            dead, blocked, behind, late, held_key, *waiting
        }  # fmt: skip
        queue.finish(held, [Done()])
        clock.advance(5.0)
        taken = queue.claim({"query"}, lanes_max=9, timeout_s=0)
        assert sorted(batch.lane.user_id for batch in taken) == ["late", "waiting"]
        clock.advance(5.0)
        (batch,) = queue.claim({"query"}, lanes_max=9, batch_max=1, timeout_s=0)
        assert [(d.key, d.attempts) for d in batch.deliveries] == [(blocked, 1)]


def test_all_fields_of_a_message_come_back(path: Path) -> None:
    """Also those that have no column, and texts in any script."""
    sent = message(task="T", content="Äöü 漢字 🙂 \" ' ; -- \\")
    sent.info = {"a": [1, 2.5, None, {"b": True}], "ключ": "значение"}
    sent.chat_history = [{"role": "user", "content": "x"}, "y"]
    sent.user_context = UserContext(user_id="u", readable_cube_ids=["c"])
    sent.api_path, sent.session_id, sent.user_name, sent.trace_id = "/p", "s", "n", "t"
    with opened(path) as queue:
        (key,) = queue.submit([sent])
    with opened(path) as queue:
        got = queue.get([key])[0].message
    ours = {"redis_message_id", "stream_key"}
    assert got.model_dump(exclude=ours) == sent.model_dump(exclude=ours)
    assert type(got.user_context) is UserContext


def test_a_settled_message_leaves_its_text_nowhere(path: Path) -> None:
    """Neither the row nor freed pages of the file keep the content of what is done."""
    with opened(path) as queue:
        queue.submit([message(content="a secret that must not stay")])
        queue.finish(queue.claim({"query"}, lanes_max=1, timeout_s=0)[0], [Done()])
    assert b"must not stay" not in path.read_bytes()


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    """0600 in a folder of 0700."""
    opened(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_after_a_restart_of_the_machine_leases_are_void_and_delays_go_on(path: Path) -> None:
    """Nobody can hold a lease any more; what was to wait an hour waits the rest of it, by the wall clock."""
    before = ManualClock()
    before.advance(5_000.0)
    with opened(path, before, boot="first") as queue:
        (held,) = queue.submit([message(user="held")])
        (stale,) = queue.claim({"query"}, lanes_max=1, timeout_s=0)
        (late,) = queue.submit([message(user="late")], delay_s=3_600.0)
    after = ManualClock(EPOCH_S + 5_000.0 + 600.0)  # ten minutes later; monotonic time begins anew
    with opened(path, after, boot="second") as queue:
        (batch,) = queue.claim({"query"}, lanes_max=9, timeout_s=0)
        assert [(d.key, d.recoveries) for d in batch.deliveries] == [(held, 1)]
        with pytest.raises(LeaseLost):
            queue.finish(stale, [Done()])
        queue.finish(batch, [Done()])
        after.advance(2_999.0)
        assert queue.claim({"query"}, lanes_max=9, timeout_s=0) == []
        after.advance(1.0)
        (batch,) = queue.claim({"query"}, lanes_max=9, timeout_s=0)
        assert [d.key for d in batch.deliveries] == [late]


def test_a_file_of_a_newer_version_is_refused_untouched(path: Path) -> None:
    """ConfigError names the file and the way out, and not a byte is changed."""
    opened(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"queue\.db.*newer version.*pip install -U"):
        opened(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_untouched(tmp_path: Path) -> None:
    """A memory file given for the queue is an error, not a mixture."""
    path = tmp_path / "memory.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"memory\.db.*another database"):
        opened(path)
    assert path.read_bytes() == before


def test_a_damaged_file_is_a_typed_error(tmp_path: Path) -> None:
    """QueueError names the file and says what can be done."""
    path = tmp_path / "queue.db"
    path.write_bytes(b"this is not a database at all" * 300)
    with pytest.raises(QueueError, match=r"queue\.db is not a healthy database.*move the file away"):
        opened(path)


def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    """QueueUnavailable names the path and the setting."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(QueueUnavailable, match=r"queue\.db cannot be written.*MEMOS_HOME"):
        opened(tmp_path / "file" / "queue.db")


def test_a_full_disk_refuses_the_call_and_keeps_the_rest(path: Path) -> None:
    """Nothing of the refused call is there, what was queued before is, and work can still be finished."""
    with opened(path) as queue:
        kept = queue.submit([message(content="x" * 1_000)] * 20)
        pages = queue._file._writer.execute("PRAGMA page_count").fetchone()[0]
        queue._file._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(QueueUnavailable, match=r"queue\.db is full.*free some space"):
            queue.submit([message(content="y" * 1_000)] * 100)
        assert queue.depth().remaining == 20
        done = []
        while batches := queue.claim({"query"}, lanes_max=1, timeout_s=0):
            queue.finish(batches[0], [Done()] * len(batches[0].deliveries))
            done += [delivery.key for delivery in batches[0].deliveries]
        assert done == kept
        (again,) = queue.submit([message()])  # what was finished made room
        assert queue.live([again]) == {again}


def test_a_locked_file_is_a_typed_error(path: Path) -> None:
    """After busy_timeout_s QueueUnavailable; nothing was done, and the same call works later."""
    with opened(path, busy_timeout_s=0.05) as queue, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueUnavailable, match=r"queue\.db is locked.*try again"):
            queue.submit([message()])
        assert queue.depth().remaining == 0  # reading needs no lock
        other.execute("ROLLBACK")
        queue.submit([message()])
        assert queue.depth().remaining == 1


def test_text_that_is_no_text_is_refused(path: Path) -> None:
    """A lone surrogate is InvalidInput, and none of the call is queued."""
    with opened(path) as queue:
        with pytest.raises(InvalidInput, match="surrogate"):
            queue.submit([message(), message(content="\ud800")])
        assert queue.depth().remaining == 0


def test_only_status_rows_remain_when_all_is_done(path: Path) -> None:
    """Lanes, classes, flows and leases go with their work; status rows and samples are bounded."""
    with opened(path, status_entries_max=50) as queue:
        for round_ in range(100):
            queue.submit([message(user=f"{round_}-{n}") for n in range(5)])
            for batch in queue.claim({"query"}, lanes_max=9, timeout_s=0):
                queue.finish(batch, [Done()] * len(batch.deliveries))
        rows = {
            table: queue._file._writer.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in (
                "pack", "ended", "ended_pack", "call", "name",
                "lane", "class", "flow", "lease", "asked", "sample", "served",
            )
        }  # fmt: skip
        assert rows == {
            "pack": 0, "ended": 50, "ended_pack": 0, "call": 10, "name": 50,
            "lane": 0, "class": 0, "flow": 0, "lease": 0, "asked": 0, "sample": 64, "served": 1,
        }  # fmt: skip
        assert len(queue.statuses()) == 50
        assert {row.state for row in queue.statuses()} == {TaskState.COMPLETED}


def test_flows_of_users_who_left_go(path: Path) -> None:
    """While a class is never at rest, users without work do not pile up in its order."""
    clock = ManualClock()
    with opened(path, clock) as queue:
        queue.submit([message(user="steady")] * 2_000)
        queue.policies.put("query", TaskPolicy(
            ordered=True, concurrency=1, level=queue.policies.get("query").level, batch_size_max=1
        ))  # fmt: skip
        for n in range(300):
            queue.submit([message(user=f"{n}")])
            for batch in queue.claim({"query"}, lanes_max=2, timeout_s=0):
                queue.finish(batch, [Done()])
        assert queue._file._writer.execute("SELECT count(*) FROM flow").fetchone()[0] < 100


@pytest.mark.parametrize(
    "wanted", [{"item_id": "7"}, {"task_id": "T7"}, {"user_id": "u7"}, {"item_id": "7", "user_id": "u7"}]
)
def test_status_queries_look_at_no_other_rows(path: Path, wanted: dict) -> None:
    """By item, task or user, among many sections of the file, a status is found by an index."""
    with opened(path) as queue:
        (first,) = queue.submit([message(user="u7", item="7", task="T7")])
        for section in range(1, 4):  # as if very many were submitted in between
            with closing(sqlite3.connect(path)) as other:
                other.execute("UPDATE counter SET number = ?", (section << 20,))
                other.commit()
            keys = queue.submit([message(user=f"u{n}", item=f"{n}", task=f"T{n}") for n in range(50)])
        steps: list[int] = []
        with queue._file.read() as connection:
            connection.set_progress_handler(lambda: steps.append(1), 10)
            found = statuses.statuses(
                connection, wall=EPOCH_S, limit=None, **{"user_id": None, "item_id": None, "task_id": None, **wanted}
            )  # fmt: skip
            connection.set_progress_handler(None, 0)
    assert len(found) == 4
    assert (found[0].key, found[-1].key) == (keys[7], first)
    assert len(steps) < 60  # 151 rows would be many more


def test_a_policy_said_again_prolongs_no_lease(path: Path) -> None:
    """Programs that write the same lease length at every start do not keep a dead worker's batch; a length
    that differs begins the lease anew."""
    clock = ManualClock()
    policy = TaskPolicy(min_idle_ms=10_000)
    with opened(path, clock) as queue:
        queue.policies.put("custom", policy)
        queue.submit([message("custom")])
        queue.claim({"custom"}, lanes_max=1, timeout_s=0)
    for _ in range(3):
        clock.advance(3.0)
        with opened(path, clock) as queue:
            queue.policies.put("custom", policy)
            assert queue.claim({"custom"}, lanes_max=1, timeout_s=0) == []
    clock.advance(1.0)
    with opened(path, clock) as queue:
        assert queue.policies.version == 1
        assert len(queue.claim({"custom"}, lanes_max=1, timeout_s=0)) == 1
        clock.advance(9.0)
        queue.policies.put("custom", TaskPolicy(min_idle_ms=20_000))
        clock.advance(19.0)
        assert queue.claim({"custom"}, lanes_max=1, timeout_s=0) == []
        clock.advance(1.0)
        assert len(queue.claim({"custom"}, lanes_max=1, timeout_s=0)) == 1


def test_the_file_does_not_grow_run_after_run(path: Path) -> None:
    """Once the statuses are at their bound, the same work needs no more pages than before."""
    with opened(path, status_entries_max=400) as queue:
        pages = []
        for _ in range(8):
            for _ in range(4):
                queue.submit([message(user=f"{n % 10}", item=f"{n}") for n in range(100)])
            while batches := queue.claim({"query"}, lanes_max=9, timeout_s=0):
                for batch in batches:
                    queue.finish(batch, [Done()] * len(batch.deliveries))
            pages.append(queue._file._writer.execute("PRAGMA page_count").fetchone()[0])
        assert max(pages[4:]) <= max(pages[:4])
        assert len(queue.statuses()) <= 404
        assert queue._file._writer.execute("SELECT count(*) FROM call").fetchone()[0] <= 12


def test_messages_of_a_large_call_are_found_by_name(path: Path) -> None:
    """By key, item and task, while they wait and when they are settled, whichever lane they went to."""
    with opened(path) as queue:
        sent = [message(user=f"{n % 7}", item=f"i{n}", task=f"t{n % 50}") for n in range(300)]
        keys = queue.submit(sent)
        for settled in (False, True):
            if settled:
                while batches := queue.claim({"query"}, lanes_max=9, timeout_s=0):
                    for batch in batches:
                        queue.finish(batch, [Done()] * len(batch.deliveries))
            assert [row.key for row in queue.statuses()] == keys[::-1]
            assert [row.key for row in queue.statuses(limit=11)] == keys[:-12:-1]
            assert [row.key for row in queue.statuses(user_id="3", limit=2)] == [keys[297], keys[290]]
            for n in (0, 49, 131, 299):
                assert [row.key for row in queue.statuses(item_id=f"i{n}")] == [keys[n]]
            found = [row.key for row in queue.statuses(task_id="t7")]
            assert found == [keys[n] for n in range(257, 6, -50)]
            assert queue.live(keys) == (set() if settled else set(keys))


def test_one_of_many_goes_its_own_way(path: Path) -> None:
    """A message cancelled amid the others of its submit leaves them in order, and its text leaves the file."""
    with opened(path) as queue:
        keys = queue.submit([message(content=f"text number {n}.") for n in range(20)])
        assert queue.cancel([keys[7]]) == [keys[7]]
        assert queue.is_cancelled(keys[7]) and not queue.is_cancelled(keys[8])
        ran = []
        while batches := queue.claim({"query"}, lanes_max=1, batch_max=3, timeout_s=0):
            ran += [(one.key, one.message.content) for one in batches[0].deliveries]
            queue.finish(batches[0], [Done()] * len(batches[0].deliveries))
        assert ran == [(key, f"text number {n}.") for n, key in enumerate(keys) if n != 7]
        assert queue.is_cancelled(keys[7])
    assert b"text number" not in path.read_bytes()


def test_a_followup_whose_key_was_settled_among_others_runs_again(path: Path) -> None:
    """The old status of that key gives way; those that were settled with it stay."""
    with opened(path) as queue:
        children = [Followup(f"CHILD{n}".ljust(26, "0"), "P" * 26, message(item=f"{n}")) for n in range(3)]
        queue.submit([], followups=children)
        while batches := queue.claim({"query"}, lanes_max=1, timeout_s=0):
            queue.finish(batches[0], [Done()] * len(batches[0].deliveries))
        queue.submit([], followups=[children[1]])
        assert {(row.item_id, row.state) for row in queue.statuses()} == {
            ("0", TaskState.COMPLETED), ("1", TaskState.WAITING), ("2", TaskState.COMPLETED)
        }  # fmt: skip
        assert [row.state for row in queue.statuses(item_id="1")] == [TaskState.WAITING]
