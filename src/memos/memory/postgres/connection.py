"""Connections to one database: two bounded pools, transactions that are fenced, and the way back after a
restart of the server.

Guarantees: a write transaction is committed or rolled back whole; a reader's transaction is one snapshot;
errors come out as `StoreError`; a server that says nothing for longer than a statement may take is given up. Every transaction runs as the program's role, in a scope (which cubes it may
see), and both end with it. A connection is tried before it is used, so a restarted server costs no error
once it is back.

Writing and short reads have a pool, open views another: a thread that has a view open and writes can wait
for no connection that only another such thread will give back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import psycopg
import psycopg.sql
from psycopg import IsolationLevel
from psycopg_pool import ConnectionPool

from memos import context, log, tracing
from memos.errors import ConfigError, MemosError, StoreUnavailable
from memos.memory.postgres import vector_index
from memos.memory.postgres.address import PoolBounds, PostgresAddress
from memos.memory.postgres.faults import translating
from memos.memory.postgres.schema import is_owner, migrate, outstanding
from memos.memory.postgres.session import Session
from memos.memory.postgres.tables import PostgresTables

logger = log.get_logger(__name__)

SERVER_VERSION_MIN = 140_000
CONNECT_TIMEOUT_MIN_S = 2  # what libpq takes at least
SILENCE_GRACE_S = 5.0  # over the statement time-out, by which the server itself would have spoken
# A machine that is gone is noticed by TCP within some 20 s, also in the middle of a statement; the address may say else.
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # ms that sent bytes may stay unconfirmed
}
_Connection = psycopg.Connection[tuple[Any, ...]]


class _Listening(_Connection):
    """A connection that is closed when its server says nothing for `silence_s`. A machine that is gone without a
    word, or a black hole on the way, would otherwise hold its caller for as long as TCP hopes."""

    silence_s: float | None = None  # no bound while it is being made: that has a time-out of its own

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        if self.silence_s is not None:
            gen = self._bounded(gen, time.monotonic() + self.silence_s)
        return super().wait(gen, *args, **options)

    def _bounded(self, gen: Generator[Any, Any, Any], ends_at: float) -> Generator[Any, Any, Any]:
        """`gen`, until then. psycopg resumes it now and then although nothing came."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() >= ends_at:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server says nothing")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


_CONFIGURE = """
SELECT set_config('search_path', %(search_path)s, false),
       set_config('statement_timeout', %(statement_ms)s::text, false),
       set_config('lock_timeout', %(lock_ms)s::text, false),
       set_config('idle_in_transaction_session_timeout', %(idle_ms)s::text, false),
       set_config('synchronous_commit', %(durability)s, false)
"""
_ENTER_ALL = """
SELECT set_config('role', %(role)s, true), set_config('memos.scope', '*', true),
       set_config('memos.names', '*', true)
"""
_ENTER = "SELECT set_config('role', %(role)s, true), enter_scope(%(names)s::text[])"
_SCHEMA_PATH = "SELECT set_config('search_path', quote_ident(%(schema)s), true)"
_QUOTE = "SELECT quote_ident(%(name)s)"
_HEALTH = "SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync')"


@contextmanager
def owner(address: PostgresAddress) -> Iterator[_Connection]:
    """A connection of its own as the login role, for what only the owner may do. ConfigError without one."""
    try:
        connection = psycopg.connect(address.url, autocommit=True, connect_timeout=_timeout(address))
    except psycopg.Error as error:
        raise ConfigError(f"{address.name} cannot be used: {_reason(error, address)}") from None
    try:
        yield connection
    finally:
        connection.close()


def bring_up(address: PostgresAddress, *, dry_run: bool) -> tuple[tuple[str, ...], bool]:
    """Migrate as the owner, or only look: the names of the steps, and whether vectors are indexed."""
    with owner(address) as connection, translating(address.name):
        if dry_run:
            with connection.transaction():
                steps = outstanding(connection, address)
        else:
            steps = migrate(connection, address)
        names = tuple(f"{step.number:04}_{step.name}" for step in steps)
        with connection.transaction():
            connection.execute(_SCHEMA_PATH, {"schema": address.schema})
            made = not (dry_run and steps and steps[0].number == 1)
            return names, made and vector_index.dim_of(Session(connection)) > 0


def _timeout(address: PostgresAddress) -> int:
    """Of one attempt, so that all attempts end in time."""
    from psycopg.conninfo import conninfo_attempts

    try:
        attempts = len(conninfo_attempts(address.parameters()))
    except psycopg.Error:
        attempts = 1
    return max(CONNECT_TIMEOUT_MIN_S, int(address.connect_timeout_s / max(1, attempts)))


def _reason(error: psycopg.Error, address: PostgresAddress) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    password = address.parameters().get("password")
    return text.replace(str(password), "***") if password else text


class PostgresDatabase:
    """The store's schema in a database: fulfils `relational.tables.Database`. Thread-safe.

    Raises ConfigError (no answer within the connect timeout, no such role or database, tables that have to be
    migrated by the owner), SchemaTooNew, StoreCorrupt when it opens.
    """

    def __init__(self, address: PostgresAddress, bounds: PoolBounds, *, auto_migrate: bool = True) -> None:
        self.address = address
        self.bounds = bounds
        self.name = address.name
        self._opened_by = os.getpid()
        self.extension: tuple[str, str] | None = None  # pgvector: version, schema
        with owner(self.address) as connection:
            self._prepare(connection, auto_migrate=auto_migrate)
        self._work = self._pool("work", IsolationLevel.READ_COMMITTED, read_only=False)
        self._views = self._pool("views", IsolationLevel.REPEATABLE_READ, read_only=True)

    # -- opening --------------------------------------------------------------------------------------

    def _prepare(self, connection: _Connection, *, auto_migrate: bool) -> None:
        if connection.info.server_version < SERVER_VERSION_MIN:
            raise ConfigError(f"{self.name}: PostgreSQL 14 or newer is needed")
        with translating(self.name), connection.transaction():
            missing = outstanding(connection, self.address)
        if missing:
            steps = ", ".join(f"{step.number:04}_{step.name}" for step in missing)
            if not auto_migrate:
                raise ConfigError(f"{self.name} lacks {steps}; run `memos migrate`")
            try:
                migrate(connection, self.address)
            except ConfigError:
                raise
            except MemosError as error:
                raise ConfigError(
                    f"{self.name} lacks {steps}, and the login role cannot make them ({error}); run "
                    "`memos migrate` as the owner"
                ) from error
        with translating(self.name):
            self.extension = vector_index.extension(connection)

    def bring_up_index(self) -> bool:
        """Make the index of vectors for the bound model, where that is possible; whether there is one."""
        with owner(self.address) as connection, translating(self.name):
            with connection.transaction():
                connection.execute(_SCHEMA_PATH, {"schema": self.address.schema})
                if vector_index.wanted_dim(connection) is None or not is_owner(connection):
                    return self._has_index(connection)
            migrate(connection, self.address)
            with connection.transaction():
                connection.execute(_SCHEMA_PATH, {"schema": self.address.schema})
                return self._has_index(connection)

    @staticmethod
    def _has_index(connection: _Connection) -> bool:
        return vector_index.dim_of(Session(connection)) > 0

    def _pool(self, kind: str, isolation: IsolationLevel, *, read_only: bool) -> ConnectionPool[_Listening]:
        silence_s = self.bounds.statement_timeout_s + SILENCE_GRACE_S

        def check(connection: _Listening) -> None:
            """One that does not answer within the time in which a new one is made is not used."""
            connection.silence_s = min(silence_s, float(_timeout(self.address)))
            try:
                ConnectionPool.check_connection(connection)
            finally:
                connection.silence_s = silence_s

        def configure(connection: _Listening) -> None:
            path = [connection.execute(_QUOTE, {"name": self.address.schema}).fetchone()]
            if self.extension is not None:
                path.append(connection.execute(_QUOTE, {"name": self.extension[1]}).fetchone())
            connection.execute(
                _CONFIGURE,
                {
                    "search_path": ", ".join(row[0] for row in path if row is not None),
                    "statement_ms": int(1_000 * self.bounds.statement_timeout_s),
                    "lock_ms": int(1_000 * self.bounds.lock_timeout_s),
                    "idle_ms": int(1_000 * self.bounds.idle_timeout_s),
                    "durability": self.bounds.durability,
                },
            )
            connection.commit()
            connection.isolation_level = isolation
            connection.read_only = read_only
            connection.silence_s = silence_s

        pool: ConnectionPool[_Listening] = ConnectionPool(
            self.address.url,
            connection_class=_Listening,
            kwargs={
                "connect_timeout": _timeout(self.address),
                "application_name": f"memos {kind}",
                **{
                    name: value for name, value in _KEEPALIVE.items() if name not in self.address.parameters()
                },
            },
            min_size=0,
            max_size=self.bounds.pool_max,
            timeout=self.bounds.pool_timeout_s,
            reconnect_timeout=self.bounds.pool_timeout_s,
            num_workers=1,
            configure=configure,
            check=check,
            name=f"memos {kind}",
            open=False,
        )
        pool.open(wait=False)
        return pool

    # -- transactions ---------------------------------------------------------------------------------

    @contextmanager
    def write(self, *, alone: bool = False) -> Iterator[PostgresTables]:
        """One write transaction: committed when the block ends, rolled back when it raises.

        When the connection is lost while committing nobody knows whether it was kept: StoreUnavailable is
        raised, and a repeat under the same message key finds out.
        """
        with tracing.span("store transaction", db_system_name="postgresql"):
            self._refuse_fork()
            with translating(self.name), self._work.connection() as connection:
                yield self._enter(connection, None)

    @contextmanager
    def read(self, cube_ids: Sequence[str] | None = None) -> Iterator[PostgresTables]:
        """One snapshot for a block that is the store's own."""
        self._refuse_fork()
        with translating(self.name), self._work.connection() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield self._enter(connection, cube_ids)

    @contextmanager
    def snapshot(self, cube_id: str) -> Iterator[PostgresTables]:
        """One snapshot for a caller's block, whose own errors pass as they are."""
        self._refuse_fork()
        with translating(self.name):
            connection = self._views.getconn()
        try:
            with translating(self.name):
                tables = self._enter(connection, (cube_id,))
            yield tables
        finally:
            # The snapshot was only read: nothing is lost with the connection. Committed, since psycopg forgets its
            # prepared statements at a ROLLBACK, and each would be planned anew in the next snapshot.
            with suppress(psycopg.Error):
                connection.commit()
            self._views.putconn(connection)

    def _enter(self, connection: _Connection, cube_ids: Sequence[str] | None) -> PostgresTables:
        fence = context.fence.get()
        names = fence if cube_ids is None else [one for one in cube_ids if fence is None or one in fence]
        if names is None:
            connection.execute(_ENTER_ALL, {"role": self.address.role})
        else:
            connection.execute(_ENTER, {"role": self.address.role, "names": sorted(names)})
        return PostgresTables(Session(connection), exact_max=self.bounds.exact_max)

    def translating(self) -> AbstractContextManager[None]:
        """PostgreSQL's errors leave the block as `StoreError`."""
        return translating(self.name)

    # -- keeping house --------------------------------------------------------------------------------

    def checkpoint(self) -> bool:
        """What older row versions hold is the server's to clear: VACUUM, and its write-ahead log.

        Asks for the first where the login role is the owner; False, since nobody here can vouch for the log.
        """
        with suppress(MemosError), owner(self.address) as connection, translating(self.name):
            connection.execute(_PATH_FOR_SESSION, {"schema": self.address.schema})
            if is_owner(connection):
                for table in _VACUUMED:
                    connection.execute(psycopg.sql.SQL("VACUUM {}").format(psycopg.sql.Identifier(table)))
        return False

    def health(self) -> dict[str, str]:
        """What the server says of itself."""
        with self.read(()) as tables:
            row = tables.session.row(_HEALTH)
        assert row is not None
        return {"version": str(row[0]), "synchronous_commit": str(row[1]), "fsync": str(row[2])}

    def _refuse_fork(self) -> None:
        """Before any lock: a lock that a thread of the parent held at the fork is never released here."""
        if os.getpid() != self._opened_by:
            raise StoreUnavailable(
                f"{self.name}: the store was opened before this process was forked; take the names from "
                "memos.api.routers.server_router anew, or build a runtime in the child"
            )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._work.closed

    def close(self) -> None:
        """Close both pools; what is in use, when it is given back. In a forked child it does nothing."""
        if os.getpid() == self._opened_by:
            for pool in (self._work, self._views):
                pool.close(timeout=1.0)


_PATH_FOR_SESSION = "SELECT set_config('search_path', quote_ident(%(schema)s), false)"
_VACUUMED = (
    "item",
    "lexicon",
    "mention",
    "vector",
    "journal",
    "working",
    "state",
    "outbox",
    "web_log",
    "mark",
    "block",
    "block_item",
    "prefix",
    "prefix_item",
)
