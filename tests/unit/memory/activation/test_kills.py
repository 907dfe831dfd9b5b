"""Writers that die, collide or find no room leave the state before or the state after, never a torn file."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.memory.activation.prefixes import NAMESPACE, files, held, litter, put

from memos.errors import ActivationMiss
from memos.memory.activation.base import MissReason

ROOT = Path(__file__).resolve().parents[4]
A = list(range(100, 116))
B = [*A[:8], *range(300, 312)]


def run(program: str, *arguments: str) -> str:
    """Run a test program; its output."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.unit.memory.activation.{program}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_writer_killed_at_each_step_leaves_all_or_nothing(tmp_path: Path) -> None:
    """SIGKILL before and behind every change to the disk: the old prefix or the new one is whole, what died is
    swept at the next start, and the same write then succeeds."""
    states = [json.loads(line) for line in run("killed_writer", str(tmp_path), "write").splitlines()]
    assert len(states) > 20
    assert all(state["died"] for state in states[:-1])
    assert {tuple(state["before"]) for state in states} == {(16, 8), (8, 20)}
    for state in states:
        assert state["litter"] == []
        assert state["again"] == 0
        assert state["after"] == [8, 20]
        assert state["rest"] == []


def test_a_deletion_killed_at_each_step_is_done_or_not(tmp_path: Path) -> None:
    """A prefix whose deletion was interrupted is whole or gone."""
    states = [json.loads(line) for line in run("killed_writer", str(tmp_path), "drop").splitlines()]
    assert len(states) > 5
    assert {tuple(state["before"]) for state in states} == {(16, 8), (0, 0)}
    assert all(state["after"] == [16, 8] and state["rest"] == [] for state in states)


def test_an_eviction_killed_at_each_step_is_done_or_not(tmp_path: Path) -> None:
    """What has to make room for a write is whole or shorter, never torn; the next write makes the room."""
    states = [json.loads(line) for line in run("killed_writer", str(tmp_path), "evict").splitlines()]
    assert len(states) > 20
    assert {tuple(state["before"]) for state in states} == {(16, 8, 16), (16, 20, 16), (16, 20, 8)}
    for state in states:
        assert (state["litter"], state["again"], state["rest"]) == ([], 0, [])
        assert state["after"] == [16, 20, 8] and state["fits"]


def test_an_expiry_killed_at_each_step_is_done_or_not(tmp_path: Path) -> None:
    """What nobody used for too long is whole or gone, and the next write removes it."""
    states = [json.loads(line) for line in run("killed_writer", str(tmp_path), "expire").splitlines()]
    assert len(states) > 20
    assert {tuple(state["before"]) for state in states} == {(16, 8, 16), (16, 20, 16), (16, 20, 0)}
    for state in states:
        assert (state["litter"], state["again"], state["rest"]) == ([], 0, [])
        assert state["after"] == [8, 20, 0]


def test_two_writing_processes_lose_nothing(tmp_path: Path) -> None:
    """Processes that write other prefixes of one namespace at once: all are there, whole."""
    program = (
        "import sys; from pathlib import Path; from tests.unit.memory.activation.prefixes import files, put\n"
        "kept, first = files(Path(sys.argv[1]), prefixes_max=100), int(sys.argv[2])\n"
        "for turn in range(12): put(kept, list(range(first + 100 * turn, first + 100 * turn + 8)))\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(first)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        )
        for first in (10_000, 20_000)
    ]
    assert [writer.wait(timeout=100) for writer in writers] == [0, 0]
    kept = files(tmp_path, prefixes_max=100)
    for first in (10_000, 20_000):
        for turn in range(12):
            begin = first + 100 * turn
            assert held(kept, list(range(begin, begin + 8))) == 8
    assert litter(kept) == []


@pytest.mark.parametrize("bytes_max", [0, 100, 700, 1_500])
def test_no_room_on_the_disk_is_a_miss(tmp_path: Path, bytes_max: int) -> None:
    """A file that cannot grow (as on a full disk) is a miss that says so; what was there stays whole, nothing
    half-written stays, and a deletion still works."""
    kept = files(tmp_path)
    name = put(kept, A)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, hard))
    try:
        with pytest.raises(ActivationMiss) as caught:
            put(kept, B)
        during = held(kept, A)
        freed = kept.drop(NAMESPACE, name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.reason == MissReason.FAILED
    assert "full" in str(caught.value)
    assert during == 16
    assert freed > 0
    assert list(tmp_path.rglob("*.safetensors")) + list(tmp_path.rglob("*.tmp")) == []
