"""The metrics of a worker over HTTP, for Prometheus: what this process counted, and its own levels.

The levels of queue and store are told by the servers of the HTTP API. There is no user, no memory text and no key
in them, and none is asked for: the default is the loopback, another address is the operator's choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memos.errors import ConfigError

if TYPE_CHECKING:
    from memos.runtime import Runtime


@contextmanager
def metrics_served(runtime: Runtime, host: str, port: int | None) -> Iterator[int | None]:
    """Serve while the block runs; gives the port, None when none was asked for. Raises ConfigError."""
    if port is None:
        yield None
        return
    from prometheus_client import start_http_server

    from memos.api.metrics_page import MetricsPage

    try:
        server, thread = start_http_server(
            port, addr=host, registry=MetricsPage(runtime, shared=False).registry
        )
    except (OSError, OverflowError) as error:
        raise ConfigError(f"metrics cannot be served on {host}:{port}: {error}") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
