"""Stores on the private server with pgvector, each in a schema of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from tests.postgres import BOUNDS, Schemas, schemas_of

from memos.memory.postgres import PoolBounds, PostgresAddress, PostgresStore
from memos.testing import ManualClock


@pytest.fixture
def schemas() -> Schemas:
    return schemas_of("pgvector")


@pytest.fixture
def address(schemas: Schemas) -> Iterator[PostgresAddress]:
    with schemas.lent() as lent:
        yield lent


@pytest.fixture
def opened(address: PostgresAddress) -> Iterator[Callable[..., PostgresStore]]:
    """Opens stores on one schema, each another object, as another process would have."""
    with ExitStack() as stack:

        def open_one(**bounds: object) -> PostgresStore:
            chosen: PoolBounds = replace(BOUNDS, **bounds)  # type: ignore[arg-type]
            return stack.enter_context(PostgresStore(address, clock=ManualClock(), bounds=chosen))

        yield open_one
