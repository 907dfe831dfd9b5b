"""Every example runs as its reader would run it, and does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from memos.configs.mem_scheduler import SchedulerConfigFactory

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(
    str(file.relative_to(EXAMPLES)) for file in EXAMPLES.rglob("*.py") if "__pycache__" not in file.parts
)


def run(program: str, home: Path, **environment: str) -> str:
    """What the example prints; it must end with 0 and say nothing on stderr."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / program)],
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
    assert [name for name in PROGRAMS if f'run("{name}"' not in text or f"`{name}`" not in readme] == []
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
