"""First-token times of a large model: the whole prompt, the prefix out of its files, the prefix at hand.

The reference publishes such a table for Qwen3-8B (contexts of 583, 2,773 and 6,064 tokens, queries of 167, 303
and 953; KV / direct between .06 and .77). Weights are random and made on the device, the vocabulary is that of the
built-in tokenizer (512): time does not depend on the first, and hardly on the second, for one token's logits are
computed. Nothing is downloaded. Wall time around a synchronised device, medians of interleaved rounds. `direct` is the
whole prompt read by the same code, with nothing else in it. Each prompt says how much of it was reused, and a run in
which that is not the whole prefix ends with an error. No bar: reported.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.activation.models import SHAPES, block, model_of, question
from benchmarks.report import Options, Row
from memos.errors import ModelUnavailable
from memos.memory.activation.base import Entry, Handle, Layout, Suffix
from memos.memory.activation.files import Room
from memos.memory.activation.hf import HFActivation
from memos.models.hf.chat import HFChat
from memos.models.hf.model import HFModel

CONTEXTS = (583, 2_773, 6_064)
QUERIES = (167, 303, 953)
ROUNDS = 5
SECONDS_MAX = 360.0  # then the rest stays empty: with the last cell and the model within eight minutes
HOT_BYTES_MAX = 8 * 1024**3
WAYS = ("direct", "cold", "hot")


@dataclass(frozen=True, slots=True)
class Bench:
    """One model on one device, and the folder for its files."""

    model: HFModel
    device: str
    folder: Path
    rounds: int
    until: float

    @property
    def is_over(self) -> bool:
        """Whether nothing new is begun."""
        return time.monotonic() > self.until

    def backend(self, root: Path) -> HFActivation:
        """One that holds nothing in memory yet."""
        return HFActivation(self.model, root, room=Room(bytes_max=64 * 1024**3), hot_bytes_max=HOT_BYTES_MAX)

    def timed(self, call: Callable[[], Any]) -> tuple[Any, float]:
        """What it gives, and its seconds."""
        self._synchronise()
        started = time.perf_counter()
        done = call()
        self._synchronise()
        return done, time.perf_counter() - started

    def interleaved(self, calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Median seconds of each; once for nothing before that: kernels, caches of the machine."""
        spent: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(self.rounds):
            for name, call in calls.items():
                spent[name].append(self.timed(call)[1])
        return {name: median(values) for name, values in spent.items()}

    def _synchronise(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def measure(
    options: Options,
    *,
    device: str,
    shape: str,
    contexts: Sequence[int] = CONTEXTS,
    queries: Sequence[int] = QUERIES,
) -> list[Row]:
    """Three rows a cell: hot / direct, cold / direct, and direct in seconds; one row a context: the build.
    Prints the seconds as a table of contexts by queries. SystemExit, saying why, where it cannot be run."""
    _check(device, shape)
    until = time.monotonic() + (40.0 if options.quick else SECONDS_MAX)
    rows: list[Row] = []
    cells: dict[tuple[int, int], dict[str, float]] = {}
    with _explained(device, shape), tempfile.TemporaryDirectory(prefix="memos-gpu-") as folder:
        dtype = "float32" if device == "cpu" else "bfloat16"
        model = model_of(shape, dtype=dtype, device=device)
        bench = Bench(model, device, Path(folder), 2 if options.quick else ROUNDS, until)
        for context in contexts:
            rows += _context(bench, context, queries, cells)
    print(grid(cells, contexts, queries), end="\n\n")
    return rows


def _context(
    bench: Bench, context: int, queries: Sequence[int], cells: dict[tuple[int, int], dict[str, float]]
) -> Iterator[Row]:
    if bench.is_over:
        yield from (_left_out(context, query) for query in queries)
        return
    layout = exact_block(bench.model, context)
    root = bench.folder / f"{context}"
    bench.backend(bench.folder / "once").prepare(layout)  # kernels are made at first use
    bench.backend(bench.folder / "once").drop_namespace(layout.namespace)
    prepared, build_s = bench.timed(lambda: bench.backend(root).prepare(layout))
    said = f"{prepared.tokens} tokens, {prepared.bytes / 1024**2:.0f} MiB, on {_place(bench.device)}"
    yield Row(f"gpu_build_{context}", None, build_s, "s", said)
    hot = bench.backend(root)
    for query in queries:
        if bench.is_over:
            yield _left_out(context, query)
            continue
        spent = cells[context, query] = _cell(bench, root, hot, prepared, layout, query)
        name = f"gpu_{context}_{query}"
        yield Row(f"{name}_hot", None, spent["hot"] / spent["direct"], "hot / direct")
        yield Row(f"{name}_cold", None, spent["cold"] / spent["direct"], "cold / direct")
        yield Row(f"{name}_direct", None, spent["direct"], "s")


def _cell(
    bench: Bench, root: Path, hot: HFActivation, prepared: Handle, layout: Layout, query: int
) -> dict[str, float]:
    suffix = Suffix(layout, tuple(question(bench.model, query)), max_tokens=1)

    def reused(backend: HFActivation) -> None:
        generation = backend.generate(prepared, suffix)
        for _ in generation:
            pass
        if generation.response.tokens_cached != prepared.tokens:
            raise SystemExit(
                f"only {generation.response.tokens_cached} of {prepared.tokens} tokens were reused "
                f"({generation.response.reason}): these times would say nothing"
            )

    return bench.interleaved(
        {
            "direct": lambda: list(HFChat(bench.model).stream(suffix.chat, max_tokens=1)),
            "cold": lambda: reused(bench.backend(root)),
            "hot": lambda: reused(hot),
        }
    )


def exact_block(model: HFModel, tokens: int) -> Layout:
    """A block of this many tokens, give or take those of one word."""
    whole = block(model, tokens)
    shorter = Layout(whole.namespace, whole.header, whole.entries[:-1])
    left = tokens - len(model.text.beginning(shorter.parts).ids)
    if left < 8:
        return shorter
    words = whole.entries[-1].text.split()
    for count in range(2, len(words) + 1):
        last = Entry("last", 1, f"{' '.join(words[:count])}\n")
        layout = Layout(whole.namespace, whole.header, (*shorter.entries, last))
        if len(model.text.beginning(layout.parts).ids) >= tokens:
            return layout
    return whole


def grid(
    cells: Mapping[tuple[int, int], Mapping[str, float]], contexts: Sequence[int], queries: Sequence[int]
) -> str:
    """Seconds to the first token, direct / cold / hot: contexts down, queries across."""
    lines = [["context", *(f"query {query}" for query in queries)]]
    for context in contexts:
        line = [f"{context}"]
        for query in queries:
            spent = cells.get((context, query))
            line.append("-" if spent is None else " / ".join(f"{spent[way]:.3f}" for way in WAYS))
        lines.append(line)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([f"seconds to the first token: {' / '.join(WAYS)}", *(line.rstrip() for line in text)])


def _left_out(context: int, query: int) -> Row:
    return Row(f"gpu_{context}_{query}_hot", None, None, "hot / direct", "no time was left")


def _place(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def _check(device: str, shape: str) -> None:
    if shape not in SHAPES:
        raise SystemExit(f"there is no shape {shape!r}: {', '.join(SHAPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(
            f"torch {torch.__version__} finds no GPU here; `--gpu --device cpu --shape tiny` tries this part without one"
        )


@contextmanager
def _explained(device: str, shape: str) -> Iterator[None]:
    """Out of memory, of the device or of the disk, is told in a line."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SystemExit(_too_small(device, shape, error)) from error
    except ModelUnavailable as error:
        if not isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
        raise SystemExit(_too_small(device, shape, error)) from error


def _too_small(device: str, shape: str, error: Exception) -> str:
    first = str(error).splitlines()[0]
    return (
        f"{device} has too little memory for the shape {shape} (about 20 GiB free for qwen3-8b): {first}\n"
        "a smaller one is --shape small"
    )
