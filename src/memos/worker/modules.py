"""The modules that `memos worker --import` names, and the handlers that they bring.

Three ways, whichever the module uses:

    HANDLERS = {"my_label": my_function}                      # what register_handlers takes
    def register(scheduler): scheduler.register_handlers(…)   # called once the module is imported
    from memos.api.routers.server_router import mem_scheduler # the worker's own scheduler
    mem_scheduler.register_handlers({"my_label": my_function})
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from memos.errors import ConfigError
from memos.mem_scheduler.base_scheduler import BaseScheduler


def load_handlers(scheduler: BaseScheduler, names: Iterable[str]) -> None:
    """Import the modules, from the current folder too, and register what they bring.

    Raises ConfigError for a module that cannot be imported, and for one that registers nothing.
    """
    here = os.getcwd()  # noqa: PTH109 - what goes on the path is a text
    if here not in sys.path:
        sys.path.insert(0, here)
    for name in names:
        before = dict(scheduler.handlers)
        module = _imported(name)
        _register(scheduler, name, module)
        if dict(scheduler.handlers) == before:
            raise ConfigError(
                f"module {name!r} registered no handler; give it a HANDLERS mapping, a register(scheduler) "
                "function, or let it call mem_scheduler.register_handlers"
            )


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"module {name!r} cannot be imported: {error}") from error


def _register(scheduler: BaseScheduler, name: str, module: Any) -> None:
    handlers = getattr(module, "HANDLERS", None)
    if handlers is not None:
        if not isinstance(handlers, Mapping):
            raise ConfigError(f"HANDLERS of module {name!r} must map labels to functions, not {handlers!r}")
        scheduler.register_handlers(handlers)
    register = getattr(module, "register", None)
    if callable(register):
        register(scheduler)
