"""Measurements: `python -m benchmarks.NAME [--quick] [--json FILE]`. See `benchmarks/README.md`."""
