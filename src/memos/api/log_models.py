"""Web logs over HTTP."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict  # pydantic refuses the one of `typing` before Python 3.12

from memos.api.model_base import BaseResponse


class LogRow(TypedDict):
    """One web log with all documented fields, and its number, which rises with every log of the store."""

    number: int
    log: dict[str, Any]


class LogsResponse(BaseResponse[list[LogRow]]):
    """Logs, newest first. `next_before` is where the next page begins; null: that was all."""

    next_before: int | None = None
