"""`python -m benchmarks.activation [--quick] [--json FILE]`: activation memory against its bars, on the CPU.

With --gpu, instead: the table of first-token times that the reference publishes, with the random-weight shape of
Qwen3-8B in bfloat16 (see `gpu`). `--device cpu --shape tiny` tries that part without a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import transformers

from benchmarks.activation import faithful, gpu, latency, updates
from benchmarks.report import Options, Row, main
from memos import log


def measure(options: Options) -> list[Row]:
    """All rows of the CPU part."""
    torch.set_num_threads(1)
    log.configure("ERROR")  # every refusal is told otherwise
    with tempfile.TemporaryDirectory(prefix="memos-activation-") as folder:
        root = Path(folder)
        return [
            *latency.rows(root / "latency", quick=options.quick),
            *faithful.equality_rows(root / "equality", quick=options.quick),
            *updates.reuse_rows(),
            *updates.model_rows(root / "updates", quick=options.quick),
            faithful.refuse_row(root / "refuse"),
            faithful.immutable_row(root / "immutable"),
        ]


def run() -> None:
    """Read what belongs to this benchmark alone, and hand on the rest."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="qwen3-8b")
    given, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    settings = {"torch": torch.__version__, "transformers": transformers.__version__}
    if given.gpu:
        log.configure("ERROR")
        rows = partial(gpu.measure, device=given.device, shape=given.shape)
        name = "activation, first-token times"
        main(name, rows, settings=settings | {"shape": given.shape}, marks="activation_gpu")
        return
    main("activation", measure, settings=settings | {"threads": 1, "storage": "bf16", "slack": "25 %"})


if __name__ == "__main__":
    run()
