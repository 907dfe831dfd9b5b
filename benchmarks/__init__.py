"""Benchmarks: each module prints a table of rows with their bars and what was measured."""
