"""The monitor under its documented name: `memos.mem_scheduler.monitors` is where its parts live."""

from memos.mem_scheduler.monitors.intent import Intent
from memos.mem_scheduler.monitors.scheduler import SchedulerMonitor

__all__ = ["Intent", "SchedulerMonitor"]
