"""A process of its own that promotes working memory to a prefix of a llama.cpp server, and ends.

Run as a program with one JSON argument: `home`, `url` (the server's), `submit` (whether it submits the task),
`die` (kill itself between the commit of the task and the queue's finish).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_ACTIVATE_TASK_LABEL
from memos.runtime import build
from memos.settings import Settings

CUBE = USER = "u"
LEASE_MS = 1_000
DRAIN_S = 60.0


def settings_of(home: Path, url: str) -> Settings:
    """A runtime over `home` whose chats go to the server at `url`."""
    return Settings(
        home=home,
        models={"embedder": "none", "chat_base_url": url, "chat_model": "m"},
        scheduler={"enable_activation_memory": True, "act_mem_update_interval": 0.0, "model_steps": ()},
        activation={"backend": "llama_cpp", "queries_min": 0.0},
    )


def main(asked: dict[str, Any]) -> None:
    with build(settings_of(Path(asked["home"]), asked["url"]), start=False) as runtime:
        runtime.scheduler.orchestrator.tasks_min_idle_ms[MEM_ACTIVATE_TASK_LABEL] = LEASE_MS
        if asked["die"]:
            queue: Any = runtime.queue

            def deadly(*args: Any, **kwargs: Any) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            queue.finish = deadly
        if asked["submit"]:
            runtime.scheduler.submit_messages(
                ScheduleMessageItem(
                    user_id=USER, mem_cube_id=CUBE, label=MEM_ACTIVATE_TASK_LABEL, content="go"
                )
            )
        runtime.scheduler.start()
        sys.stdout.write("done\n" if runtime.drain(DRAIN_S) else "not drained\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
