"""Message keys: the identity of an accepted message, minted by the queue, never by the caller.

A key is a ULID (48 bits of milliseconds, 80 random bits, Crockford base 32; https://github.com/ulid/spec):
26 characters that sort by the time of minting. Keys of one `KeyMint` rise strictly, also inside one
millisecond and when the clock steps back. A chained message's key is derived from its parent's, so
that a repeated parent chains the same child.
"""

from __future__ import annotations

import hashlib
import secrets
import threading

from memos.clock import Clock

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TO_BASE_32 = str.maketrans(_ALPHABET, "0123456789ABCDEFGHIJKLMNOPQRSTUV")  # the digits of int()
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]  # 10 bits at a time: half the work


def _encode(value: int) -> str:
    pairs = _PAIRS
    return "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])


class KeyMint:
    """Mints keys; thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0

    def mint(self, count: int = 1) -> list[str]:
        """`count` new keys, rising."""
        fresh = (int(self._clock.now() * 1000) << 80) | secrets.randbits(79)
        with self._lock:
            first = max(fresh, self._last + 1)
            self._last = first + count - 1
        keys: list[str] = []
        while len(keys) < count:  # keys that differ in their last two characters only share the rest
            value = first + len(keys)
            low = value & 1023
            prefix = _encode(value)[:-2]
            keys += [prefix + pair for pair in _PAIRS[low : low + count - len(keys)]]
        return keys


def offset_of(key: str, first: str) -> int | None:
    """How far `key` is behind `first`, which one `mint` may have made together; None when it is no ULID."""
    if len(key) != 26 or len(first) != 26:
        return None
    try:
        return int(key.translate(_TO_BASE_32), 32) - int(first.translate(_TO_BASE_32), 32)
    except ValueError:
        return None


def minted_at(key: str) -> float | None:
    """The wall time of the submit that began the work of a key, chained ones included; None for no ULID."""
    try:
        return int(key[:10].translate(_TO_BASE_32), 32) / 1_000 if len(key) == 26 else None
    except ValueError:
        return None


def is_before(key: str, moment: float | None) -> bool:
    """Whether the work of `key` came up at `moment` (wall time) or before; False where there is none."""
    minted = minted_at(key)
    return moment is not None and minted is not None and minted <= moment


def child_key(parent_key: str, label: str, ordinal: int) -> str:
    """The key of the `ordinal`-th message that the task `parent_key` chains under `label`.

    Keeps the parent's time part, so that it sorts beside it; the rest is a hash.
    """
    digest = hashlib.blake2b(f"{parent_key}\0{label}\0{ordinal}".encode(), digest_size=10).digest()
    return parent_key[:10] + _encode(int.from_bytes(digest, "big"))[-16:]


def work_key(at_s: float, *names: str) -> str:
    """The key of a message that stands for work known by its `names`: the same work, the same key.

    `at_s` is when the work came up; the key sorts there.
    """
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=10).digest()
    prefix = _encode(max(0, int(at_s * 1000)) << 80)[:10]
    return prefix + _encode(int.from_bytes(digest, "big"))[-16:]
