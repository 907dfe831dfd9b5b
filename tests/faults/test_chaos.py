"""`memos chaos` itself, shortly: it strikes, everything drains, every guarantee holds, and it can tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer.testing

from memos.chaos import report
from memos.chaos.conductor import Wanted, conduct
from memos.chaos.plan import Backend
from memos.cli.main import app


@pytest.mark.parametrize("backend", ["local", "sqlite", "redis"])
def test_a_short_storm(backend: Backend) -> None:
    """Six kills and what else the seed brings: nothing is broken."""
    if backend == "redis" and shutil.which("redis-server") is None:
        pytest.skip("no redis-server on PATH")
    wanted = Wanted(backend, seconds=30.0, seed=5, kills=6, lease_s=1.0)
    result = conduct(wanted)
    assert (result.verdict.broken, result.verdict.examples) == ({}, [])
    assert result.drained and report.ok(result)
    assert result.verdict.kills >= 6
    assert result.verdict.submitted > 0


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("backend", ["local", "sqlite", "redis"])
@pytest.mark.parametrize("seed", range(3))
def test_a_long_storm(backend: Backend, seed: int) -> None:
    """Three hundred kills each."""
    result = conduct(Wanted(backend, seconds=900.0, seed=seed, kills=300))
    assert (result.verdict.broken, result.verdict.examples) == ({}, [])
    assert result.drained


def test_the_command(tmp_path: Path) -> None:
    """It prints a table, writes JSON with the seed, and ends with 0 when all held."""
    file = tmp_path / "result.json"
    arguments = ["chaos", "--backend", "local", "--kills", "2", "--seed", "9", "--lease", "1"]
    done = typer.testing.CliRunner().invoke(app, [*arguments, "--json", str(file)])
    assert done.exit_code == 0, done.output
    assert "every guarantee held" in done.output
    written = json.loads(file.read_text())
    assert (written["seed"], written["ok"], written["broken"]) == (9, True, {})


def test_a_run_can_be_named_again() -> None:
    """What is printed for a broken run is the command that draws the same plan."""
    assert report.again(Wanted("sqlite", seconds=90.0, seed=4, kills=7, lease_s=1.0)) == (
        "memos chaos --backend sqlite --seed 4 --minutes 1.5 --kills 7 --lease 1"
    )
