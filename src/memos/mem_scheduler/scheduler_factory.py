"""Makes the scheduler that a configuration names, out of parts that are handed over.

Reading YAML and the environment is `settings`' part, opening backends is `runtime`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from memos.configs.mem_scheduler import (
    GeneralSchedulerConfig,
    OptimizedSchedulerConfig,
    SchedulerConfigFactory,
)
from memos.errors import ConfigError
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.handlers.context import Services
from memos.mem_scheduler.optimized_scheduler import OptimizedScheduler
from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.startup import Launch


class SchedulerFactory:
    """The documented factory."""

    backend_to_class: ClassVar[Mapping[str, type[GeneralScheduler]]] = {
        "general_scheduler": GeneralScheduler,
        "optimized_scheduler": OptimizedScheduler,
    }

    @classmethod
    def from_config(
        cls,
        config_factory: SchedulerConfigFactory,
        *,
        queue: TaskQueue,
        services: Services,
        launch: Launch | None = None,
    ) -> GeneralScheduler:
        """The scheduler of `config_factory.backend`, ready to start. Raises ConfigError.

        `launch` starts the worker process of the startup mode `process`.
        """
        config = config_factory.config
        if isinstance(config, OptimizedSchedulerConfig):
            return OptimizedScheduler(config, queue=queue, services=services, launch=launch)
        if isinstance(config, GeneralSchedulerConfig):
            return GeneralScheduler(config, queue=queue, services=services, launch=launch)
        raise ConfigError(f"backend {config_factory.backend!r} has no scheduler class")
