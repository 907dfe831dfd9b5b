"""A conversation with memory: what was said is stored, questions are answered from it, and two handlers of
your own watch every query and recall what it needs.

    python examples/conversation.py
"""

import asyncio
import json
import os
import tempfile
import time

# Settings are read when a name of the router is used for the first time.
os.environ.setdefault("MEMOS_HOME", tempfile.mkdtemp(prefix="memos-example-"))
os.environ["ENABLE_CHAT_API"] = "true"
os.environ["MOS_ENABLE_SCHEDULER"] = "true"
os.environ["MOS_SCHEDULER_USE_REDIS_QUEUE"] = "false"

from memos.api.product_models import APIADDRequest, ChatPlaygroundRequest
from memos.api.routers.server_router import add_handler, chat_stream_playground, mem_scheduler
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import MEM_UPDATE_TASK_LABEL, QUERY_TASK_LABEL

USER_ID = "example_user"
CUBE_ID = "example_cube"
WAIT_S = 10

CONVERSATION = [
    {"role": "user", "content": "Our golden retriever puppy is named Max."},
    {"role": "assistant", "content": "Max is a good name for a golden retriever."},
    {"role": "user", "content": "Peanut butter is his favourite treat, but I am allergic to nuts."},
    {"role": "assistant", "content": "Peanut butter for Max, then, and no nuts for you."},
]
QUESTIONS = ["What is my dog's name?", "What am I allergic to?"]


def on_query(messages: list[ScheduleMessageItem]) -> None:
    """In place of the built-in handler of queries: ask for an update of working memory."""
    for message in messages:
        print(f"  [query]      {message.content}")
        mem_scheduler.submit_messages([message.model_copy(update={"label": MEM_UPDATE_TASK_LABEL})])


def on_memory_update(messages: list[ScheduleMessageItem]) -> None:
    """In place of the built-in update: recall the two memories that fit best."""
    for message in messages:
        results = mem_scheduler.retriever.search(
            query=message.content,
            user_id=message.user_id,
            mem_cube_id=message.mem_cube_id,
            mem_cube=mem_scheduler.current_mem_cube,
            top_k=2,
            method=mem_scheduler.search_method,
        )
        for memory in results:
            print(f"  [recalled]   {memory.memory}")


async def ask(question: str) -> str:
    """Stream one answer, as a browser would."""
    request = ChatPlaygroundRequest(
        user_id=USER_ID, query=question, readable_cube_ids=[CUBE_ID], writable_cube_ids=[CUBE_ID]
    )
    answer, buffer = "", ""
    async for chunk in chat_stream_playground(request).body_iterator:
        buffer += chunk if isinstance(chunk, str) else bytes(chunk).decode()
        while "\n\n" in buffer:
            frame, buffer = buffer.split("\n\n", 1)
            event = json.loads(frame.removeprefix("data: "))
            if event["type"] == "text":
                answer += event["data"]
            elif event["type"] == "error":
                raise SystemExit(f"the answer failed: {event}")
    return answer


def wait_until_idle() -> None:
    """Give the scheduler time to finish what it was given."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        status = mem_scheduler.get_tasks_status()
        if not status["remaining"] and not status["running"]:
            return
        time.sleep(0.05)


def main() -> None:
    mem_scheduler.register_handlers({QUERY_TASK_LABEL: on_query, MEM_UPDATE_TASK_LABEL: on_memory_update})
    if not mem_scheduler._running:
        mem_scheduler.start()
    added = add_handler.handle_add_memories(
        APIADDRequest(user_id=USER_ID, writable_cube_ids=[CUBE_ID], messages=CONVERSATION, async_mode="sync")
    )
    print(f"{len(added.data or [])} memories stored")
    for question in QUESTIONS:
        print(f"\n>> {question}")
        print(f"<< {asyncio.run(ask(question))}")
        wait_until_idle()
    print("\nWhat the scheduler logged")
    for log in mem_scheduler.get_web_log_messages():
        print(f"  {log['label']:<12} {log['log_content']}")
    mem_scheduler.stop()


if __name__ == "__main__":
    main()
