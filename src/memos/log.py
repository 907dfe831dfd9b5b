"""Logs are events with fields: `get_logger(__name__).info("queue.claimed", lane=…, count=…)`.

Guarantees: the fields of `memos.context` ride along with every event; the text of a memory never
appears above DEBUG; importing this module configures nothing (the runtime calls `configure`).
`get_logger` is a documented import and also takes printf-style calls.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from memos import context

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


def _add_context(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, variable in (
        ("trace_id", context.trace_id),
        ("user_id", context.user_id),
        ("cube_id", context.cube_id),
        ("task_id", context.task_id),
    ):
        value = variable.get()
        if value and name not in event:
            event[name] = value
    return event


def _to_stderr(*_: Any) -> Any:
    """A logger that looks up `sys.stderr` at each line, so that captured and replaced streams work."""
    return structlog.PrintLogger(sys.stderr)


def configure(level: str = "WARNING", form: Literal["console", "json"] = "console") -> None:
    """Set the threshold and the form of log lines for this process. Lines go to stderr."""
    threshold = _LEVELS[level.upper()]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            _add_context,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_to_stderr,
        cache_logger_on_first_use=False,
    )
    logging.getLogger("memos").setLevel(threshold)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose events carry `logger_name=name` (structlog keeps `logger` for itself)."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(logger_name=name)
    return logger
