"""Measurements: `python -m benchmarks.NAME [--quick] [--json FILE]`. See `benchmarks/README.md`.

Threads are pinned as the runtime pins them, before anything loads numpy.
"""

from memos.runtime import pin_threads

pin_threads()
