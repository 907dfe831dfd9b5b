"""The MCP server over stdio, spoken to by the official client."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from memos.runtime import build
from memos.settings import Settings


def told(result: Any) -> dict[str, Any]:
    assert not result.is_error, result.content
    return dict(json.loads(result.content[0].text))


async def conversation(home: Path) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "memos.cli", "mcp", "--user", "alice"],
        env={**os.environ, "MEMOS_HOME": str(home), "MEMOS_MODELS__EMBEDDER": "none"},
    )
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        tools = {tool.name for tool in (await session.list_tools()).tools}
        assert tools == {"add", "search", "feedback", "explain", "forget"}

        async def call(name: str, **arguments: Any) -> Any:
            return await session.call_tool(name, arguments)

        added = told(await call("add", text="My boat is called Petrel."))
        [memory] = added["memories"]
        found = told(await call("search", query="What is my boat called?"))
        assert found["memories"][0]["memory"] == "My boat is called Petrel."
        why = told(await call("explain", query="boat called", memory_id=memory["memory_id"]))
        assert why["verdict"] == "found"
        changed = told(
            await call(
                "feedback",
                text="No, my boat is called Kestrel.",
                question="What is my boat called?",
                answer="Petrel.",
            )
        )
        assert changed["changes"][0]["status"] == "completed"
        held = told(await call("add", text="my api key is sk-abcdefghijklmnopqrstuvwxyz123456"))
        assert held["quarantined"]
        for name, arguments in (
            ("add", {"text": ""}),
            ("forget", {"memory_ids": ["nowhere"]}),
            ("explain", {"query": "q"}),
            ("search", {"query": "q", "top_k": 0}),
        ):
            refused = await call(name, **arguments)
            assert refused.is_error and "Traceback" not in str(refused.content)
        assert told(await call("forget", memory_ids=[memory["memory_id"]])) == {"deleted": 1}
        gone = told(await call("explain", query="boat called", memory_id=memory["memory_id"]))
        assert gone["verdict"] == "deleted"


@pytest.mark.timeout(90)
def test_an_agent_can_use_the_memory(tmp_path: Path) -> None:
    """Five tools: what is added is found, explained, corrected and forgotten; errors are tool errors; the
    memory that another program finds afterwards is that of the user the server was started for."""
    asyncio.run(asyncio.wait_for(conversation(tmp_path / "home"), 80))
    with build(Settings(home=tmp_path / "home", models={"embedder": "none"}), start=False) as runtime:
        assert runtime.store.cubes() == ["alice"]
