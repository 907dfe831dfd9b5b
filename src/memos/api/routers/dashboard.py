"""The dashboard at `/`: the page and its files, under a policy that lets it load and run nothing else.

The files are read once and held by the router; they are open to everybody (see `memos.api.auth`), because
they show nothing without the answers of the API, which ask for a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header, Response

from memos import dashboard

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, and asked for anew: a new version is never mixed with an old one
}


def dashboard_router() -> APIRouter:
    """One route for each file of the page; none of them stands in the description of the API."""
    router = APIRouter(include_in_schema=False)
    for path, name in dashboard.PATHS.items():
        router.add_api_route(path, _route(name), methods=["GET"], response_class=Response)
    return router


def _route(name: str) -> Callable[..., Response]:
    content = dashboard.read(name)
    tag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    headers = HEADERS | {"ETag": tag}

    def serve(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        if if_none_match == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=dashboard.media_type(name), headers=headers)

    return serve
