"""Whole programs on the documented surface, each in a process of its own, run twice over the same data."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
GIVEN = os.environ.get("MEMOS_ACCEPTANCE", "")


def run(command: list[str], cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "MEMOS_HOME"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment | {"MEMOS_HOME": str(cwd / "home"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_on_the_documented_surface_runs(program: Path, tmp_path: Path) -> None:
    """The program's own assertions hold and it ends by itself with 0."""
    out = run([sys.executable, "-W", "error", str(program)], tmp_path)
    assert f"OK {program.stem}" in out


def test_a_program_can_be_run_again_over_its_own_data(tmp_path: Path) -> None:
    """What a first run left on disk does not disturb the second."""
    program = Path(__file__).parent / "programs" / "two_users_chat.py"
    for _ in range(2):
        assert "OK two_users_chat" in run([sys.executable, str(program)], tmp_path)


if GIVEN:

    @pytest.mark.parametrize("which", ["server_init", "custom_handler", "scenario1"])
    def test_the_given_acceptance_check_passes(which: str, tmp_path: Path) -> None:
        """The check in the folder that MEMOS_ACCEPTANCE names passes with this interpreter."""
        check = Path(GIVEN).resolve() / "check.py"
        assert check.is_file(), f"MEMOS_ACCEPTANCE={GIVEN!r} holds no check.py"
        run([sys.executable, str(check), which, "--python", sys.executable, "--timeout", "100"], tmp_path)

    @pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on PATH")
    def test_the_given_restart_example_survives_sigkill(tmp_path: Path) -> None:
        """On Redis, killed half-way and started again: 100 files, and of the repeated writes at most what was
        in flight at the kill, four in each of the two lanes."""
        check = Path(GIVEN).resolve() / "check.py"
        command = [sys.executable, str(check), "scenario2", "--python", sys.executable]
        out = run([*command, "--scale", "0.1", "--timeout", "45"], tmp_path)
        repeated = re.search(r"\((\d+) repeated\)", out)
        assert repeated is not None and int(repeated[1]) <= 8
