"""A process of its own whose scheduler asks a model over HTTP: it submits, works until nothing is left, and ends.

Run as a program with one JSON argument: `home`, `url` (the model's), `label` and `content` of a message to
submit ("" for none), `die` (a label at whose finish, after the commit, it kills itself).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import build
from memos.settings import Settings

CUBE, USER = "c", "u"
LEASE_MS = 1_000
DRAIN_S = 60.0


def settings_of(home: Path, url: str) -> Settings:
    """A runtime over `home` that has no embedder and asks the model at `url`."""
    return Settings(home=home, models={"embedder": "none", "chat_base_url": url, "chat_model": "m"})


def main(asked: dict[str, Any]) -> None:
    with build(settings_of(Path(asked["home"]), asked["url"]), start=False) as runtime:
        for label in ("mem_update", "pref_add", "mem_feedback", "mem_organize", "mem_read"):
            runtime.scheduler.orchestrator.tasks_min_idle_ms[label] = LEASE_MS
        if asked["die"]:
            queue: Any = runtime.queue
            finish = queue.finish

            def deadly(batch: Any, *args: Any, **kwargs: Any) -> Any:
                if asked["die"] in {delivery.message.label for delivery in batch.deliveries}:
                    os.kill(os.getpid(), signal.SIGKILL)
                return finish(batch, *args, **kwargs)

            queue.finish = deadly
        if asked["label"]:
            runtime.scheduler.submit_messages(
                [
                    ScheduleMessageItem(
                        user_id=USER, mem_cube_id=CUBE, label=asked["label"], content=asked["content"]
                    )
                ]
            )
        runtime.scheduler.start()
        sys.stdout.write("done\n" if runtime.drain(DRAIN_S) else "not drained\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
