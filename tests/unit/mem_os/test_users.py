"""Registrations are bounded and kept in order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memos.errors import InvalidInput
from memos.mem_os import users
from memos.mem_os.users import Users

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_users_and_cubes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One user or one cube too many is refused by name; what was there stays."""
    monkeypatch.setattr(users, "USERS_MAX", 1)
    monkeypatch.setattr(users, "CUBES_OF_USER_MAX", 2)
    known = Users()
    known.create("ann", user_name="", role="USER", at=NOW)
    with pytest.raises(InvalidInput, match="'ben'"):
        known.create("ben", user_name="", role="USER", at=NOW)
    for cube_id in ("b", "a", "b"):
        known.register("ann", cube_id)
    with pytest.raises(InvalidInput, match="at most 2"):
        known.register("ann", "c")
    assert known.some_of("ann") == ("b", "a")
    assert known.some_of("ann", ["a", "a"]) == ("a",)
