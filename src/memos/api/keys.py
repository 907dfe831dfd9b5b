"""API keys: made once, shown once, kept as hashes in one file that every process reads.

    keys.json   {"version": 1, "keys": [{"id", "name", "role", "users", "cubes", "rate_per_minute",
                "hash", "created_at", "expires_at", "revoked_at"}]}        mode 0600

A key is `memos_<id>_<secret>`; the secret has 256 random bits, so a plain SHA-256 of it is enough: there is
nothing to guess. A change is written whole and renamed into place, under a lock, so that a reader sees
one version or the other. Readers look at the file's identity with each request and read it again when it
changed: a revoked key stops at the next request. A file that cannot be read lets nobody in.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from memos import log
from memos.api.access import Principal, Role
from memos.errors import ConfigError, InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_id

KEYS_MAX = 10_000
_KEY = re.compile(r"memos_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key. `users` and `cubes` None: all of them; times are aware UTC."""

    id: str
    name: str
    role: Role
    users: tuple[str, ...] | None
    cubes: tuple[str, ...] | None
    rate_per_minute: int | None  # None: the server's own limit; 0: none
    hash: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_good(self, now: datetime) -> bool:
        """Whether it opens anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def principal(self) -> Principal:
        """Who carries it."""
        return Principal(
            self.id,
            self.role,
            None if self.users is None else frozenset(self.users),
            None if self.cubes is None else frozenset(self.cubes),
        )


class KeyFile:
    """The keys of one server. Thread-safe; several processes may share the file."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def all(self) -> list[ApiKey]:
        """Every key that was ever made, oldest first. ConfigError when the file cannot be read."""
        with self._lock:
            self._look()
            return list(self._keys.values())

    def find(self, given: str) -> ApiKey | None:
        """The key whose secret `given` holds, if it is good now. ConfigError when the file cannot be read."""
        match = _KEY.fullmatch(given)
        if match is None:
            return None
        with self._lock:
            self._look()
            known = self._keys.get(match[1])
        if known is None or not hmac.compare_digest(known.hash, _hash(match[2])):
            return None
        return known if known.is_good(self._now()) else None

    def create(
        self,
        name: str,
        *,
        role: Role,
        users: tuple[str, ...] | None,
        cubes: tuple[str, ...] | None,
        rate_per_minute: int | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its text, which is not kept. Raises InvalidInput, ConfigError."""
        check_id("name", name, chars_max=100)
        for field, ids in (("user", users), ("cube", cubes)):
            for one in ids or ():
                check_id(field, one)
        if role is not Role.ADMIN and users is not None and not users and not cubes:
            raise InvalidInput(f"a key of the role {role} needs users or cubes that it is for")
        secret = secrets.token_urlsafe(32)
        made = ApiKey(
            id=secrets.token_hex(6),
            name=name,
            role=role,
            users=users,
            cubes=cubes,
            rate_per_minute=rate_per_minute,
            hash=_hash(secret),
            created_at=self._now(),
            expires_at=expires_at,
        )
        with self._changing() as keys:
            if len(keys) >= KEYS_MAX:
                raise InvalidInput(
                    f"there are {KEYS_MAX} keys already; delete revoked ones from {self._path}"
                )
            keys[made.id] = made
        return made, f"memos_{made.id}_{secret}"

    def revoke(self, key_id: str) -> ApiKey:
        """Let the key open nothing any more. Revoking again changes nothing. InvalidInput: no such key."""
        with self._changing() as keys:
            known = keys.get(key_id)
            if known is None:
                raise InvalidInput(f"no key has the id {key_id!r}; `memos keys list` shows them")
            if known.revoked_at is None:
                known = keys[key_id] = replace(known, revoked_at=self._now())
        return known

    @contextmanager
    def _changing(self) -> Iterator[dict[str, ApiKey]]:
        """The keys, to be changed; written when the block ends well."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self._lock:
                self._look()
                keys = dict(self._keys)
                yield keys
                self._write(keys)
        finally:
            os.close(lock)

    def _write(self, keys: dict[str, ApiKey]) -> None:
        text = json.dumps({"version": 1, "keys": [_as_json(key) for key in keys.values()]}, indent=1)
        beside = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}") from error

    def _look(self) -> None:
        """Read the file if it is not the one that was read last."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            return
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be read: {error.strerror}") from error
        seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        if seen == self._seen:
            return
        try:
            kept = _File.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError) as error:
            # Its text may hold parts of the file: only what kind of fault it is goes further.
            raise ConfigError(
                f"{self._path} is not a readable file of keys ({type(error).__name__})"
            ) from error
        self._keys = {row.id: row.key() for row in kept.keys}
        self._seen = seen


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    name: str
    role: Role
    users: tuple[str, ...] | None
    cubes: tuple[str, ...] | None
    rate_per_minute: int | None
    hash: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def key(self) -> ApiKey:
        return ApiKey(**dict(self))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int
    keys: list[_Row]


def _as_json(key: ApiKey) -> dict[str, Any]:
    fields = {name: getattr(key, name) for name in _Row.model_fields}
    row: dict[str, Any] = _Row(**fields).model_dump(mode="json")
    return row


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
