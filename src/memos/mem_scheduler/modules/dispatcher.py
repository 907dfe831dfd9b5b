"""The dispatcher under its documented name: `memos.mem_scheduler.dispatcher` is where it lives."""

from memos.mem_scheduler.dispatcher import Dispatcher as SchedulerDispatcher

__all__ = ["SchedulerDispatcher"]
