"""The task queue on Redis Streams, for workers on many machines. See `queue`."""

from memos.mem_scheduler.queues.redis_streams.connection import RedisAddress
from memos.mem_scheduler.queues.redis_streams.queue import RedisStreamsQueue

__all__ = ["RedisAddress", "RedisStreamsQueue"]
