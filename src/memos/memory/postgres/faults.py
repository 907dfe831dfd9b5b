"""PostgreSQL's errors in the project's words: which database, what happened, what to do about it.

The text of a statement, of a parameter or of a row never gets into an error: only the server's code does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from memos.errors import (
    InvalidInput,
    MemosError,
    StoreAway,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    VersionConflict,
)

# Connections that break, too many of them, and a server that stops, crashed or starts.
_AWAY = ("08", "53300", "57P")


def translate(error: psycopg.Error, name: str) -> MemosError:
    """The project's error for one of PostgreSQL's. `name`: the database, without password."""
    code = error.sqlstate or ""
    if isinstance(error, errors.SerializationFailure | errors.DeadlockDetected):
        return StoreUnavailable(f"{name}: another transaction was in the way ({code}); try again")
    if isinstance(error, errors.LockNotAvailable):
        return StoreUnavailable(
            f"{name}: another process has been changing the same cube for too long; try again, or raise "
            "MEMOS_STORE__LOCK_TIMEOUT_S"
        )
    if isinstance(error, errors.QueryCanceled):
        return StoreUnavailable(
            f"{name}: a statement ran longer than MEMOS_STORE__STATEMENT_TIMEOUT_S; try again, or raise it"
        )
    if isinstance(error, errors.UniqueViolation):
        return VersionConflict(f"{name}: somebody stored the same id in between; read again and retry")
    if isinstance(error, PoolClosed):
        return StoreUnavailable(f"{name}: the store is closed; open it again")
    if isinstance(error, PoolTimeout | TooManyRequests):
        return StoreAway(
            f"{name}: no connection was free for MEMOS_STORE__POOL_TIMEOUT_S, or the server does not answer; "
            "try again, or raise MEMOS_STORE__POOL_MAX"
        )
    if isinstance(error, errors.DiskFull):
        return StoreUnavailable(f"{name}: the server's disk is full; nothing of this change was kept")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return StoreAway(f"{name}: the server takes no writes (a standby?); connect to the primary")
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName | errors.UndefinedColumn):
        return StoreCorrupt(
            f"{name}: the store's tables are not as they should be ({code}); run `memos migrate`"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return StoreError(f"{name}: the role may not do that ({code}); see docs/postgres.md, Roles")
    if isinstance(error, errors.NumericValueOutOfRange):
        return InvalidInput("a number to be stored is out of range (64 bits)")
    if isinstance(error, psycopg.DataError):
        return InvalidInput(
            f"a text to be stored holds a NUL character, or a value PostgreSQL does not take ({code or 'client'})"
        )
    if isinstance(error, psycopg.OperationalError):
        kind = StoreAway if not code or code.startswith(_AWAY) else StoreUnavailable
        return kind(f"{name}: the connection is lost or the server refuses ({code or 'no answer'})")
    return StoreError(f"{name}: {type(error).__name__} ({code})")


@contextmanager
def translating(name: str) -> Iterator[None]:
    """Errors of PostgreSQL leave the block as `StoreError`, values it cannot hold as InvalidInput."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, name) from error
    except UnicodeEncodeError as error:
        raise InvalidInput("a text to be stored holds a lone surrogate; it is not valid text") from error
    except OverflowError as error:
        raise InvalidInput("a number to be stored is out of range (64 bits)") from error
