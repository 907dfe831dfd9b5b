"""InsightHandler: who asks, which cubes there are and how full, and how busy this process is. Reads only."""

from __future__ import annotations

from memos import metrics
from memos.api import access
from memos.api.access import Role
from memos.api.insight_models import (
    Areas,
    CubeRow,
    CubesResponse,
    Hits,
    Load,
    LoadResponse,
    Me,
    MeResponse,
    Workers,
)
from memos.runtime import Runtime

PAGE_MAX = 500


class InsightHandler:
    """Thread-safe."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def handle_me(self) -> MeResponse:
        """What the key of the request may do; a server without keys lets everybody do everything."""
        who = access.current()
        return MeResponse(
            data=Me(
                role=str(who.role),
                name=who.name,
                users=None if who.is_admin or who.users is None else sorted(who.users),
                cubes=None if who.is_admin or who.cubes is None else list(who.scope()),
                may_write=who.role is not Role.READ_ONLY,
            )
        )

    def handle_cubes(self, *, limit: int, after: str) -> CubesResponse:
        """Cubes of the scope that hold or held memories, by name, those after the name `after`."""
        store = self._runtime.store
        may = store.capacities
        known = sorted(one for one in store.cubes() if access.current().has_cube(one))
        shown = [one for one in known if one > after][:limit]
        return CubesResponse(
            data=[self._row(cube_id) for cube_id in shown],
            total=len(known),
            capacities=Areas(
                long_term=may.long_term,
                user=may.user,
                preference=may.preference,
                working=may.working,
                archived=None,
            ),
        )

    def _row(self, cube_id: str) -> CubeRow:
        sizes = self._runtime.store.sizes(cube_id)
        return CubeRow(
            cube_id=cube_id,
            seq=self._runtime.store.seq(cube_id),
            sizes=Areas(
                long_term=sizes.long_term,
                user=sizes.user,
                preference=sizes.preference,
                working=sizes.working,
                archived=sizes.archived,
            ),
        )

    def handle_load(self) -> LoadResponse:
        """Workers, queue, caches; counts without any name, for every key."""
        runtime = self._runtime
        depth = runtime.queue.depth(lanes=False)
        embedded, looked_up = metrics.EMBEDDED_TEXTS, metrics.WORKING_MEMORY_LOOKUPS
        path = runtime.settings.store_path
        return LoadResponse(
            data=Load(
                workers=Workers(
                    running=runtime.scheduler._running,
                    threads=runtime.scheduler.config.workers,
                    calls=len(runtime.scheduler.get_running_tasks()),
                    instances=len(runtime.queue.instances()),
                ),
                queue_held=depth.remaining + depth.running,
                queue_capacity=runtime.queue.messages_max,
                embeddings=Hits(
                    hits=int(embedded.value(outcome="kept")), misses=int(embedded.value(outcome="encoded"))
                ),
                working_memory=Hits(
                    hits=int(looked_up.value(outcome="hit")), misses=int(looked_up.value(outcome="miss"))
                ),
                store_bytes=path.stat().st_size if path.is_file() else None,
            )
        )
