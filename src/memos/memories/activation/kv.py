"""`KVCacheMemory` under its documented path. Needs the extra `hf`."""

from memos.memory.activation.kv_memory import KVCacheMemory

__all__ = ["KVCacheMemory"]
