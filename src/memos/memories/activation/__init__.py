"""Documented import paths of activation memories; what they name lives in `memos.memory.activation`."""
