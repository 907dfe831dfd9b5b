"""CubeHandler: which cubes there are, and making one before its first memory."""

from __future__ import annotations

from collections.abc import Sequence

from memos import context
from memos.api import access
from memos.api.cube_models import (
    CreateCubeRequest,
    CubeMade,
    CubeResponse,
    ExistMemCubeIdRequest,
    ExistMemCubeIdResponse,
    GetUserNamesByMemoryIdsResponse,
    RegisterCubeRequest,
    WorkingCurvePoint,
    WorkingMemoryReport,
    WorkingMemoryResponse,
    WorkingPlace,
)
from memos.api.handlers.base_handler import BaseHandler, HandlerDependencies
from memos.errors import CubeNotFound, ItemGone, ItemNotFound
from memos.mem_scheduler.schemas.message_schemas import check_id
from memos.memory.store import Cause, MemoryStore, PutState
from memos.memory.working_record import STATE, WorkingRecord
from memos.memory.working_report import report

ABOUT = "about"  # the piece of a cube's state that keeps its name and owner


class CubeHandler(BaseHandler):
    """Questions about whole cubes. A cube also comes into being with its first memory."""

    def __init__(self, dependencies: HandlerDependencies) -> None:
        super().__init__(dependencies)
        self._validate_dependencies("graph_db")
        self._store: MemoryStore = dependencies.graph_db

    def exists(self, cube_id: str) -> bool:
        """Whether the cube holds or ever held memories, or was made."""
        return self._store.seq(check_id("mem_cube_id", cube_id)) > 0

    def cubes(self, user_id: str | None = None) -> list[str]:
        """Ids of all cubes, or of those in which the user has live memories."""
        return self._store.cubes(check_id("user_id", user_id) if user_id is not None else None)

    # -- the documented routes --------------------------------------------------------------------------

    def handle_create_cube(self, asked: CreateCubeRequest) -> CubeResponse:
        """Make an empty cube; one that is there already stays as it is. Raises AccessDenied."""
        cube_id = asked.cube_id or asked.cube_name
        return self._make(cube_id, name=asked.cube_name, owner_id=asked.owner_id)

    def handle_register_cube(self, asked: RegisterCubeRequest) -> CubeResponse:
        """The same, by the name of the documented second route. Raises AccessDenied."""
        cube_id = asked.mem_cube_id or asked.mem_cube_name_or_path
        return self._make(cube_id, name=asked.mem_cube_name_or_path, owner_id=asked.user_id)

    def _make(self, cube_id: str, *, name: str, owner_id: str | None) -> CubeResponse:
        access.may_write(users=[owner_id] if owner_id else [], cubes=[cube_id])
        created = not self.exists(cube_id)
        if created:
            about = PutState(cube_id, ABOUT, {"name": name, "owner_id": owner_id})
            cause = Cause(trace_id=context.current_trace_id(), user_id=owner_id or "")
            self._store.apply([about], cause=cause)
        kept = self._store.state(cube_id, ABOUT) or {}
        made = CubeMade(
            cube_id=cube_id,
            cube_name=str(kept.get("name") or cube_id),
            owner_id=kept.get("owner_id"),
            created=created,
        )
        return CubeResponse(message="Cube created" if created else "The cube is there already", data=made)

    def handle_exist_cube(self, asked: ExistMemCubeIdRequest) -> ExistMemCubeIdResponse:
        """Whether the cube is there. Raises AccessDenied, so that nobody can try out names of others."""
        access.may_read(cubes=[asked.mem_cube_id])
        return ExistMemCubeIdResponse(
            message="Successfully", data={asked.mem_cube_id: self.exists(asked.mem_cube_id)}
        )

    def handle_working_memory(self, cube_id: str) -> WorkingMemoryResponse:
        """The working memory of a cube as a cache. Raises AccessDenied, CubeNotFound."""
        access.may_read(cubes=[check_id("mem_cube_id", cube_id)])
        if not self._store.seq(cube_id):
            raise CubeNotFound(f"no cube {cube_id!r} holds or ever held memories")
        working, capacity = self._store.working(cube_id), self._store.capacities.working
        told = report(WorkingRecord.from_json(self._store.state(cube_id, STATE)), capacity=capacity)
        places = [
            WorkingPlace(
                place=place,
                memory_id=item.id,
                memory=item.memory,
                score=entry.score,
                reason=entry.reason,
                since=entry.admitted_at,
            )
            for place, (entry, item) in enumerate(zip(working.entries, working.items, strict=True), start=1)
        ]
        return WorkingMemoryResponse(
            message="Successfully",
            data=WorkingMemoryReport(
                mem_cube_id=cube_id,
                version=working.version,
                capacity=capacity,
                places=places,
                ghosts=told.ghosts,
                basis=told.basis,
                accesses=told.accesses,
                hit_rate=told.hit_rate,
                ghost_rate=told.ghost_rate,
                gain=told.gain,
                sentence=told.sentence,
                curve=[
                    WorkingCurvePoint(capacity=point.capacity, hit_rate=point.hit_rate)
                    for point in told.curve
                ],
                use_share=told.use_share,
                changes=dict(told.changes),
                sufficed=told.sufficed,
                replaced=told.replaced,
            ),
        )

    def handle_user_names(self, item_ids: Sequence[str]) -> GetUserNamesByMemoryIdsResponse:
        """The cube of each memory (the documented user name); null for what is not there for who asks."""
        found: dict[str, str | None] = {}
        for item_id in item_ids:
            try:
                [item] = self._store.get([item_id])
            except (ItemGone, ItemNotFound):
                found[item_id] = None
            else:
                found[item_id] = item.cube_id if access.current().has_cube(item.cube_id) else None
        return GetUserNamesByMemoryIdsResponse(message="Successfully", data=found)
