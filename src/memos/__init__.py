"""MemScheduler: the memory operating system for LLM agents.

Importing this package costs nothing: no I/O, no environment reads, no heavy vendors.
Start at `memos.runtime` (how the parts are joined) or `memos.api.routers.server_router`
(the names that the documented programs import).
"""

__version__ = "0.1.0"
