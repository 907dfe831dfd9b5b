"""Readers of documents: bytes in, parts of text with their place out.

Guarantees: content decides what a file is, not its name; every reader is bounded (`Limits`) and raises
only `memos.errors.DocumentError` and its children; nothing is fetched, nothing is written, no link is
followed. `sandbox` runs them in a process that can be killed. Knows no memory, no store and no model.
"""
