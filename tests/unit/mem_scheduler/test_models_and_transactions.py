"""No question to a model is asked while the store is held: others write and read meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.test_model_kills import STEPS, Step
from tests.unit.mem_scheduler.parts import Parts, assembled, message

from memos.memory.item import MemoryItem
from memos.memory.store import AddItems, ItemFilter
from memos.models.base import ChatMessage, Completion
from memos.testing import ScriptedLLM


@dataclass
class Meanwhile(ScriptedLLM):
    """While it is asked, a thread of its own writes to the cube and reads it back; `wrote` counts that."""

    step: Step
    parts: list[Parts] = field(default_factory=list)
    wrote: int = 0

    def __post_init__(self) -> None:
        super().__init__([*self.step.replies])

    def complete(self, messages: Sequence[ChatMessage], **wanted: Any) -> Completion:
        thread = threading.Thread(target=self._write)
        thread.start()
        thread.join(10.0)
        assert not thread.is_alive(), "the store is held while the model is asked"
        return super().complete(messages, **wanted)

    def _write(self) -> None:
        (parts,) = self.parts
        item = MemoryItem(f"meanwhile-{self.wrote}", "c", "u", "Somebody else said this.")
        parts.store.apply([AddItems(tuple(parts.services.indexer.index([item])))])
        assert parts.store.find(ItemFilter(ids=(item.id,))).total == 1
        self.wrote += 1


def asked(step: Step) -> Mapping[str, Any]:
    return {"user_id": "u", "mem_cube_id": "c", "content": step.content}


@pytest.mark.parametrize("name", ["rank", "preferences", "feedback", "summaries"])
def test_others_write_while_a_model_is_asked(tmp_path: Path, name: str) -> None:
    """For each label that asks: every question lets another writer through, and the work is done."""
    step = STEPS[name]
    llm = Meanwhile(step)
    with assembled(tmp_path, llm=llm) as parts:
        llm.parts.append(parts)
        if step.items:
            parts.store.apply([AddItems(tuple(parts.services.indexer.index(list(step.items))))])
        parts.scheduler.submit_messages(message(step.label, **asked(step)))
        parts.drain()
        assert llm.wrote == len(step.replies) == len(llm.calls)
        assert [status.state for status in parts.queue.statuses()] == ["completed"]
        assert parts.store.verify() == []
