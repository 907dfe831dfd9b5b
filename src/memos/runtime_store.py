"""Which store stands behind the port: a part of the composition root with a file of its own.

An address in the settings means PostgreSQL, whose driver is loaded only then; otherwise it is a file.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from memos.clock import Clock
from memos.errors import ConfigError
from memos.memory.item import Capacities
from memos.settings import Settings

if TYPE_CHECKING:
    from memos.memory.postgres import PostgresAddress
    from memos.memory.store import MemoryStore


def build_store(settings: Settings, clock: Clock) -> MemoryStore:
    """The store that the settings name. Raises ConfigError, StoreError."""
    chosen = settings.store
    capacities = Capacities(
        long_term=settings.memory.long_term_capacity,
        user=settings.memory.user_capacity,
        preference=settings.memory.preference_capacity,
        working=settings.memory.working_capacity,
    )
    if chosen.url is not None:
        address = postgres_address(settings)
        from memos.memory.postgres import PoolBounds, PostgresStore

        return PostgresStore(
            address,
            clock=clock,
            capacities=capacities,
            bounds=PoolBounds(
                pool_max=chosen.pool_max,
                pool_timeout_s=chosen.pool_timeout_s,
                statement_timeout_s=chosen.statement_timeout_s,
                lock_timeout_s=chosen.lock_timeout_s,
                idle_timeout_s=chosen.idle_timeout_s,
                durability=chosen.durability,
                exact_max=chosen.exact_vectors_max,
            ),
            auto_migrate=chosen.auto_migrate,
            vector_cache_bytes_max=chosen.vector_cache_bytes_max,
            web_logs_max=chosen.web_logs_max,
        )
    from memos.memory.sqlite import SqliteStore

    return SqliteStore(
        settings.store_path,
        clock=clock,
        capacities=capacities,
        busy_timeout_s=chosen.busy_timeout_s,
        vector_cache_bytes_max=chosen.vector_cache_bytes_max,
        web_logs_max=chosen.web_logs_max,
    )


def postgres_address(settings: Settings) -> PostgresAddress:
    """Where the settings say that PostgreSQL is. Raises ConfigError: no address, or no driver."""
    chosen = settings.store
    if chosen.url is None:
        raise ConfigError("MEMOS_STORE__URL names no PostgreSQL database; the store is a file")
    try:
        from memos.memory.postgres import PostgresAddress
    except ImportError as error:
        raise ConfigError(
            "a store on PostgreSQL needs its driver: pip install 'memscheduler[postgres]'"
        ) from error
    return PostgresAddress(
        chosen.url.get_secret_value(),
        schema=chosen.schema_name,
        role=chosen.role,
        partitions=chosen.partitions,
        connect_timeout_s=chosen.connect_timeout_s,
    )


def restore_store(settings: Settings, backup: Path) -> int:
    """Put what `memos backup` wrote where the settings have their store; returns the bytes of the backup.

    Raises InvalidInput when a store is there (a database: something in it), StoreCorrupt when the backup is
    damaged.
    """
    if settings.store.url is None:
        from memos.memory.sqlite.backup import restore_database

        return restore_database(backup, settings.store_path)
    address = postgres_address(settings)
    from memos.memory.postgres import PoolBounds
    from memos.memory.postgres.connection import PostgresDatabase
    from memos.memory.postgres.transfer import fill_from_file

    bounds = PoolBounds(durability=settings.store.durability)
    with closing(PostgresDatabase(address, bounds, auto_migrate=settings.store.auto_migrate)) as database:
        fill_from_file(database, backup)
    return backup.stat().st_size


@dataclass(frozen=True, slots=True)
class Migrated:
    """What `migrate_postgres` did, or would do."""

    place: str
    steps: tuple[str, ...]
    vectors: str


def migrate_postgres(settings: Settings, url: str | None = None, *, dry_run: bool = False) -> Migrated:
    """Bring the tables to the newest layout, as the owner. `url`: the owner's address, where it is another
    than the program's. Raises ConfigError, SchemaTooNew, StoreCorrupt."""
    if url is not None:
        settings = settings.model_copy(
            update={"store": settings.store.model_copy(update={"url": SecretStr(url)})}
        )
    address = postgres_address(settings)
    from memos.memory.postgres.connection import bring_up

    steps, indexed = bring_up(address, dry_run=dry_run)
    vectors = (
        "vectors are indexed by pgvector" if indexed else "every vector is compared: no index of vectors"
    )
    return Migrated(address.name, steps, vectors)
