"""Many cubes and one large one: `python -m benchmarks.cubes [--quick] [--json FILE]`.

Items read like turns of the conversations (see `recall_scale`), the store is SQLite on this disk, one thread.

write                items stored a second in batches of 2,000, wall time, without encoding
build_100k, load_100k  filling a cube; the first query of a process, which reads its vectors, wall time
index_loss_100k      share of the nearest 200 by exact comparison that the search of vectors misses
query_p95_100k       one recall in that cube, encoding excluded
rss_limit            resident memory that 1,000 cubes of 1,000, touched in turn, add, over the bound of the cache
                     (128 MiB); `rss_default` in MiB with the default bound of 512 MiB
cold_p50, p95        the first query to a cube whose vectors are not in memory; `warm_*` a later one
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks import recall_scale
from benchmarks.recall_scale import MIB
from benchmarks.report import Bar, Options, Row, main
from benchmarks.vectors import DiskCachedEmbedder
from memos.evaluation import locomo
from memos.models.minilm import MiniLMEmbedder

FOLDER = Path(os.environ.get("MEMOS_DATA_LOCOMO", "../shared/data/locomo"))
CUBES, EACH, LARGE = 1_000, 1_000, 100_000
SMALL_LIMIT, DEFAULT_LIMIT = 128 * MIB, 512 * MIB
QUERIES = 100


def measure(options: Options) -> list[Row]:
    """All rows; with --quick over a fiftieth of the cubes and a tenth of the large one."""
    conversations = locomo.load(FOLDER)
    embedder = DiskCachedEmbedder(MiniLMEmbedder.load())
    cubes, large = (CUBES // 50, LARGE // 10) if options.quick else (CUBES, LARGE)
    print(f"one cube of {large:,}", file=sys.stderr, flush=True)
    one = recall_scale.measure(large, conversations, embedder, queries=QUERIES)
    embedder.save()
    print(f"{cubes:,} cubes of {EACH:,}", file=sys.stderr, flush=True)
    limits = (SMALL_LIMIT // 50, DEFAULT_LIMIT // 50) if options.quick else (SMALL_LIMIT, DEFAULT_LIMIT)
    small, usual = recall_scale.many(cubes, EACH, conversations, embedder, limits_bytes=limits)
    note = f"{large:,} items"
    return [
        Row("write", Bar(">=", 2_000), one.items_per_s, "items/s", note),
        Row("build_100k", None, one.build_s, "s", note),
        Row("load_100k", None, one.load_s, "s", note),
        Row("index_loss_100k", Bar("<=", 0.01), one.loss, "share", note),
        Row("query_p95_100k", Bar("<=", 60, 40), one.query_p95_ms, "CPU ms", note),
        Row("rss_limit", Bar("<=", 1.5), small.grown_bytes / small.limit_bytes, "x bound", _of(small)),
        Row(
            "rss_default",
            None,
            usual.rss_bytes / MIB,
            "MiB",
            f"grown {usual.grown_bytes / MIB:.0f}; {_of(usual)}",
        ),
        Row("cold_p50", None, small.cold_p50_ms, "CPU ms"),
        Row("cold_p95", None, small.cold_p95_ms, "CPU ms"),
        Row("warm_p50", None, small.warm_p50_ms, "CPU ms"),
        Row("warm_p95", None, small.warm_p95_ms, "CPU ms"),
    ]


def _of(many: recall_scale.Many) -> str:
    return f"{many.cubes:,} cubes of {EACH:,}, bound {many.limit_bytes / MIB:.0f} MiB"


if __name__ == "__main__":
    main(
        "Many cubes and a large one",
        measure,
        settings={"data": FOLDER, "cubes": CUBES, "items": EACH, "large": LARGE},
    )
