"""Who a queue object is to others: a name that no other start of a process ever has.

A restarted worker must not be taken for the one that died (its leases would look held), so the name that
people give is only the beginning of the real one.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

from memos.errors import ConfigError

NAME_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Identity:
    """`name` is unique; `host` and `pid` say where to look."""

    name: str
    host: str
    pid: int

    @classmethod
    def new(cls, name: str = "") -> Identity:
        """The identity of a queue object of this process; `name` (default: the host's) begins its name.

        Raises ConfigError for a name that is too long or has control characters.
        """
        if len(name) > NAME_CHARS_MAX or not all(map(str.isprintable, name)):
            raise ConfigError(
                f"the name of an instance is at most {NAME_CHARS_MAX} printable characters, not {name!r}"
            )
        host, pid = socket.gethostname(), os.getpid()
        return cls(f"{name or host}:{pid}:{secrets.token_hex(4)}", host, pid)
