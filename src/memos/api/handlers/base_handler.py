"""What every handler of the API is given, and how it says what it needs.

`HandlerDependencies` is the documented container: `from_init_server(init_server())` fills it. A handler
names the parts it cannot work without in its constructor, so that a missing one is an error at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memos.errors import ConfigError


class MissingDependency(ConfigError, ValueError):
    """A handler was built without a part that it needs."""


class HandlerDependencies:
    """The parts of the server, by their documented names. What is not named becomes an attribute too."""

    def __init__(
        self,
        *,
        llm: Any = None,
        naive_mem_cube: Any = None,
        mem_reader: Any = None,
        mem_scheduler: Any = None,
        searcher: Any = None,
        embedder: Any = None,
        reranker: Any = None,
        graph_db: Any = None,
        vector_db: Any = None,
        internet_retriever: Any = None,
        memory_manager: Any = None,
        feedback_server: Any = None,
        api_module: Any = None,
        **others: Any,
    ) -> None:
        self.llm = llm
        self.naive_mem_cube = naive_mem_cube
        self.mem_reader = mem_reader
        self.mem_scheduler = mem_scheduler
        self.searcher = searcher
        self.embedder = embedder
        self.reranker = reranker
        self.graph_db = graph_db
        self.vector_db = vector_db
        self.internet_retriever = internet_retriever
        self.memory_manager = memory_manager
        self.feedback_server = feedback_server
        self.api_module = api_module
        vars(self).update(others)

    @classmethod
    def from_init_server(cls, components: Mapping[str, Any]) -> HandlerDependencies:
        """The container over what `init_server()` returned."""
        return cls(**components)


class BaseHandler:
    """A handler of the API over its dependencies. Not an HTTP endpoint: endpoints call handlers."""

    def __init__(self, dependencies: HandlerDependencies) -> None:
        self.deps = dependencies

    def _validate_dependencies(self, *names: str) -> None:
        """MissingDependency (a ValueError) listing those of `names` that are not there."""
        missing = [name for name in names if vars(self.deps).get(name) is None]
        if missing:
            raise MissingDependency(
                f"{type(self).__name__} needs {', '.join(missing)}: "
                "build its dependencies with HandlerDependencies.from_init_server(init_server())"
            )

    @property
    def mem_scheduler(self) -> Any:
        return self.deps.mem_scheduler

    @property
    def mem_reader(self) -> Any:
        return self.deps.mem_reader

    @property
    def naive_mem_cube(self) -> Any:
        return self.deps.naive_mem_cube

    @property
    def llm(self) -> Any:
        return self.deps.llm


def cubes_of(named: list[str] | None, deprecated: str | None, user_id: str) -> tuple[str, ...]:
    """The cubes a request is about: the list, else the old single field, else the user's own."""
    return tuple(named or ([deprecated] if deprecated else [user_id]))
