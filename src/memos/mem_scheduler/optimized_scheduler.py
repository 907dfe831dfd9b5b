"""`OptimizedScheduler`: the general scheduler under the name that servers use by default.

It is the class that joins fast and fine recall in the background (`api_mix_search`); everything else it
has from `GeneralScheduler`.
"""

from __future__ import annotations

from memos.configs.mem_scheduler import OptimizedSchedulerConfig
from memos.mem_scheduler.base_scheduler import DEFAULT_CUBE_ID
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.handlers.context import Services
from memos.mem_scheduler.queues.base import TaskQueue


class OptimizedScheduler(GeneralScheduler):
    """See the module docstring."""

    def __init__(
        self,
        config: OptimizedSchedulerConfig,
        *,
        queue: TaskQueue,
        services: Services,
        default_cube_id: str = DEFAULT_CUBE_ID,
    ) -> None:
        super().__init__(config, queue=queue, services=services, default_cube_id=default_cube_id)
