"""Numbered migrations of a store on PostgreSQL: `migrations/NNNN_name.sql`, forward only.

Each one runs in a transaction of its own together with its row in `migration` (number, name, checksum of
its text), under an advisory lock, so that of several processes one migrates and an interrupted upgrade
stands at a whole step. A store that a newer program wrote, and one whose applied steps are not the ones of
this program, are refused untouched.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors, sql

from memos.errors import ConfigError, SchemaTooNew, StoreCorrupt
from memos.memory.postgres import vector_index
from memos.memory.postgres.faults import translating

if TYPE_CHECKING:
    from memos.memory.postgres.address import PostgresAddress

LOCK = 0x6D656D6F73  # of everybody who migrates a store in this database
_NAME = re.compile(r"(\d{4})_(\w+)\.sql")

_LOCK = "SELECT pg_advisory_xact_lock(%(lock)s)"
_TABLE = """
CREATE TABLE IF NOT EXISTS migration (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_HAS_TABLE = "SELECT to_regclass('migration') IS NOT NULL"
_APPLIED = "SELECT number, name, checksum FROM migration ORDER BY number"
_RECORD = "INSERT INTO migration (number, name, checksum) VALUES (%(number)s, %(name)s, %(checksum)s)"
_SET = "SELECT set_config(%(name)s, %(value)s, true)"
_HAS_ROLE = "SELECT 1 FROM pg_roles WHERE rolname = %(role)s"
_MAY_BE = "SELECT pg_has_role(session_user, %(role)s, 'MEMBER')"
_IS_OWNER = """
SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('cube')
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()


def migrations() -> list[Migration]:
    """All steps in order. Their numbers run from 1 without a gap."""
    folder = resources.files("memos.memory.postgres") / "migrations"
    steps = []
    for file in folder.iterdir():
        if match := _NAME.fullmatch(file.name):
            steps.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    steps.sort(key=lambda step: step.number)
    return steps


def outstanding(
    connection: psycopg.Connection, address: PostgresAddress, steps: list[Migration] | None = None
) -> list[Migration]:
    """The steps that the store lacks, all of them for a store that is not there.

    Raises SchemaTooNew, StoreCorrupt (a step was changed after it was applied).
    """
    steps = migrations() if steps is None else steps
    _use_schema(connection, address)
    row = connection.execute(_HAS_TABLE).fetchone()
    applied = connection.execute(_APPLIED).fetchall() if row is not None and row[0] else []
    known = {step.number: step for step in steps}
    for number, name, checksum in applied:
        step = known.get(number)
        if step is None:
            raise SchemaTooNew(
                f"{address.name} was written by a newer version of memscheduler (layout {number}, this version "
                f"knows up to {steps[-1].number}); upgrade with `pip install -U memscheduler`, the store is "
                "untouched"
            )
        if step.checksum != checksum:
            raise StoreCorrupt(
                f"{address.name}: step {number:04}_{name} was applied in another form than this version has it; "
                "the store is untouched"
            )
    done = {row[0] for row in applied}
    return [step for step in steps if step.number not in done]


def migrate(
    connection: psycopg.Connection, address: PostgresAddress, steps: list[Migration] | None = None
) -> list[Migration]:
    """Bring the store to the newest layout, as the owner; returns the steps that were taken.

    Makes schema and role where they are missing. Raises what `outstanding` does, and ConfigError where the
    login role may not do something.
    """
    steps = migrations() if steps is None else steps
    taken = []
    try:
        with translating(address.name):
            with connection.transaction():
                connection.execute(_LOCK, {"lock": LOCK})
                _make_role(connection, address)
                connection.execute(
                    sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(address.schema))
                )
            for step in steps:
                with connection.transaction():
                    connection.execute(_LOCK, {"lock": LOCK})
                    if step.number in {one.number for one in outstanding(connection, address, steps)}:
                        connection.execute(
                            _SET, {"name": "memos.partitions", "value": str(address.partitions)}
                        )
                        connection.execute(_TABLE)
                        connection.execute(step.text.encode())
                        connection.execute(
                            _RECORD, {"number": step.number, "name": step.name, "checksum": step.checksum}
                        )
                        taken.append(step)
            with connection.transaction():
                connection.execute(_LOCK, {"lock": LOCK})
                _use_schema(connection, address)
                vector_index.bring_up(connection)
                connection.execute(_SET, {"name": "memos.role", "value": address.role})
                text = (resources.files("memos.memory.postgres") / "grants.sql").read_text(encoding="utf-8")
                connection.execute(text.encode())
    except psycopg.Error as error:  # pragma: no cover - translated above
        raise ConfigError(f"{address.name}: {type(error).__name__}") from error
    return taken


def is_owner(connection: psycopg.Connection) -> bool:
    """Whether this connection's role may change the layout of the store."""
    row = connection.execute(_IS_OWNER).fetchone()
    return row is not None and bool(row[0])


def _use_schema(connection: psycopg.Connection, address: PostgresAddress) -> None:
    connection.execute(_SET, {"name": "search_path", "value": _quoted(address.schema)})


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _make_role(connection: psycopg.Connection, address: PostgresAddress) -> None:
    """Make the program's role where it is missing, and let the login role become it."""
    role = sql.Identifier(address.role)
    try:
        with connection.transaction():
            if connection.execute(_HAS_ROLE, {"role": address.role}).fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(role))
            row = connection.execute(_MAY_BE, {"role": address.role}).fetchone()
            if row is None or not row[0]:
                connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
    except (errors.DuplicateObject, errors.UniqueViolation):
        pass  # another database's migration made it in this moment
    except errors.InsufficientPrivilege as error:
        raise ConfigError(
            f"{address.name}: the login role cannot make the role {address.role!r}; as a superuser run "
            f"CREATE ROLE {address.role} NOLOGIN; GRANT {address.role} TO <login role>"
        ) from error
