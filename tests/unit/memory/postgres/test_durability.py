"""What a commit that returned is worth when the server is killed, by what `synchronous_commit` says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from benchmarks.postgres_server import PrivatePostgres
from tests.postgres import BOUNDS, required

from memos.memory.item import ItemStatus
from memos.memory.postgres import PostgresAddress, PostgresStore
from memos.memory.store import ItemFilter
from memos.testing import ManualClock

from .items import add

COMMITS = 20


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    """One that writes its log of its own accord only every ten seconds."""
    try:
        made = PrivatePostgres(settings=("wal_writer_delay=10000", "full_page_writes=on"))
    except ImportError as error:
        if required():
            raise
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.mark.parametrize(("durability", "kept"), [("on", True), ("local", True), ("off", False)])
def test_commits_and_a_killed_server(server: PrivatePostgres, durability: str, kept: bool) -> None:
    """With `on` and `local` all that returned is there; with `off` the last ones are gone, whole, and the store is
    sound."""
    address = PostgresAddress(server.url, schema=f"of_{durability}", partitions=2)
    bounds = replace(BOUNDS, durability=durability)
    store = PostgresStore(address, clock=ManualClock(), bounds=bounds)
    store.apply([add("first")])
    server.kill()
    server.start()  # whose start makes everything before durable
    found = _ids(store)
    assert not kept or found == {"first"}
    for number in range(COMMITS):
        store.apply([add(f"n{number}")])
    server.kill()
    server.start()
    found = _ids(store) - found
    assert len(found) == COMMITS if kept else len(found) < COMMITS
    assert found == {f"n{number}" for number in range(len(found))}  # from the oldest on, without a gap
    assert store.verify() == []
    store.close()


def _ids(store: PostgresStore) -> set[str]:
    return {one.id for one in store.find(ItemFilter(statuses=tuple(ItemStatus)), limit=100).items}
