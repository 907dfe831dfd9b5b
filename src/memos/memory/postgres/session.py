"""One transaction as the tables see it: statements with named parameters on one connection."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

KEY_BYTES_MAX = 600  # of a name or term in an index; longer ones stand there as a digest


class Session:
    """Lives as long as the transaction. Not thread-safe, as the transaction is not."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.connection = connection
        self.vector_index_dim: int | None = None  # as this transaction sees it; see `vector_index`

    def rows(self, query: LiteralString, **values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.connection.execute(query, values).fetchall()

    def binary_rows(self, query: LiteralString, **values: Any) -> list[tuple[Any, ...]]:
        """All rows, sent in binary: for vectors."""
        return self.connection.execute(query, values, binary=True).fetchall()

    def row(self, query: LiteralString, **values: Any) -> tuple[Any, ...] | None:
        """The first row of a query."""
        return self.connection.execute(query, values).fetchone()

    def run(self, query: LiteralString, **values: Any) -> int:
        """Carry out a statement; how many rows it touched."""
        return self.connection.execute(query, values).rowcount

    def run_many(self, query: LiteralString, values: Sequence[dict[str, Any]]) -> None:
        """Carry out a statement for each of the values, in one go over the wire."""
        if values:
            with self.connection.cursor() as cursor:
                cursor.executemany(query, values)


def index_key(name: str) -> str:
    """`name`, or a digest of it when it is too long for an index."""
    if len(name) * 4 <= KEY_BYTES_MAX or len(name.encode()) <= KEY_BYTES_MAX:
        return name
    return f"\u2026{hashlib.blake2b(name.encode(), digest_size=24).hexdigest()}"
