"""A task of your own: a label, a function for it, and messages that are run behind your program's back.

python examples/custom_handler.py
"""

import os
import tempfile
import time

# A folder of its own, so that the example leaves your memories alone.
os.environ.setdefault("MEMOS_HOME", tempfile.mkdtemp(prefix="memos-example-"))

from memos.api.routers.server_router import mem_scheduler
from memos.errors import RetryLater
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

GREETING_LABEL = "greeting"
WAIT_S = 10

greeted: list[str] = []
refused_once: set[str] = set()


def greet(messages: list[ScheduleMessageItem]) -> None:
    """Called on a worker thread, with one message or several of one user and cube."""
    for message in messages:
        if "patience" in message.content and message.item_id not in refused_once:
            refused_once.add(message.item_id)
            print(f"  not yet: {message.content!r} runs again in a moment")
            # What a handler may raise: see docs/reference/errors.md
            raise RetryLater(0.2, reason="the line is busy")
        greeted.append(message.content)
        print(f"  {message.user_id} in {message.mem_cube_id}: {message.content}")


def main() -> None:
    mem_scheduler.register_handlers({GREETING_LABEL: greet})
    print("submitting three tasks; the program goes on while they run")
    texts = ["hello", "this one needs patience", "goodbye"]
    mem_scheduler.submit_messages(
        [
            ScheduleMessageItem(
                user_id="user_123", mem_cube_id="cube_001", label=GREETING_LABEL, content=text
            )
            for text in texts
        ]
    )

    # A real program has other things to do. This one waits, so that there is something to see.
    deadline = time.monotonic() + WAIT_S
    while len(greeted) < len(texts) and time.monotonic() < deadline:
        time.sleep(0.05)

    status = mem_scheduler.get_tasks_status()
    print(f"{len(greeted)} greeted, {status['remaining']} waiting, {status['running']} running")
    mem_scheduler.stop()


if __name__ == "__main__":
    main()
