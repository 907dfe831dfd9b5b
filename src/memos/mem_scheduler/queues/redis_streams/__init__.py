"""The task queue on Redis Streams, for workers on many machines. See `queue`."""

from memos.mem_scheduler.queues.redis_streams.connection import RedisAddress
from memos.mem_scheduler.queues.redis_streams.layout import open_redis_queue
from memos.mem_scheduler.queues.redis_streams.queue import RedisStreamsQueue
from memos.mem_scheduler.queues.redis_streams.shards import ShardedQueue

__all__ = ["RedisAddress", "RedisStreamsQueue", "ShardedQueue", "open_redis_queue"]
