"""Who may listen where, and the one key.

Off loopback the server does not start without a key, and with a key every request but /health must
carry it (`Authorization: Bearer …` or `X-API-Key`). There is one key and no notion of scopes yet: who
has it may read and write every cube.
"""

from __future__ import annotations

import hmac
import ipaddress

from memos.errors import ConfigError

OPEN_PATHS = frozenset({"/health"})
KEY_CHARS_MIN = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name may resolve to anything


def check_exposure(host: str, key: str | None) -> None:
    """ConfigError when a server on `host` would be open to others without a key, or with a guessable one."""
    if key is not None and len(key) < KEY_CHARS_MIN:
        raise ConfigError(
            f"the API key has {len(key)} characters; give MEMOS_API__KEY at least {KEY_CHARS_MIN} random ones"
        )
    if key is None and not is_loopback(host):
        raise ConfigError(
            f"refusing to listen on {host!r} without a key: other machines could read and write every memory. "
            "Set MEMOS_API__KEY, or listen on 127.0.0.1"
        )


def carries(headers: list[tuple[bytes, bytes]], key: str) -> bool:
    """Whether the raw request headers carry `key`. Compares in constant time."""
    for name, value in headers:
        lowered = name.lower()
        given = value
        if lowered == b"authorization":
            scheme, _, given = value.partition(b" ")
            if scheme.lower() != b"bearer":
                continue
        elif lowered != b"x-api-key":
            continue
        if hmac.compare_digest(given.strip(), key.encode()):
            return True
    return False
