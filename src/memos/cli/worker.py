"""`memos worker`: a process that runs tasks, beside others on this machine or (with Redis) on many."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from memos.cli.terminal import errors, plain
from memos.errors import ConfigError

Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", "-l", help="Serve these labels only: repeat it, or separate by commas."),
]
Modules = Annotated[
    list[str] | None,
    typer.Option("--import", "-i", help="A module with handlers of yours; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("worker")(worker)


def worker(
    labels: Labels = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", min=1, max=10_000, help="Handlers at a time.")
    ] = None,
    modules: Modules = None,
    name: Annotated[str, typer.Option("--name", help="Begins the name that status shows.")] = "",
    grace: Annotated[
        float | None, typer.Option("--grace", min=0, help="Seconds that running tasks may still take.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", min=0, max=65535, help="Serve this process's metrics; 0: any port."),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option("--metrics-host", help="Where metrics are served; they ask for no key.")
    ] = "127.0.0.1",
) -> None:
    """Run tasks until SIGTERM or Ctrl-C, then finish what runs; the second signal hands it back at once.

    Exit code 0: all that ran was finished; 3: some was handed back and runs again elsewhere.
    """
    from memos.settings import Settings
    from memos.worker.metrics_server import metrics_served
    from memos.worker.serve import drain, pin_threads, refuse_local_queue, wait_for_stop
    from memos.worker.signals import StopSignals

    settings = Settings.load()
    refuse_local_queue(settings, "a worker")
    changes: dict[str, object] = {"enabled": True, "startup_mode": "thread"}
    if labels:
        changes["labels"] = tuple(part.strip() for text in labels for part in text.split(",") if part.strip())
    if concurrency is not None:
        changes["workers"] = concurrency
    if name:
        changes["name"] = name
    settings = settings.model_copy(update={"scheduler": settings.scheduler.model_copy(update=changes)})
    pin_threads()
    with StopSignals() as signals:
        from memos import runtime as root
        from memos.worker.modules import load_handlers

        with root.build(settings, start=False) as runtime, root.adopted(runtime):
            scheduler = runtime.scheduler
            load_handlers(scheduler, modules or ())
            missing = set(settings.scheduler.labels) - set(scheduler.handlers)
            if missing:
                raise ConfigError(
                    f"no handler for {', '.join(sorted(missing))}; name the module that registers it "
                    "by --import"
                )
            scheduler.start()
            served = sorted(scheduler.served_labels())
            errors.print(
                plain(
                    f"worker {settings.scheduler.name or socket.gethostname()}:{os.getpid()} "
                    f"({settings.scheduler.workers} at a time): {', '.join(served)}"
                ),
                soft_wrap=True,
            )
            with metrics_served(runtime, metrics_host, metrics_port) as port:
                if port is not None:
                    errors.print(plain(f"metrics on http://{metrics_host}:{port}/metrics"), soft_wrap=True)
                wait_for_stop(signals)
                code = drain(scheduler, signals, grace_s=grace)
    sys.exit(code)
