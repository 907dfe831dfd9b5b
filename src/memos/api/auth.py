"""Who may listen where, and who is let in.

Keys are needed as soon as the server listens off loopback, and everywhere once there is one: the key of
the settings (an admin's) or a key of `memos keys`. It is carried as `Authorization: Bearer …` or
`X-API-Key`. Everything fails closed: without keys the server does not start off loopback, and while the
file of keys cannot be read nobody is let in. Without keys, on loopback, only requests to a name of this
machine are answered, so that a web page cannot point a name of its own here (DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from memos import log, metrics
from memos.api.access import OPEN, Principal, Role
from memos.api.keys import KeyFile
from memos.api.rate import RateLimits
from memos.clock import Clock, SystemClock
from memos.dashboard import PATHS
from memos.errors import ConfigError

OPEN_PATHS = frozenset({"/health", "/ready", *PATHS})  # the page itself shows nothing without a key
KEY_CHARS_MIN = 16
KEYS_CARRIED_MAX = 4  # headers of one request that are looked at

Headers = Sequence[tuple[bytes, bytes]]

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further."""

    status: int
    message: str
    headers: dict[str, str]


class Gate:
    """Lets requests in, or says why not. Thread-safe."""

    def __init__(
        self,
        *,
        host: str,
        key: str | None = None,
        keys: KeyFile | None = None,
        rate_per_minute: int = 0,
        hosts: Sequence[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self._key = key
        self._keys = keys
        self._rate_per_minute = rate_per_minute
        self._hosts = frozenset(name.lower() for name in hosts)
        self._limits = RateLimits(clock or SystemClock())
        self._closed = key is not None or not is_loopback(host)

    def admit(self, path: str, headers: Headers) -> Principal | Refusal:
        """Who asks, or the refusal. Counts the request against the rate of its key."""
        if path in OPEN_PATHS:
            return OPEN
        try:
            if not self._needs_key():
                return self._without_key(headers)
            found = self._carried(headers)
        except ConfigError as error:
            logger.error("auth.keys_unreadable", error=str(error))
            return _refused("keys", 503, "the keys cannot be checked now", {"Retry-After": "5"})
        if found is None:
            challenge = {"WWW-Authenticate": "Bearer"}
            return _refused("key", 401, "a key is needed: Authorization: Bearer …", challenge)
        principal, rate_per_minute = found
        wait_s = self._limits.wait_s(principal.name, rate_per_minute)
        if wait_s > 0:
            after = {"Retry-After": str(max(1, round(wait_s)))}
            return _refused("rate", 429, f"this key may ask {rate_per_minute} times a minute", after)
        return principal

    def _needs_key(self) -> bool:
        if not self._closed and self._keys is not None and self._keys.all():
            self._closed = True  # and stays so, whatever becomes of the file
        return self._closed

    def _carried(self, headers: Headers) -> tuple[Principal, int] | None:
        for given in _keys_in(headers):
            if self._key is not None and hmac.compare_digest(given, self._key.encode()):
                return Principal("settings", Role.ADMIN), self._rate_per_minute
            known = self._keys.find(given.decode("latin-1")) if self._keys is not None else None
            if known is not None:
                own = known.rate_per_minute
                return known.principal, self._rate_per_minute if own is None else own
        return None

    def _without_key(self, headers: Headers) -> Principal | Refusal:
        name = _host_of(headers)
        if name in self._hosts or _is_of_this_machine(name):
            return OPEN
        return _refused(
            "host", 421, f"this server has no keys and does not answer to the name {name[:100]!r}", {}
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name may resolve to anything


def check_exposure(host: str, key: str | None, keys: KeyFile | None = None) -> None:
    """ConfigError when a server on `host` would be open to others without a key, or with a guessable one."""
    if key is not None and len(key) < KEY_CHARS_MIN:
        raise ConfigError(
            f"the API key has {len(key)} characters; give MEMOS_API__KEY at least {KEY_CHARS_MIN} random ones"
        )
    if key is None and not is_loopback(host) and not (keys is not None and keys.all()):
        raise ConfigError(
            f"refusing to listen on {host!r} without a key: other machines could read and write every memory. "
            "Make one with `memos keys create`, set MEMOS_API__KEY, or listen on 127.0.0.1"
        )


def _refused(reason: str, status: int, message: str, headers: dict[str, str]) -> Refusal:
    metrics.REFUSALS.add(reason=reason)
    return Refusal(status, message, headers)


def _keys_in(headers: Headers) -> list[bytes]:
    found = []
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"authorization":
            scheme, _, given = value.partition(b" ")
            if scheme.lower() == b"bearer":
                found.append(given.strip())
        elif lowered == b"x-api-key":
            found.append(value.strip())
    return found[:KEYS_CARRIED_MAX]


def _host_of(headers: Headers) -> str:
    """The name that the request was sent to, without the port."""
    given = next((value for name, value in headers if name.lower() == b"host"), b"").decode("latin-1").lower()
    if given.startswith("["):
        return given[1:].partition("]")[0]
    return given.rpartition(":")[0] if given.count(":") == 1 else given


def _is_of_this_machine(name: str) -> bool:
    """An address, `localhost`, or a name without a dot: none that a stranger's name server answers for."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(".localhost")
    return True
