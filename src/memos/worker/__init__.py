"""Processes that do nothing but run tasks: `memos worker`, and the child of `scheduler_startup_mode: process`."""
