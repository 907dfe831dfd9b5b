"""What a claim takes from the head of a lane whose messages stand in packs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.queue_model import message

from memos.mem_scheduler.queues.base import Done
from memos.mem_scheduler.queues.sqlite import SqliteQueue
from memos.mem_scheduler.queues.sqlite.packs import divide, load_packs
from memos.testing import ManualClock

BOTH = {"query", "answer"}


@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (1, 2), (3, 1)], ids=str)
def test_a_label_that_follows_takes_nothing_from_those_before_it(
    tmp_path: Path, sizes: tuple[int, int]
) -> None:
    """Several packs of a fast label before one of a label that may have one message at once: the batch has all
    of the fast label, and the rest follow whole and in order."""
    with SqliteQueue(tmp_path / "queue.db", clock=ManualClock()) as queue:
        for _ in range(3):  # a label's batch grows with each that was full and quick
            queue.submit([message()] * 4)
            while batches := queue.claim({"query"}, lanes_max=1, timeout_s=0):
                queue.finish(batches[0], [Done()] * len(batches[0].deliveries))
        sent = [key for size in sizes for key in queue.submit([message()] * size)]
        sent += queue.submit([message("answer")] * 2)
        batches = []
        while got := queue.claim(BOTH, lanes_max=1, timeout_s=0):
            batches.append([one.key for one in got[0].deliveries])
            queue.finish(got[0], [Done()] * len(got[0].deliveries))
        assert len(batches[0]) == sum(sizes)
        assert [key for batch in batches for key in batch] == sent
        assert queue.depth().remaining == 0


@pytest.mark.parametrize("at", [-1, 0, 3, 4])
def test_a_pack_is_only_divided_inside(tmp_path: Path, at: int) -> None:
    """A cut that leaves nothing on one side is refused before anything is written."""
    with SqliteQueue(tmp_path / "queue.db", clock=ManualClock()) as queue:
        queue.submit([message()] * 3)
        with queue._file.write(durable=False) as connection:
            (pack,) = load_packs(connection, "1", ())
            with pytest.raises(ValueError, match="3 messages"):
                divide(connection, pack, at)
            assert load_packs(connection, "1", ()) == [pack]
