"""`PostgresStore`: the memory store in a PostgreSQL database."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from memos import log
from memos.clock import Clock
from memos.memory.item import Capacities
from memos.memory.postgres.address import PoolBounds, PostgresAddress
from memos.memory.postgres.connection import PostgresDatabase
from memos.memory.relational.store import VECTOR_CACHE_BYTES_MAX, WEB_LOGS_MAX, RelationalStore

logger = log.get_logger(__name__)


class PostgresStore(RelationalStore):
    """Fulfils `memos.memory.store.MemoryStore` in one schema. Usable at once; close it, or use `with`.

    Raises what `PostgresDatabase` does when it opens.
    """

    def __init__(
        self,
        address: PostgresAddress,
        *,
        clock: Clock,
        capacities: Capacities | None = None,
        bounds: PoolBounds | None = None,
        auto_migrate: bool = True,
        vector_cache_bytes_max: int = VECTOR_CACHE_BYTES_MAX,
        web_logs_max: int = WEB_LOGS_MAX,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._server = PostgresDatabase(address, bounds or PoolBounds(), auto_migrate=auto_migrate)
        self._indexed = False
        super().__init__(
            self._server,
            clock=clock,
            capacities=capacities,
            vector_cache_bytes_max=vector_cache_bytes_max,
            web_logs_max=web_logs_max,
            random_bytes=random_bytes,
        )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._server.closed

    def bind_embedder(self, fingerprint: str, dim: int) -> None:
        """As the contract says; also makes the index of vectors, where pgvector is there for it."""
        super().bind_embedder(fingerprint, dim)
        self._bring_up_index()

    def drop_vectors(self, fingerprint: str, dim: int) -> None:
        """As the contract says; the index is made anew for the other model."""
        super().drop_vectors(fingerprint, dim)
        self._bring_up_index()

    def _bring_up_index(self) -> None:
        self._indexed = self._server.extension is not None and self._server.bring_up_index()
        if not self._indexed:
            logger.info("store.vectors_exact_only", store=self._server.name, why=self._why_exact())

    def _why_exact(self) -> str:
        if self._server.extension is None:
            return "the database has no pgvector 0.8 or newer"
        return "the index is not made yet: run `memos migrate` as the owner"

    def describe(self) -> dict[str, str]:
        """What doctor and health tell of the store."""
        health = self._server.health()
        exact_max = self._server.bounds.exact_max
        assert self._server.extension is not None or not self._indexed
        vectors = (
            f"pgvector {self._server.extension[0]}: HNSW with exact scores in cubes over {exact_max} memories"
            if self._indexed and self._server.extension
            else f"! every vector is compared, which is slow in large cubes ({self._why_exact()})"
        )
        durability = f"synchronous_commit {health['synchronous_commit']}, fsync {health['fsync']}"
        return {
            "backend": f"PostgreSQL {health['version']}",
            "place": self._server.name,
            "vectors": vectors,
            "durability": durability,
        }

    def backup(self, path: Path) -> int:
        """Copy the whole store, as it is at one moment, to a new SQLite file; returns its bytes."""
        from memos.memory.postgres.transfer import copy_to_file

        return copy_to_file(self._server, path)
