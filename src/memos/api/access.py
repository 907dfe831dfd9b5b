"""Who asks, and what they may: the principal of a request and the checks that every route makes.

A principal has a role and a scope. `admin` may do everything to everybody; `user` reads and writes, and
`read-only` reads, within the users and cubes of the scope. A user in the scope brings the cube of the same
name along. Outside of a request, and on a server without keys, everything is allowed (`OPEN`): who can
call the handlers as a library owns the store anyway. Pure; loads nothing of the web framework.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from memos.errors import AccessDenied


class Role(StrEnum):
    """What a key is for."""

    ADMIN = "admin"
    USER = "user"
    READ_ONLY = "read-only"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `users` and `cubes`: the scope, None for all of them. `name` is the key's id."""

    name: str
    role: Role
    users: frozenset[str] | None = None
    cubes: frozenset[str] | None = None

    @property
    def is_admin(self) -> bool:
        """Whether everything is allowed, whatever the scope says."""
        return self.role is Role.ADMIN

    def has_user(self, user_id: str) -> bool:
        """Whether the user is in the scope."""
        return self.is_admin or self.users is None or user_id in self.users

    def has_cube(self, cube_id: str) -> bool:
        """Whether the cube is in the scope: named there, or the own one of a user there."""
        if self.is_admin or self.cubes is None or cube_id in self.cubes:
            return True
        return self.users is not None and cube_id in self.users

    def scope(self) -> tuple[str, ...]:
        """All cubes of the scope, for a request that names none; () means every cube."""
        if self.is_admin or self.cubes is None:
            return ()
        return tuple(sorted(self.cubes | (self.users or frozenset())))

    def fence(self) -> frozenset[str] | None:
        """The cubes that a store with row-level security should show at all; None: every cube."""
        if self.is_admin or self.cubes is None:
            return None
        return self.cubes | (self.users or frozenset())


OPEN = Principal("", Role.ADMIN)

_principal: contextvars.ContextVar[Principal] = contextvars.ContextVar("memos_principal", default=OPEN)


def current() -> Principal:
    """Who asks in this context."""
    return _principal.get()


def become(principal: Principal) -> contextvars.Token[Principal]:
    """Let `principal` be who asks, until the token is given back."""
    return _principal.set(principal)


def forget(token: contextvars.Token[Principal]) -> None:
    """Be again who one was before."""
    _principal.reset(token)


def may_read(*, users: Iterable[str] = (), cubes: Iterable[str] = ()) -> None:
    """AccessDenied unless all these users and cubes are in the scope of who asks."""
    principal = current()
    for user_id in users:
        if not principal.has_user(user_id):
            raise AccessDenied(f"this key is not for the user {user_id!r}")
    for cube_id in cubes:
        if not principal.has_cube(cube_id):
            raise AccessDenied(f"this key is not for the cube {cube_id!r}")


def may_write(*, users: Iterable[str] = (), cubes: Iterable[str] = ()) -> None:
    """AccessDenied for a key that only reads, or one whose scope leaves some of these out."""
    if current().role is Role.READ_ONLY:
        raise AccessDenied("this key only reads")
    may_read(users=users, cubes=cubes)


def must_be_admin(what: str) -> None:
    """AccessDenied unless who asks is an admin. `what`: what was asked for, for the message."""
    if not current().is_admin:
        raise AccessDenied(f"{what} is for keys of the role admin")
