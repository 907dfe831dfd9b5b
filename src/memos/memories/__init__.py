"""Documented import paths of memories; what they name lives in `memos.memory`."""
