"""One envelope for every error: `{code, message, data: null, request_id}` under a true HTTP status.

`STATUS_OF` decides by the class of a `MemosError`; the first entry that matches counts. What is no
`MemosError` is a 500 whose cause is in the log under the request id, never in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException as StarletteHTTPException

from memos import context, errors, log

logger = log.get_logger(__name__)

STATUS_OF: tuple[tuple[type[errors.MemosError], int], ...] = (
    (errors.InvalidInput, 400),
    (errors.AccessDenied, 403),
    (errors.CubeNotFound, 404),
    (errors.ItemNotFound, 404),
    (errors.ItemGone, 410),
    (errors.VersionConflict, 409),
    (errors.QueueFull, 503),
    (errors.QueueUnavailable, 503),
    (errors.StoreUnavailable, 503),
    (errors.RateLimited, 503),
    (errors.ModelUnavailable, 503),
    (errors.BadCompletion, 502),
)
RETRY_AFTER_S = 1


def status_of(error: errors.MemosError) -> int:
    """The HTTP status that says what went wrong; 500 for what the caller cannot change."""
    return next((status for kind, status in STATUS_OF if isinstance(error, kind)), 500)


def envelope(
    status: int, message: str, *, headers: dict[str, str] | None = None, detail: Any = None
) -> JSONResponse:
    """The response of an error."""
    body: dict[str, Any] = {
        "code": status,
        "message": message,
        "data": None,
        "request_id": context.trace_id.get() or None,
    }
    if detail is not None:
        body["detail"] = detail
    return JSONResponse(body, status_code=status, headers=headers)


def of_memos_error(error: errors.MemosError) -> JSONResponse:
    """The envelope of one of our own errors."""
    status = status_of(error)
    if status >= 500:
        logger.warning("api.error", kind=type(error).__name__, error=str(error), status=status)
    seconds = error.retry_after_s if isinstance(error, errors.RateLimited) else RETRY_AFTER_S
    headers = {"Retry-After": str(max(1, round(seconds)))} if status == 503 else None
    return envelope(status, str(error), headers=headers)


def of_validation_error(error: RequestValidationError) -> JSONResponse:
    """422, with one line for people and the whole list as `detail`; inputs are cut short."""
    detail = [
        {
            "loc": [str(part) for part in fault["loc"]],
            "msg": str(fault["msg"]).removeprefix("Value error, "),
            "type": fault["type"],
            "input": repr(fault.get("input"))[:200],
        }
        for fault in error.errors()
    ]
    lines = []
    for fault in detail:
        where = ".".join(part for part in fault["loc"] if part != "body")
        lines.append(f"{where}: {fault['msg']}" if where else str(fault["msg"]))
    return envelope(422, "; ".join(lines), detail=detail)


class ErrorEnvelope(BaseModel):
    """Every error: `data` is null, `request_id` stands in the log too, `detail` lists what is invalid."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "code": 403,
                    "message": "this key is not for the user 'bob'",
                    "data": None,
                    "request_id": "4f1c",
                }
            ]
        }
    )

    code: int
    message: str
    data: None = None
    request_id: str | None = None
    detail: list[dict[str, Any]] | None = None


# What the description of the API says about errors, on every route.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": text}
    for status, text in (
        (400, "a value that can never work"),
        (401, "no good key"),
        (403, "the key is not for this user, cube or kind of request"),
        (404, "there is no such thing"),
        (408, "the body stopped coming"),
        (409, "somebody wrote in between"),
        (410, "it was deleted"),
        (413, "the body is too long"),
        (422, "the request is not of the described form"),
        (429, "too many requests"),
        (502, "the model's reply could not be used"),
        (503, "busy or not available now; Retry-After says when to come back"),
    )
}


class EnvelopeRoute(APIRoute):
    """A route that answers errors in the envelope, whichever application it is mounted in."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except errors.MemosError as error:
                return of_memos_error(error)
            except RequestValidationError as error:
                return of_validation_error(error)
            except StarletteHTTPException as error:
                return of_http_error(error)

        return guarded


def install(app: FastAPI) -> None:
    """Answer everything outside the routes in the envelope too: unknown paths, wrong methods, faults."""

    async def http(_: Request, error: Exception) -> Response:
        return of_http_error(error) if isinstance(error, StarletteHTTPException) else _internal(error)

    async def ours(_: Request, error: Exception) -> Response:
        return of_memos_error(error) if isinstance(error, errors.MemosError) else _internal(error)

    async def invalid(_: Request, error: Exception) -> Response:
        return of_validation_error(error) if isinstance(error, RequestValidationError) else _internal(error)

    app.add_exception_handler(StarletteHTTPException, http)
    app.add_exception_handler(errors.MemosError, ours)
    app.add_exception_handler(RequestValidationError, invalid)


def of_http_error(error: StarletteHTTPException) -> JSONResponse:
    """The envelope of an HTTP error."""
    headers = dict(error.headers) if error.headers else None
    return envelope(error.status_code, str(error.detail), headers=headers)


def _internal(error: Exception) -> JSONResponse:
    logger.error("api.fault", kind=type(error).__name__, exc_info=error)
    return envelope(500, "internal error; the log has the cause under this request id")
