"""The documented module: importing it costs nothing, using it builds once, every process its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def run(program: str, home: Path, **environment: str) -> str:
    """The output of a program in a process of its own; its exit code must be 0."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"MEMOS_HOME": str(home), "MEMOS_MODELS__EMBEDDER": "none"} | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_no_vendor_and_reads_no_environment(tmp_path: Path) -> None:
    """After the import, and after dir(), no heavy package is loaded and nothing is on disk."""
    out = run(
        """
        import sys
        import memos.api.routers.server_router as router
        from memos.api import handlers
        from memos.api.handlers.base_handler import HandlerDependencies
        from memos.api.product_models import APIADDRequest, ChatPlaygroundRequest
        assert "mem_scheduler" in dir(router) and "router" in dir(router)
        vendors = ("fastapi", "starlette", "numpy", "onnxruntime", "openai", "redis", "torch", "uvicorn")
        print([name for name in vendors if name in sys.modules])
        """,
        tmp_path / "home",
        MEMOS_NO_SUCH_SETTING="1",
    )
    assert out.strip() == "[]"
    assert not (tmp_path / "home").exists()


def test_every_documented_name_is_there_and_stays_the_same_object(tmp_path: Path) -> None:
    """All names resolve, twice to the same objects, and agree with `init_server()`; an unknown one does not."""
    out = run(
        """
        from memos.api import handlers
        from memos.api.routers import server_router as router
        names = ("router components dependencies search_handler add_handler feedback_handler cube_handler "
                 "mem_scheduler naive_mem_cube status_tracker graph_db INSTANCE_ID").split()
        first = {name: getattr(router, name) for name in names}
        assert all(value is not None for value in first.values()), first
        assert all(getattr(router, name) is value for name, value in first.items())
        assert router.chat_handler is None and router.llm is None and router.redis_client is None
        assert handlers.init_server() is handlers.init_server() is router.components
        assert router.components["mem_scheduler"] is router.mem_scheduler
        assert router.router.prefix == "/product"
        assert router.mem_scheduler._running
        host, pid, random = router.INSTANCE_ID.rsplit(":", 2)
        import os
        assert int(pid) == os.getpid() and host and random
        for name in ("no_such_name", "_private"):
            try:
                getattr(router, name)
            except AttributeError as error:
                print(error)
        """,
        tmp_path,
    )
    assert out.count("has no attribute") == 2


def test_threads_that_come_together_build_once(tmp_path: Path) -> None:
    """Eight first accesses at the same time give one scheduler."""
    out = run(
        """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from memos.api.routers import server_router as router
        barrier = threading.Barrier(8)
        def first(_):
            barrier.wait()
            return id(router.mem_scheduler), id(router.components)
        with ThreadPoolExecutor(8) as pool:
            print(len(set(pool.map(first, range(8)))))
        """,
        tmp_path,
    )
    assert out.strip() == "1"


def test_chat_is_off_by_default_and_answers_503(tmp_path: Path) -> None:
    """Without ENABLE_CHAT_API the plain function raises HTTP 503; with it it streams str frames."""
    program = """
        import asyncio
        from memos.api.product_models import ChatPlaygroundRequest
        from memos.api.routers.server_router import chat_handler, chat_stream_playground
        from fastapi import HTTPException
        request = ChatPlaygroundRequest(user_id="u", query="Where is the key?")
        try:
            response = chat_stream_playground(request)
        except HTTPException as error:
            print(error.status_code, chat_handler)
        else:
            async def read():
                return [chunk async for chunk in response.body_iterator]
            chunks = asyncio.run(read())
            print(type(response).__name__, {type(chunk).__name__ for chunk in chunks}, chunks[-1].strip())
        """
    assert run(program, tmp_path / "off") == "503 None\n"
    out = run(program, tmp_path / "on", ENABLE_CHAT_API="true")
    assert out == 'StreamingResponse {\'str\'} data: {"type": "end"}\n'


def test_what_goes_wrong_while_building_is_told_and_can_be_mended(tmp_path: Path) -> None:
    """A build that fails raises the real error, not an import error, and works after the cause is gone."""
    out = run(
        """
        import os
        from memos.errors import ConfigError
        from memos.runtime import Runtime
        os.environ["MEMOS_QUEUE__BACKEND"] = "rabbits"
        try:
            from memos.api.routers.server_router import mem_scheduler
        except ConfigError as error:
            print("config:", "rabbits" in str(error))
        del os.environ["MEMOS_QUEUE__BACKEND"]

        import memos.runtime as runtime
        real = runtime.build
        def broken(*args, **kwargs):
            return None.no_such_part
        runtime.build = broken
        try:
            from memos.api.routers.server_router import mem_scheduler
        except ImportError:
            print("hidden")
        except ConfigError as error:
            print("wrapped:", "no_such_part" in str(error), type(error.__cause__).__name__)
        runtime.build = real
        from memos.api.routers.server_router import mem_scheduler
        print("mended:", mem_scheduler._running)
        """,
        tmp_path,
    )
    assert out.splitlines() == ["config: True", "wrapped: True AttributeError", "mended: True"]


def test_a_forked_child_has_its_own_components(tmp_path: Path) -> None:
    """A child of a process that built its server builds another one, which works and shares the store."""
    out = run(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from memos.api.product_models import APIADDRequest
        from memos.api.routers import server_router as router
        from memos.testing import run_until_idle
        parent, instance = id(router.mem_scheduler), router.INSTANCE_ID
        router.add_handler.handle_add_memories(APIADDRequest(user_id="u", messages="from the parent"))
        run_until_idle(router.mem_scheduler)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            assert id(router.mem_scheduler) != parent and router.INSTANCE_ID != instance
            assert router.mem_scheduler._running
            router.add_handler.handle_add_memories(APIADDRequest(user_id="u", messages="from the child"))
            run_until_idle(router.mem_scheduler)
            print("child", router.graph_db.sizes("u").long_term, flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert id(router.mem_scheduler) == parent
        print("parent", router.graph_db.sizes("u").long_term)
        """,
        tmp_path,
    )
    assert out.splitlines() == ["child 2", "parent 2"]


def test_a_program_that_never_stops_anything_ends_and_keeps_its_memories(tmp_path: Path) -> None:
    """Without stop() the process ends with 0 by itself, and what it added is there for the next one."""
    run(
        """
        from memos.api.product_models import APIADDRequest
        from memos.api.routers.server_router import add_handler
        add_handler.handle_add_memories(APIADDRequest(user_id="u", messages="The key is blue."))
        """,
        tmp_path,
    )
    out = run(
        """
        from memos.api.product_models import APISearchRequest
        from memos.api.routers.server_router import search_handler
        found = search_handler.handle_search_memories(APISearchRequest(user_id="u", query="blue key"))
        print(found.data["text_mem"][0]["memories"][0]["memory"])
        """,
        tmp_path,
    )
    assert out == "The key is blue.\n"


def test_the_parents_objects_are_refused_in_a_forked_child(tmp_path: Path) -> None:
    """A name taken before the fork neither loses a message nor writes through the parent's connection."""
    out = run(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from memos.api.product_models import APIADDRequest
        from memos.api.routers.server_router import add_handler, graph_db, mem_scheduler
        from memos.errors import QueueUnavailable, StoreUnavailable
        from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
        from memos.memory.store import ItemFilter
        task = ScheduleMessageItem(user_id="u", mem_cube_id="u", label="job", content="x")
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            for kind, step in (
                (StoreUnavailable, lambda: add_handler.handle_add_memories(
                    APIADDRequest(user_id="u", messages="from the child"))),
                (StoreUnavailable, lambda: graph_db.find(ItemFilter())),
                (QueueUnavailable, lambda: mem_scheduler.submit_messages(task)),
                (QueueUnavailable, mem_scheduler.start),
            ):
                try:
                    step()
                except kind as error:
                    print("fork" in str(error), flush=True)
            graph_db.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        add_handler.handle_add_memories(APIADDRequest(user_id="u", messages="from the parent"))
        print(graph_db.sizes("u").long_term, graph_db.verify())
        """,
        tmp_path,
    )
    assert out.splitlines() == ["True"] * 4 + ["1 []"]
