"""The first-token times of `python -m benchmarks.activation --gpu`, tried without a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from tests.torch_there import torch_or_skip

torch_or_skip()

import torch
from benchmarks.activation import __main__ as program
from benchmarks.activation import gpu
from benchmarks.report import Options

from memos.errors import ModelUnavailable

QUICK = Options(quick=True, json_file=None)
CONTEXTS, QUERIES = (120, 200), (16, 40)


def test_each_cell_is_measured_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Contexts by queries: the rows of each cell are there, contexts are as long as they say, and the printed table
    has the three times of every cell."""
    rows = gpu.measure(QUICK, device="cpu", shape="tiny", contexts=CONTEXTS, queries=QUERIES)
    names = {row.name: row for row in rows}
    for context in CONTEXTS:
        build = names[f"gpu_build_{context}"]
        assert context <= int(build.note.split()[0]) < context + 12
        for query in QUERIES:
            times = [names[f"gpu_{context}_{query}_{what}"].measured for what in ("hot", "cold", "direct")]
            assert all(time is not None and time > 0 for time in times)
    head, first, *lines = capsys.readouterr().out.strip().splitlines()
    assert head.endswith("direct / cold / hot") and first.split("  ")[0] == "context"
    assert [line.split()[0] for line in lines] == ["120", "200"]
    assert all(line.count("/") == 2 * len(QUERIES) for line in lines)


def test_time_that_is_over_leaves_cells_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not begun in time says so, and the run ends."""
    monkeypatch.setattr(gpu.Bench, "is_over", property(lambda bench: True))
    rows = gpu.measure(QUICK, device="cpu", shape="tiny", contexts=CONTEXTS, queries=QUERIES)
    assert len(rows) == 4 and all(row.measured is None and row.note for row in rows)
    assert capsys.readouterr().out.strip().splitlines()[-1].split() == ["200", "-", "-"]


def test_times_without_reuse_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix that is not reused whole ends the run: its times would be those of something else."""
    prepare = gpu.HFActivation.prepare

    def longer(backend: gpu.HFActivation, layout: gpu.Layout) -> gpu.Handle:
        return replace(prepare(backend, layout), tokens=10_000)

    monkeypatch.setattr(gpu.HFActivation, "prepare", longer)
    with pytest.raises(SystemExit, match="10000 tokens were reused"):
        gpu.measure(QUICK, device="cpu", shape="tiny", contexts=CONTEXTS, queries=QUERIES)


def test_no_gpu_and_too_little_memory_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what is missing and what to do; other failures of the model pass as they are."""

    def failing(error: Exception) -> Any:
        def fail(*_: Any, **__: Any) -> NoReturn:
            raise error

        return fail

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"no GPU.*--device cpu --shape tiny"):
        gpu.measure(QUICK, device="cuda", shape="qwen3-8b")
    with pytest.raises(SystemExit, match=r"no shape 'huge'.*qwen3-8b"):
        gpu.measure(QUICK, device="cpu", shape="huge")
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    wrapped, other = ModelUnavailable("the model failed"), ModelUnavailable("the model is closed")
    wrapped.__cause__ = full
    for error in (full, wrapped):
        monkeypatch.setattr(gpu, "model_of", failing(error))
        with pytest.raises(SystemExit, match="too little memory for the shape tiny"):
            gpu.measure(QUICK, device="cpu", shape="tiny")
    monkeypatch.setattr(gpu, "model_of", failing(other))
    with pytest.raises(ModelUnavailable, match="closed"):
        gpu.measure(QUICK, device="cpu", shape="tiny")


def test_the_command_line_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--gpu` alone asks for a GPU and the large shape."""
    monkeypatch.setattr(sys, "argv", ["activation", "--gpu", "--quick"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        program.run()
