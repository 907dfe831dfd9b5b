"""What activation memory saves, costs and refuses: `python -m benchmarks.activation`."""
