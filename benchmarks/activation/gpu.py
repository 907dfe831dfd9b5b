"""First-token times of a large model: the whole prompt, the prefix out of its files, the prefix at hand.

The reference publishes such a table for Qwen3-8B (contexts of 583, 2,773 and 6,064 tokens, queries of 167, 303
and 953; KV / direct between .06 and .77). Weights are random and made on the device: time does not depend on
them. Wall time around a synchronised device, medians of interleaved rounds. `direct` is the whole prompt read
by the same code, with nothing else in it. No bar: reported.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.activation.models import block, model_of, question
from benchmarks.report import Options, Row
from memos.memory.activation.base import Suffix
from memos.memory.activation.hf import HFActivation
from memos.models.hf.chat import HFChat

CONTEXTS = (583, 2_773, 6_064)
QUERIES = (167, 303, 953)
ROUNDS = 5
SECONDS_MAX = 420.0  # then the rest stays empty


def measure(options: Options, *, device: str, shape: str) -> list[Row]:
    """Three rows a cell: hot / direct, cold / direct, and direct in seconds; one row a context: the build."""
    until = time.monotonic() + (40.0 if options.quick else SECONDS_MAX)
    dtype = "bfloat16" if device != "cpu" else "float32"
    model = model_of(shape, dtype=dtype, device=device)
    place = torch.cuda.get_device_name() if device.startswith("cuda") else device
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="memos-gpu-") as folder:
        for context in CONTEXTS:
            layout = block(model, context)
            root = Path(folder) / f"{context}"
            if time.monotonic() > until:
                rows += [_left_out(context, query) for query in QUERIES]
                continue
            HFActivation(model, Path(folder) / "once").prepare(layout)  # kernels are made at first use
            prepared, build_s = _timed(partial_prepare(model, root, layout), device)
            rows.append(
                Row(f"gpu_build_{context}", None, build_s, "s", f"{prepared.tokens} tokens, on {place}")
            )
            hot = HFActivation(model, root, hot_bytes_max=8 * 1024**3)
            for query in QUERIES:
                if time.monotonic() > until:
                    rows.append(_left_out(context, query))
                    continue
                suffix = Suffix(layout, tuple(question(model, query)), max_tokens=1)
                calls: dict[str, Callable[[], object]] = {
                    "direct": lambda suffix=suffix: list(HFChat(model).stream(suffix.chat, max_tokens=1)),
                    "cold": lambda suffix=suffix, root=root, prepared=prepared: list(
                        HFActivation(model, root).generate(prepared, suffix)
                    ),
                    "hot": lambda suffix=suffix, hot=hot, prepared=prepared: list(
                        hot.generate(prepared, suffix)
                    ),
                }
                spent = _interleaved(calls, device, 2 if options.quick else ROUNDS)
                name = f"gpu_{context}_{query}"
                said = f"direct {spent['direct']:.3f} s, cold {spent['cold']:.3f}, hot {spent['hot']:.3f}"
                rows.append(Row(f"{name}_hot", None, spent["hot"] / spent["direct"], "hot / direct", said))
                rows.append(Row(f"{name}_cold", None, spent["cold"] / spent["direct"], "cold / direct"))
    return rows


def partial_prepare(model: object, root: Path, layout: object) -> Callable[[], object]:
    """A build in an empty folder."""
    return lambda: HFActivation(model, root).prepare(layout)  # type: ignore[arg-type]


def _left_out(context: int, query: int) -> Row:
    return Row(f"gpu_{context}_{query}_hot", None, None, "hot / direct", "no time was left")


def _interleaved(calls: dict[str, Callable[[], object]], device: str, rounds: int) -> dict[str, float]:
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            spent[name].append(_timed(call, device)[1])
    return {name: median(values) for name, values in spent.items()}


def _timed(call: Callable[[], object], device: str) -> tuple[object, float]:
    _synchronise(device)
    started = time.perf_counter()
    done = call()
    _synchronise(device)
    return done, time.perf_counter() - started


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
