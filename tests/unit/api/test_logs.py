"""Web logs over HTTP: pages, the live stream, and who may read them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from memos.api.access import Principal, Role, become, forget
from memos.api.app import create_app
from memos.api.handlers import handlers_of
from memos.api.handlers.logs import STREAMS_MAX, LogHandler, LogQuery
from memos.api.keys import KeyFile
from memos.api.log_models import LogRow
from memos.errors import QueueFull
from memos.mem_scheduler.schemas.web_log_schemas import ScheduleLogForWebItem
from memos.runtime import Runtime


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def tell(runtime: Runtime, text: str, *, user: str = "u", cube: str = "u", label: str = "addMessage") -> None:
    entry = ScheduleLogForWebItem(
        user_id=user, mem_cube_id=cube, label=label, log_content=text, trace_id=f"t-{text}"
    )
    runtime.store.apply([], logs=[entry])


def texts(rows: list[LogRow]) -> list[str]:
    return [str(row["log"]["log_content"]) for row in rows]


def test_logs_come_newest_first_in_pages(client: TestClient, runtime: Runtime) -> None:
    """Pages follow each other without a gap, and every condition narrows."""
    for number in range(5):
        tell(runtime, str(number), label="addMemory" if number % 2 else "addMessage")
    tell(runtime, "other", user="v", cube="v")
    first = client.get("/product/scheduler/logs?user_id=u&limit=3").json()
    assert texts(first["data"]) == ["4", "3", "2"]
    rest = client.get(f"/product/scheduler/logs?user_id=u&limit=3&before={first['next_before']}").json()
    assert texts(rest["data"]) == ["1", "0"] and rest["next_before"] is None
    narrow = client.get("/product/scheduler/logs?mem_cube_id=u&label=addMemory&trace_id=t-3").json()
    assert texts(narrow["data"]) == ["3"]
    assert texts(client.get("/product/scheduler/logs").json()["data"])[0] == "other"
    assert client.get("/product/scheduler/logs?limit=0").status_code == 422


def test_a_key_reads_the_logs_of_its_scope(client: TestClient, runtime: Runtime) -> None:
    """A user's logs in a cube that is not in the scope are left out; those of everybody are refused."""
    tell(runtime, "own")
    tell(runtime, "in another cube", cube="secret")
    _, text = KeyFile(runtime.settings.keys_path).create("k", role=Role.READ_ONLY, users=("u",), cubes=())
    headers = {"authorization": f"Bearer {text}"}
    own = client.get("/product/scheduler/logs?user_id=u", headers=headers).json()
    assert texts(own["data"]) == ["own"]
    for query in ("", "?user_id=v", "?mem_cube_id=secret"):
        assert client.get(f"/product/scheduler/logs{query}", headers=headers).status_code == 403


async def first_rows(logs: LogHandler, asked: LogQuery, *, after: int, count: int) -> list[LogRow]:
    rows: list[LogRow] = []
    async for row in logs.follow(asked, after=after):
        if row is not None:
            rows.append(row)
        if len(rows) == count:
            return rows
    return rows


def test_the_stream_has_no_gap(runtime: Runtime) -> None:
    """It goes on after a number through more than a page, then shows what happens meanwhile, in order."""
    logs = handlers_of(runtime).logs
    for number in range(3):
        tell(runtime, str(number))
    entries = [
        ScheduleLogForWebItem(user_id="u", mem_cube_id="u", label="addMessage", log_content=f"many {number}")
        for number in range(1_100)
    ]
    runtime.store.apply([], logs=entries)

    async def read() -> list[LogRow]:
        follower = asyncio.create_task(first_rows(logs, LogQuery(user_id="u"), after=1, count=1_103))
        await asyncio.sleep(0)
        tell(runtime, "live")
        return await asyncio.wait_for(follower, 30)

    rows = asyncio.run(read())
    assert texts(rows) == ["1", "2", *(f"many {number}" for number in range(1_100)), "live"]
    assert [row["number"] for row in rows] == sorted(row["number"] for row in rows)


def test_the_stream_stays_in_the_scope(runtime: Runtime) -> None:
    """What a key may not see never comes, while it happens either."""
    logs = handlers_of(runtime).logs
    tell(runtime, "hidden", cube="secret")
    tell(runtime, "shown")
    token = become(Principal("k", Role.USER, frozenset({"u"}), frozenset()))
    try:
        rows = asyncio.run(first_rows(logs, LogQuery(user_id="u"), after=0, count=1))
    finally:
        forget(token)
    assert texts(rows) == ["shown"]


def test_frames_carry_their_number(runtime: Runtime) -> None:
    """A frame is an id line and the data, so that a browser goes on where it was cut off."""
    from memos.api.routers.scheduler import _log_frames

    tell(runtime, "first")

    async def two() -> list[str]:
        frames = _log_frames(handlers_of(runtime).logs, LogQuery(), 0)
        got = [await anext(frames), await anext(frames)]
        await frames.aclose()  # type: ignore[attr-defined]
        return got

    opening, frame = asyncio.run(two())
    number, data = frame.rstrip("\n").split("\n")
    assert opening.startswith(":") and number == "id: 1"
    assert json.loads(data.removeprefix("data: "))["log"]["log_content"] == "first"


def test_streams_are_bounded(runtime: Runtime) -> None:
    """One stream too many is refused, and a closed one gives its place back."""
    logs = LogHandler(runtime.store)
    places = [logs.stream_place() for _ in range(STREAMS_MAX)]
    for place in places:
        place.__enter__()
    with pytest.raises(QueueFull), logs.stream_place():
        pass
    places.pop().__exit__(None, None, None)
    with logs.stream_place():
        pass
