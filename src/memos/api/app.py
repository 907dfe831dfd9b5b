"""The HTTP application: `create_app()` over one runtime, `run()` to serve it.

The application closes the runtime that it opened itself when the server stops: running tasks finish
first. CORS is off. What is not under /product is /health, the OpenAPI pages
and the dashboard at /.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from memos import __version__, runtime
from memos.api import auth, errors
from memos.api.boundary import Boundary
from memos.api.draining import Drain
from memos.api.handlers import Handlers, handlers_of
from memos.api.keys import KeyFile
from memos.api.routers import server_router
from memos.api.routers.dashboard import dashboard_router
from memos.api.routers.ops import ops_router
from memos.api.routers.product import product_router
from memos.runtime import Runtime
from memos.settings import Settings


def create_app(
    open_runtime: Runtime | None = None, *, settings: Settings | None = None, drain: Drain | None = None
) -> FastAPI:
    """The application over `open_runtime`, which stays its caller's to close; else over one of its own.

    Without either, the settings come from the environment. ConfigError when the configured host would
    be open to other machines without a key.
    """
    chosen = open_runtime.settings if open_runtime else settings or Settings.load()
    key = chosen.api.key.get_secret_value() if chosen.api.key else None
    keys = KeyFile(chosen.keys_path)
    auth.check_exposure(chosen.api.host, key, keys)
    built = open_runtime or runtime.build(chosen)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if open_runtime is None:
                await anyio.to_thread.run_sync(built.close)

    def handlers() -> Handlers:
        return handlers_of(built)

    app = FastAPI(title="MemScheduler", version=__version__, lifespan=lifespan)
    errors.install(app)
    app.include_router(product_router(handlers, instance_id=server_router.INSTANCE_ID))
    app.include_router(ops_router(built))
    app.include_router(dashboard_router())
    gate = auth.Gate(
        host=chosen.api.host,
        key=key,
        keys=keys,
        rate_per_minute=chosen.api.rate_per_minute,
        hosts=chosen.api.hosts,
        clock=built.clock,
    )
    app.add_middleware(
        Boundary,
        body_bytes_max=chosen.api.body_bytes_max,
        gate=gate,
        body_silence_s=chosen.api.body_silence_s,
        drain=drain or Drain(),
    )
    # Outermost: a browser asks with OPTIONS, without the key, before it sends anything.
    if chosen.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(chosen.api.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-trace-id"],
            expose_headers=["x-trace-id"],
        )
    return app


def run(settings: Settings) -> None:
    """Serve until interrupted."""
    from memos.api.draining import serve

    drain = Drain()
    serve(
        create_app(settings=settings, drain=drain),
        drain,
        host=settings.api.host,
        port=settings.api.port,
        grace_s=settings.scheduler.stop_grace_s,
    )
