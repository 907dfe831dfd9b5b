"""The names that documents print lead to the parts that do the work."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from memos.configs.mem_scheduler import GeneralSchedulerConfig
from memos.mem_scheduler.general_scheduler import GeneralScheduler
from memos.mem_scheduler.modules.dispatcher import SchedulerDispatcher
from memos.mem_scheduler.modules.monitor import SchedulerMonitor
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import ANSWER_LABEL, QUERY_LABEL
from memos.runtime import build
from memos.settings import ModelSettings, Settings

SETTINGS = ModelSettings(embedder="none")


def test_the_dispatcher_has_the_handlers(tmp_path: Path) -> None:
    """`SchedulerDispatcher.handlers` shows the function of each label, one's own included."""
    with build(Settings(home=tmp_path, models=SETTINGS), start=False) as runtime:
        dispatcher = runtime.scheduler.dispatcher
        assert isinstance(dispatcher, SchedulerDispatcher)

        def mine(messages: list[ScheduleMessageItem]) -> None:
            """Never run here."""

        runtime.scheduler.register_handlers({"mine": mine})
        assert dispatcher.handlers["mine"] is mine
        assert {QUERY_LABEL, ANSWER_LABEL} <= dispatcher.handlers.keys()


def test_the_monitor_detects_intent_both_ways(tmp_path: Path) -> None:
    """`SchedulerMonitor.detect_intent` asks for recall when working memory lacks something, and not otherwise."""
    with build(Settings(home=tmp_path, models=SETTINGS), start=False) as runtime:
        monitor = runtime.scheduler.monitor
        assert isinstance(monitor, SchedulerMonitor)
        [name] = runtime.scheduler.current_mem_cube.text_mem.add(
            ["The ferry to Oakfield leaves the north pier at noon."]
        )
        working = runtime.store.get([name])
        lacking = monitor.detect_intent("Which vet vaccinates Max?", working)
        assert lacking.trigger_retrieval and lacking.missing_evidence == ("Which vet vaccinates Max?",)
        enough = monitor.detect_intent(
            "When does the ferry to Oakfield leave the north pier, at noon?", working
        )
        assert not enough.trigger_retrieval and enough.missing_evidence == ()


def test_the_consumer_thread_runs_the_documented_loop(tmp_path: Path) -> None:
    """`start` runs `_message_consumer` on a thread of its own, so that a subclass can wrap it."""
    seen: list[str] = []
    entered = threading.Event()

    class Watched(GeneralScheduler):
        def _message_consumer(self, *parts: Any) -> None:
            seen.append(threading.current_thread().name)
            entered.set()
            super()._message_consumer(*parts)

    with build(Settings(home=tmp_path, models=SETTINGS), start=False) as runtime:
        scheduler = Watched(
            GeneralSchedulerConfig(), queue=runtime.queue, services=runtime.scheduler.services
        )
        scheduler.start()
        assert entered.wait(10)
        scheduler.stop()
    assert seen == ["memos-consumer"]


def test_importing_the_facades_costs_nothing() -> None:
    """The facades load no model, no web framework and no numbers library before they are used."""
    program = (
        "import sys\n"
        "import memos.mem_os, memos.mem_cube.general, memos.memories.textual.tree\n"
        "import memos.memories.textual.item, memos.mem_scheduler.modules.monitor\n"
        "import memos.mem_scheduler.modules.dispatcher, memos.mem_scheduler.scheduler_factory\n"
        "heavy = {'onnxruntime', 'fastapi', 'starlette', 'numpy', 'torch', 'openai'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", "")
