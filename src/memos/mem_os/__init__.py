"""MemOS as a library: `MOS`, the facade for programs without a server."""

from memos.mem_os.main import MOS

__all__ = ["MOS"]
