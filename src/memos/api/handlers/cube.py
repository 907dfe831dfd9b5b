"""CubeHandler: which cubes there are. A cube comes into being with its first memory."""

from __future__ import annotations

from memos.api.handlers.base_handler import BaseHandler, HandlerDependencies
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.memory.store import MemoryStore


class CubeHandler(BaseHandler):
    """Questions about whole cubes."""

    def __init__(self, dependencies: HandlerDependencies) -> None:
        super().__init__(dependencies)
        self._validate_dependencies("graph_db")
        self._store: MemoryStore = dependencies.graph_db

    def exists(self, cube_id: str) -> bool:
        """Whether the cube holds or ever held memories."""
        return self._store.seq(check_id("mem_cube_id", cube_id)) > 0

    def cubes(self, user_id: str | None = None) -> list[str]:
        """Ids of all cubes, or of those in which the user has live memories."""
        return self._store.cubes(check_id("user_id", user_id) if user_id is not None else None)
