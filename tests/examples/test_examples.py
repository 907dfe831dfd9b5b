"""Every example runs as its reader would run it, and does what it says."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import tests.services

from memos.clock import SystemClock
from memos.configs.mem_scheduler import SchedulerConfigFactory
from memos.mem_scheduler.queues.base import Dead, Done
from memos.mem_scheduler.queues.redis_streams import RedisStreamsQueue
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(
    str(file.relative_to(EXAMPLES)) for file in EXAMPLES.rglob("*.py") if "__pycache__" not in file.parts
)


def run(program: str, home: Path, *options: str, **environment: str) -> str:
    """What the example prints; it must end with 0 and say nothing on stderr."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / program), *options],
        env={**os.environ, "MEMOS_HOME": str(home), **environment},
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    return ran.stdout


def test_every_example_has_its_test_and_its_line() -> None:
    """No example is without a test here and a line in the README."""
    text = Path(__file__).read_text(encoding="utf-8")
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    called = "".join(text.split())
    assert [name for name in PROGRAMS if f'run("{name}"' not in called or f"`{name}`" not in readme] == []
    assert len(PROGRAMS) >= 3


def answers(section: str) -> dict[str, str]:
    """The answer to each question that a section prints."""
    return dict(re.findall(r"^\[\w+\] (.+)\n  (.+)$", section, re.M))


@pytest.mark.parametrize("embedder", ["minilm", "none"])
def test_schedule_w_memos(embedder: str, tmp_path: Path) -> None:
    """Both ways of setting up answer every question from memory and end with the web logs of the work."""
    printed = run("mem_scheduler/schedule_w_memos.py", tmp_path / "home", MEMOS_MODELS__EMBEDDER=embedder)
    automatic, manual = printed.split("==== manual initialisation ====")
    for section in (automatic, manual):
        said = answers(section)
        for question, expected in (
            ("What is the name of my puppy again?", "Max"),
            ("What am I allergic to?", "allergic to peanuts"),
            ("Where does Max sleep?", "basket"),
            ("When is the first vaccination?", "14 March"),
        ):
            assert expected in said[question]
        logs = section.split("Web logs\n")[1]
        labels = re.findall(r"^  (\w+) +\w+ -> \w+", logs, re.M)
        assert labels[0] == "addMemory"
        assert labels.count("scheduleMemory") == 4
        assert labels.count("addMessage") == 8  # each question and each answer
        first = next(line for line in logs.splitlines() if "scheduleMemory" in line)
        change = r"Working memory: (\d+) added, 0 kept, 0 removed \(working memory is empty.*working (\d+)\]"
        added, places = map(int, re.findall(change, first)[0])
        assert 1 <= added == places <= 10
        assert "[User] What am I allergic to?" in logs


def test_an_example_runs_again_over_its_own_data(tmp_path: Path) -> None:
    """A second run on the same data works like the first."""
    for _ in range(2):
        printed = run("mem_scheduler/schedule_w_memos.py", tmp_path / "home", MEMOS_MODELS__EMBEDDER="none")
        for section in printed.split("==== manual initialisation ===="):
            assert "Max" in answers(section)["What is the name of my puppy again?"]


def test_conversation(tmp_path: Path) -> None:
    """The conversation is stored, both questions are answered from it, and the two handlers see them."""
    printed = run("conversation.py", tmp_path / "home")
    assert "4 memories stored" in printed
    blocks = {block.splitlines()[0]: block for block in printed.split("\n>> ")[1:]}
    for question, expected in (
        ("What is my dog's name?", "named Max"),
        ("What am I allergic to?", "allergic to nuts"),
    ):
        block = blocks[question]
        assert f"[query]      {question}" in block
        assert expected in re.findall(r"^  \[recalled\]   (.+)$", block, re.M)[0]
        assert expected in re.findall(r"^<< (.+)$", block, re.M)[0]
    logs = printed.split("What the scheduler logged\n")[1]
    assert logs.count("addMemory") == 3 and logs.count("[Assistant]") == 2


def test_custom_handler(tmp_path: Path) -> None:
    """Every task reaches the handler, one after it asked to run again."""
    printed = run("custom_handler.py", tmp_path / "home", MEMOS_MODELS__EMBEDDER="none")
    for text in ("hello", "this one needs patience", "goodbye"):
        assert printed.count(f"user_123 in cube_001: {text}") == 1
    assert printed.index("runs again in a moment") < printed.index("cube_001: this one needs patience")
    assert "3 greeted, 0 waiting, 0 running" in printed


def everything(client: redis.Redis, prefix: str) -> dict[bytes, tuple[bytes, int]]:
    """Every key under the prefix with its value, as the server dumps it, and the moment of its end."""
    keys = sorted(client.scan_iter(f"{prefix}*", count=1_000))
    return {key: (client.dump(key), client.pexpiretime(key)) for key in keys}


@pytest.mark.skipif(not tests.services.redis_is_there(), reason="no Redis answers on loopback")
def test_show_redis_status(tmp_path: Path) -> None:
    """It shows every stream, and leaves every key, value and time to live as it was."""
    address = tests.services.redis_address()
    prefix = f"memos-test:{os.getpid()}:{secrets.token_hex(4)}"
    client = redis.Redis.from_url(address.url)
    queue = RedisStreamsQueue(address, clock=SystemClock(), prefix=prefix)
    try:
        sent = [
            ScheduleMessageItem(user_id=user, mem_cube_id="c", label=label, content="x", task_id="t")
            for user in ("ann", "b:ob")
            for label in ("query", "mem_update", "own")
        ]
        queue.submit(sent, idempotency_key=None)
        queue.submit(sent[:1], delay_s=3_600, idempotency_key="k")
        (done, failed, *_) = queue.claim({"query", "own"}, lanes_max=4, timeout_s=0)
        queue.finish(done, [Done()])
        queue.finish(failed, [Dead("never")])
        assert queue.depth().running == 2
        before = everything(client, prefix)
        printed = run(
            "mem_scheduler/show_redis_status.py",
            tmp_path / "home",
            *("--interval", "0.3", "--prefix", prefix, "--looks", "2"),
            MEMSCHEDULER_REDIS_URL=address.url,
        )
        assert everything(client, prefix) == before
        assert printed.count("remaining=3 (queued 0, delayed 1, parked 2)  running=2  dead=1") == 2
        assert len(re.findall(r"b:ob:c:mem_update +remaining +1", printed)) == 2
        assert re.search(r"ann:c:query +remaining +1", printed)
    finally:
        queue.close()
        tests.services.drop_keys(address, prefix)
        client.close()


@pytest.mark.parametrize("file", sorted((EXAMPLES / "data" / "config" / "mem_scheduler").glob("*.yaml")))
def test_example_configurations_are_in_order(file: Path) -> None:
    """Each YAML file is a configuration of the backend that its name says."""
    factory = SchedulerConfigFactory.from_yaml_file(file)
    assert file.name == f"{factory.backend}_config.yaml"
    assert factory.config.context_window_size == 10


@pytest.mark.parametrize("embedder", ["minilm", "none"])
def test_documents(embedder: str, tmp_path: Path) -> None:
    """Files are recalled with their place, a new version replaces the old, deleting takes every version."""
    printed = run("documents.py", tmp_path / "home", MEMOS_MODELS__EMBEDDER=embedder)
    assert printed.splitlines() == [
        "handbook.md: 2 memories",
        "prices.csv: 1 memories",
        "How long is the warranty of the pump?",
        "  The pump has a warranty of seven years.   [handbook.md, Pump handbook › Warranty]",
        "What is the price of a valve?",
        "  Part: Valve; Price: 30 euros   [prices.csv, rows 2–3]",
        "How long is the warranty of the pump?",
        "  The pump has a warranty of nine years.   [handbook.md, Pump handbook › Warranty]",
        "deleted handbook.md: 4 memories",
        "deleted prices.csv: 1 memories",
    ]
