"""A process that is killed while it stores a long document leaves all of it or nothing; adding it again ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memos.clock import SystemClock
from memos.memory.document_items import document_of
from memos.memory.sqlite import SqliteStore
from memos.memory.store import ItemFilter

SECTIONS = 300
PROGRAM = """
import os, signal, sys
from pathlib import Path
from memos.mem_os.documents import attachment
from memos.memory.turns import Conversation
from memos.runtime import build
from memos.settings import Settings

file, home, where = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def encoded(done, total):
    if where == f"encoded {done}":
        die()

settings = Settings(home=Path(home), models={"embedder": "none"})
with build(settings, start=False) as runtime:
    store = runtime.store
    apply = store.apply
    def torn(*given, **named):
        if where == "before the commit":
            die()
        if where == "inside the commit":
            import memos.memory.relational.writing as writing
            writing.Writing.finish = die
        applied = apply(*given, **named)
        if where == "after the commit":
            die()
        return applied
    store.apply = torn
    brought = attachment(Path(file), bytes_max=10**7)
    written = runtime.chat.writer.write(Conversation((), attachments=(brought,)), user_id="u", cube_ids=("c",),
                                        read="later", progress=encoded)
    print(written.documents[0].state)
"""


def run(file: Path, home: Path, where: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(file), str(home), where]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "where", ["encoded 64", "encoded 300", "before the commit", "inside the commit", "after the commit"]
)
def test_a_kill_leaves_all_or_nothing(where: str, tmp_path: Path) -> None:
    """SIGKILL at a step of the ingestion, then the same call again: every chunk once, the indexes whole."""
    file = tmp_path / "long.md"
    file.write_text("\n".join(f"# Part {number}\n\nFact {number}.\n" for number in range(SECTIONS)))
    home = tmp_path / "home"
    died = run(file, home, where)
    assert died.returncode == -signal.SIGKILL, died.stderr
    whole = SECTIONS if where == "after the commit" else 0
    with SqliteStore(home / "memory.db", clock=SystemClock()) as store:
        assert store.find(ItemFilter(cube_ids=("c",)), limit=1).total == whole
    again = run(file, home, "nowhere")
    assert again.stdout.strip() == ("stored already" if whole else "stored"), again.stderr
    with SqliteStore(home / "memory.db", clock=SystemClock()) as store:
        items = store.find(ItemFilter(cube_ids=("c",)), limit=1_000).items
        assert sorted(document_of(item)["part"] for item in items) == list(range(1, SECTIONS + 1))
        assert store.verify() == []
