"""`KVCacheItem` under its documented path. Needs the extra `hf`."""

from memos.memory.activation.kv_memory import KVCacheItem

__all__ = ["KVCacheItem"]
