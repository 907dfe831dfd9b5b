"""Two users chat through the documented stream; the built-in handlers keep their working memories apart."""

import asyncio
import json
import os

os.environ["ENABLE_CHAT_API"] = "true"
os.environ["API_SCHEDULER_ON"] = "true"

from memos.api.product_models import APIADDRequest, APISearchRequest, ChatPlaygroundRequest
from memos.api.routers.server_router import (
    add_handler,
    chat_stream_playground,
    graph_db,
    mem_scheduler,
    search_handler,
)
from memos.mem_scheduler.schemas.task_schemas import QUERY_LABEL, QUERY_TASK_LABEL
from memos.memory.store import ItemFilter
from memos.testing import run_until_idle

assert QUERY_LABEL == QUERY_TASK_LABEL == "query"
SAID = {
    "ida": ["My sailing boat is called Petrel.", "The engine was repaired by Tomas in Harwich."],
    "kai": ["我的猫叫芒果。", "我住在杭州，对花粉过敏。"],
}
ASKED = {"ida": ("Who repaired the engine?", "Tomas"), "kai": ("我的猫叫什么名字？", "芒果")}


async def ask(user: str, query: str) -> tuple[list[str], str]:
    response = chat_stream_playground(
        ChatPlaygroundRequest(user_id=user, query=query, readable_cube_ids=[user], writable_cube_ids=[user])
    )
    buffer = "".join([chunk async for chunk in response.body_iterator])
    frames = [json.loads(part.removeprefix("data: ")) for part in buffer.split("\n\n") if part]
    return [frame["type"] for frame in frames], "".join(f["data"] for f in frames if f["type"] == "text")


async def both() -> list[tuple[list[str], str]]:
    return await asyncio.gather(*(ask(user, query) for user, (query, _) in ASKED.items()))


for user, lines in SAID.items():
    add_handler.handle_add_memories(
        APIADDRequest(
            user_id=user,
            writable_cube_ids=[user],
            messages=[{"role": "user", "content": line} for line in lines],
            async_mode="sync",
        )
    )
for (types, answer), (user, (_, wanted)) in zip(asyncio.run(both()), ASKED.items(), strict=True):
    assert types[:5] == ["status", "status", "reference", "pref_md_string", "reference"], types
    assert types[-1] == "end" and "error" not in types
    assert wanted in answer, (user, answer)
run_until_idle(mem_scheduler, timeout_s=60)
for user, lines in SAID.items():
    working = [item.memory for item in graph_db.working(user).items]
    assert any(line in working for line in lines), working
    assert not any(line in working for other in SAID if other != user for line in SAID[other])
    [newest] = graph_db.find(ItemFilter(cube_ids=(user,)), limit=1).items
    assert newest.turn_id and newest.role == "assistant", "the turn itself is stored"
    own = [item for item in graph_db.working(user).items if item.turn_id == newest.turn_id]
    assert not own, "a turn is no evidence for itself"
    found = search_handler.handle_search_memories(
        APISearchRequest(user_id=user, query=ASKED[user][0], readable_cube_ids=[user])
    )
    assert found.data["text_mem"][0]["memories"], user
labels = {log["label"] for log in mem_scheduler.get_web_log_messages()}
assert {"addMemory", "addMessage", "scheduleMemory"} <= labels, labels
mem_scheduler.stop()
mem_scheduler.stop()
print("OK two_users_chat")  # noqa: T201
