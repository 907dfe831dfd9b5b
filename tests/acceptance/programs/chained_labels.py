"""A chain of custom labels over two cubes: every link runs once, in the cube of its own message."""

import asyncio
import threading

from memos.api.product_models import APIADDRequest
from memos.api.routers.server_router import add_handler, mem_scheduler
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.testing import run_until_idle

lock = threading.Lock()
trail: list[tuple[str, str, str]] = []
found: dict[str, str] = {}
attempts: dict[str, int] = {}

for cube, text in (("kitchen", "The oven runs at 180 degrees."), ("garage", "The van needs new tyres.")):
    add_handler.handle_add_memories(
        APIADDRequest(user_id="jo", writable_cube_ids=[cube], messages=text, async_mode="async")
    )


def note(message: ScheduleMessageItem) -> None:
    with lock:
        trail.append((message.label, message.item_id, mem_scheduler.current_mem_cube.cube_id))


def first(messages):
    for message in messages:
        note(message)
        mem_scheduler.submit_messages([message.model_copy(update={"label": "second"})])


async def second(messages):
    for message in messages:
        await asyncio.sleep(0)
        note(message)
        mem_scheduler.submit_messages([message.model_copy(update={"label": "third"})])


def third(messages):
    for message in messages:
        with lock:
            attempts[message.item_id] = attempts.get(message.item_id, 0) + 1
            failing = attempts[message.item_id] == 1
        if failing:
            raise RuntimeError("the first try always fails")
        note(message)
        cube = mem_scheduler.current_mem_cube
        hits = mem_scheduler.retriever.search(
            query=message.content,
            user_id=message.user_id,
            mem_cube_id=message.mem_cube_id,
            mem_cube=cube,
            top_k=3,
            method=mem_scheduler.search_method,
            search_args={},
        )
        with lock:
            found[message.mem_cube_id] = hits[0].memory
            assert [one.memory for one in cube.text_mem.get_all()] == [hits[0].memory]


mem_scheduler.register_handlers({"third": third, "first": first, "second": second})
mem_scheduler.submit_messages(
    [
        ScheduleMessageItem(
            item_id=f"t{number}",
            user_id="jo",
            mem_cube_id=("kitchen", "garage")[number % 2],
            label="first",
            content=("what about the oven degrees", "which tyres")[number % 2],
        )
        for number in range(6)
    ]
)
run_until_idle(mem_scheduler, timeout_s=60)
expected = {
    (label, f"t{number}", ("kitchen", "garage")[number % 2])
    for label in ("first", "second", "third")
    for number in range(6)
}
assert set(trail) == expected and len(trail) == len(expected), trail
assert found == {"kitchen": "The oven runs at 180 degrees.", "garage": "The van needs new tyres."}
assert set(attempts.values()) == {2}, attempts
print("OK chained_labels")  # noqa: T201
