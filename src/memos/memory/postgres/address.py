"""Where the database is and as whom, as values; a password never leaves this module in a text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from memos.errors import ConfigError

Durability = Literal["on", "remote_apply", "remote_write", "local", "off"]


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """A URL (`postgresql://user:password@host:port/database?…`) and where in that database the store is."""

    url: str = field(repr=False)
    schema: str = "memos"
    role: str = "memos_app"  # what every transaction runs as; not the owner of the tables
    partitions: int = 8  # when the store is made; a store that is there keeps what it has
    connect_timeout_s: float = 4.0

    def __post_init__(self) -> None:
        for what, name in (("schema", self.schema), ("role", self.role)):
            if not name or len(name.encode()) > 63 or "\x00" in name or not name.isprintable():
                raise ConfigError(f"store.{what}={name!r} is no name for PostgreSQL; give 1 to 63 bytes")
        self.parameters()

    def parameters(self) -> dict[str, Any]:
        """The URL as libpq's parameters. Raises ConfigError; the password is not in the error's text."""
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        try:
            return conninfo_to_dict(self.url)
        except psycopg.Error:
            raise ConfigError(
                "store.url is not a PostgreSQL address; it looks like "
                "postgresql://user:password@host:5432/database"
            ) from None

    @property
    def name(self) -> str:
        """For messages: the address without the password, and the schema."""
        given = self.parameters()
        user = f"{given['user']}@" if given.get("user") else ""
        host = given.get("host") or given.get("hostaddr") or "localhost"
        port = f":{given['port']}" if given.get("port") else ""
        return f"postgresql://{user}{host}{port}/{given.get('dbname', '')} (schema {self.schema})"


@dataclass(frozen=True, slots=True)
class PoolBounds:
    """How many connections, and how long anything may take."""

    pool_max: int = 16  # for writing and short reads, and as many again for open views
    pool_timeout_s: float = 10.0  # for a free connection
    statement_timeout_s: float = 60.0
    lock_timeout_s: float = 10.0  # for a cube that somebody else changes
    idle_timeout_s: float = 300.0  # a transaction in which nothing is asked any more
    durability: Durability = "on"  # synchronous_commit
    exact_max: int = 20_000  # live items of a cube, over which an index of vectors answers
