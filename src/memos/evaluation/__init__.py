"""Measuring the system on public data sets. Nothing outside this package knows their field names."""
