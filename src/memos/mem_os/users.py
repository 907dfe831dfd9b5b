"""Who may use which cubes: the registrations of one `MOS`, made by its program at each start.

Memories are the store's and survive; users and registrations are the program's and do not. A user sees
the cubes registered for them and no other, and is not told whether others exist.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

from memos.errors import CubeNotFound, InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_id

USERS_MAX = 100_000
CUBES_OF_USER_MAX = 100  # as many as one recall reads


@dataclass(frozen=True, slots=True)
class User:
    """One user. `cube_ids` in the order of their registration: the first is where things are added."""

    user_id: str
    user_name: str
    role: str
    created_at: datetime
    cube_ids: tuple[str, ...] = field(default=())


class Users:
    """The registrations. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, User] = {}
        self._cubes: dict[str, list[str]] = {}

    def create(self, user_id: str, *, user_name: str, role: str, at: datetime) -> User:
        """The user, made if unknown; one who is known stays as they are. Raises InvalidInput."""
        check_id("user_id", user_id)
        check_id("role", role)
        with self._lock:
            known = self._users.get(user_id)
            if known is None:
                if len(self._users) >= USERS_MAX:
                    raise InvalidInput(
                        f"user {user_id!r} is one too many: at most {USERS_MAX} are known here"
                    )
                self._users[user_id] = User(user_id, user_name or user_id, role, at)
                self._cubes[user_id] = []
        return self.require(user_id)

    def require(self, user_id: str) -> User:
        """The user as they are now. Raises InvalidInput when nobody created them."""
        with self._lock:
            known = self._users.get(user_id)
            if known is None:
                raise InvalidInput(f"user {user_id!r} is not known here; call create_user({user_id!r}) first")
            cubes = tuple(self._cubes[user_id])
        return User(known.user_id, known.user_name, known.role, known.created_at, cubes)

    def register(self, user_id: str, cube_id: str) -> None:
        """Let the user use the cube; a second time changes nothing. Raises InvalidInput."""
        self.require(user_id)
        with self._lock:
            cubes = self._cubes[user_id]
            if cube_id in cubes:
                return
            if len(cubes) >= CUBES_OF_USER_MAX:
                raise InvalidInput(
                    f"user {user_id!r} has {len(cubes)} cubes; at most {CUBES_OF_USER_MAX} are searched together"
                )
            cubes.append(cube_id)

    def unregister(self, user_id: str, cube_id: str) -> None:
        """Take the cube from the user. Raises CubeNotFound when they did not have it."""
        self.allow(user_id, cube_id)
        with self._lock:
            self._cubes[user_id].remove(cube_id)

    def allow(self, user_id: str, cube_id: str) -> str:
        """`cube_id` if the user may use it. Raises InvalidInput, CubeNotFound."""
        if cube_id not in self.require(user_id).cube_ids:
            raise CubeNotFound(
                f"cube {cube_id!r} is not registered for user {user_id!r}; "
                f"call register_mem_cube({cube_id!r}, user_id={user_id!r}) first"
            )
        return cube_id

    def some_of(self, user_id: str, cube_ids: list[str] | None = None) -> tuple[str, ...]:
        """The named cubes, or all of the user's. Raises InvalidInput, CubeNotFound (also when none is)."""
        if cube_ids:
            return tuple(self.allow(user_id, cube_id) for cube_id in dict.fromkeys(cube_ids))
        found = self.require(user_id).cube_ids
        if not found:
            raise CubeNotFound(f"no cube is registered for user {user_id!r}; call register_mem_cube first")
        return found

    def all(self) -> list[User]:
        """Everybody, in the order of their creation."""
        with self._lock:
            names = list(self._users)
        return [self.require(name) for name in names]
