"""A process of its own over the whole runtime, which does as it is told and can be made to kill itself.

Run as a program with the home as its argument; address, schema and role of a PostgreSQL store may follow. Commands come as JSON lines on stdin, one answer each on
stdout. `arm` wraps the store's commit or the queue's `finish`, in this process only: at the wanted label
the process sends itself SIGKILL, after the commit or before the finish, and only once the command that
it is carrying out is answered, so that what is lost is never what nobody had accepted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from memos.api.handlers import Handlers, handlers_of
from memos.api.product_models import (
    APIADDRequest,
    APIChatCompleteRequest,
    APIFeedbackRequest,
    APISearchRequest,
    DeleteMemoryRequest,
)
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.runtime import Runtime, build
from memos.settings import Settings, StoreSettings

CUBE, USER, SESSION = "c", "u", "s"
LABELS = ("query", "answer", "add", "mem_update", "mem_feedback", "mem_read", "mem_organize")
LEASE_MS = 1_000
DRAIN_S = 30.0
SUBMITTED_S = 10.0


class Child:
    """The commands, by their names."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.handlers: Handlers = handlers_of(runtime)
        self.quiet = threading.Event()  # no command is half-way
        self.quiet.set()

    def do(self, name: str, **arguments: Any) -> Any:
        """Carry out one command."""
        return getattr(self, f"do_{name}")(**arguments)

    def do_arm(self, label: str, where: str) -> None:
        store: Any = self.runtime.store
        queue: Any = self.runtime.queue
        if where == "commit":
            store.apply_once = self._deadly(store.apply_once, label)
            store.apply = self._deadly_request(store.apply, label)
        else:
            finish = queue.finish

            def deadly(batch: Any, *args: Any, **kwargs: Any) -> Any:
                if label in {delivery.message.label for delivery in batch.deliveries}:
                    self._die()
                return finish(batch, *args, **kwargs)

            queue.finish = deadly

    def do_start(self) -> None:
        self.runtime.scheduler.start()

    def do_drain(self) -> bool:
        done = self.runtime.drain(DRAIN_S)
        self.runtime.scheduler.keep_house()
        return done

    def do_add(self, text: str) -> list[str]:
        asked = APIADDRequest(
            user_id=USER,
            writable_cube_ids=[CUBE],
            session_id=SESSION,
            messages=[{"role": "user", "content": text}],
            async_mode="async",
        )
        return [row["memory_id"] for row in self.handlers.add.handle_add_memories(asked).data]

    def do_feedback(self, text: str, ids: list[str]) -> None:
        self.handlers.feedback.handle_feedback_memories(
            APIFeedbackRequest(
                user_id=USER,
                writable_cube_ids=[CUBE],
                session_id=SESSION,
                feedback_content=text,
                history=[],
                retrieved_memory_ids=ids,
                async_mode="async",
            )
        )

    def do_chat(self, text: str) -> str:
        asked = APIChatCompleteRequest(
            user_id=USER,
            readable_cube_ids=[CUBE],
            writable_cube_ids=[CUBE],
            session_id=SESSION,
            query=text,
            add_message_on_answer=False,
        )
        return self.handlers.chat_service.answer(asked).response

    def do_search(self, text: str) -> list[str]:
        asked = APISearchRequest(user_id=USER, readable_cube_ids=[CUBE], query=text, top_k=20)
        found = self.handlers.search.handle_search_memories(asked).data
        return [one["memory"] for bucket in found["text_mem"] for one in bucket["memories"]]

    def do_delete(self, ids: list[str]) -> int:
        asked = DeleteMemoryRequest(writable_cube_ids=[CUBE], memory_ids=ids)
        return int(self.handlers.memory.handle_delete_memories(asked).data["deleted"])

    def do_submit(self, label: str, content: str, info: dict[str, Any] | None = None) -> None:
        self.runtime.scheduler.submit_messages(
            [ScheduleMessageItem(user_id=USER, mem_cube_id=CUBE, label=label, content=content, info=info)]
        )

    def _die(self) -> None:
        self.quiet.wait(SUBMITTED_S)
        os.kill(os.getpid(), signal.SIGKILL)

    def _deadly(self, commit: Callable[..., Any], label: str) -> Callable[..., Any]:
        def deadly(*args: Any, **kwargs: Any) -> Any:
            applied = commit(*args, **kwargs)
            if kwargs["cause"].label == label and applied.fresh:
                self._die()
            return applied

        return deadly

    @staticmethod
    def _deadly_request(commit: Callable[..., Any], label: str) -> Callable[..., Any]:
        """What a request commits itself, without a task: it dies before it can answer."""

        def deadly(*args: Any, **kwargs: Any) -> Any:
            applied = commit(*args, **kwargs)
            if label == "request":
                os.kill(os.getpid(), signal.SIGKILL)
            return applied

        return deadly


def answer(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main(home: Path, url: str = "", schema: str = "", role: str = "") -> None:
    store = StoreSettings(url=SecretStr(url), schema_name=schema, role=role) if url else StoreSettings()
    with build(Settings(home=home, store=store), start=False) as runtime:
        for label in LABELS:
            runtime.scheduler.orchestrator.tasks_min_idle_ms[label] = LEASE_MS
        child = Child(runtime)
        answer("ready")
        for line in sys.stdin:
            child.quiet.clear()
            answer(child.do(**json.loads(line)))
            child.quiet.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
