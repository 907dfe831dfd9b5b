"""The documented form of a memory under its documented name; it lives in `memos.memory.textual`."""

from memos.memory.textual import SourceMessage, TextualMemoryItem, TextualMemoryMetadata

__all__ = ["SourceMessage", "TextualMemoryItem", "TextualMemoryMetadata"]
