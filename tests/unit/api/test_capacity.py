"""What capacity pushes out of recall is told, never silent."""

from __future__ import annotations

from pathlib import Path

from memos.api.handlers import handlers_of
from memos.api.product_models import APIADDRequest
from memos.memory.item import ItemStatus
from memos.memory.store import ItemFilter
from memos.runtime import build
from memos.settings import MemorySettings, ModelSettings, Settings


def test_what_capacity_archives_is_logged_with_its_reason(tmp_path: Path) -> None:
    """Over capacity the oldest memories are archived rows, and one `archiveMemory` log names each of them."""
    settings = Settings(
        home=tmp_path, models=ModelSettings(embedder="none"), memory=MemorySettings(long_term_capacity=3)
    )
    with build(settings, start=False) as runtime:
        for number in range(5):
            handlers_of(runtime).add.handle_add_memories(
                APIADDRequest(
                    user_id="u",
                    writable_cube_ids=["c"],
                    messages=f"The bus number {number} came late",
                    async_mode="sync",
                )
            )
        archived = runtime.store.find(ItemFilter(cube_ids=("c",), statuses=(ItemStatus.ARCHIVED,))).items
        logs = [log for _, log in runtime.store.web_logs(cube_id="c", label="archiveMemory")]
        buffered = [
            log for log in runtime.scheduler.get_web_log_messages() if log["label"] == "archiveMemory"
        ]
    assert {item.memory for item in archived} == {"The bus number 0 came late", "The bus number 1 came late"}
    told = [row for log in logs for row in log.memcube_log_content or []]
    assert {(row["ref_id"], row["reason"]) for row in told} == {(item.id, "capacity") for item in archived}
    assert {log.memory_delta for log in logs} == {-1}
    assert {log.memory_len for log in logs} == {3}
    assert len(buffered) == len(logs) == 2
