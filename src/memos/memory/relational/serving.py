"""Which queues serve a store: a value of `meta` each, so that no queue sweeps marks that another one needs.

A message key that two queues hold (a followup that the second one found in the outbox) is delivered by both,
and takes effect once as long as its mark stands. So marks stay while more than one queue is noted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from memos.memory.store import ServingQueue

if TYPE_CHECKING:
    from memos.memory.relational.tables import MetaTable

PREFIX = "queue:"


def note(meta: MetaTable, queue: ServingQueue) -> None:
    """Put it down; what was noted of the same queue gives way."""
    meta.put(PREFIX + queue.id, json.dumps([queue.place, queue.token, queue.since]))


def noted(meta: MetaTable) -> list[ServingQueue]:
    """All of them, those that came first first."""
    found = meta.starting_with(PREFIX).items()
    queues = [ServingQueue(name.removeprefix(PREFIX), *json.loads(value)) for name, value in found]
    return sorted(queues, key=lambda one: (one.since, one.id))


def strike_out(meta: MetaTable, queue_id: str, *, token: str | None = None) -> bool:
    """Whether it was there, with that token if one is given."""
    if token is not None and all((one.id, one.token) != (queue_id, token) for one in noted(meta)):
        return False
    return meta.drop(PREFIX + queue_id)
