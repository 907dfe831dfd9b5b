"""Documented import paths of text memories; what they name lives in `memos.memory`."""
