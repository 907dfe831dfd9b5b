"""The backlog on Redis, live: what waits and runs in each stream, and how that changes.

    python examples/mem_scheduler/show_redis_status.py --interval 1.0 --prefix scheduler:messages:stream:v2.0

Needs `pip install 'memscheduler[redis]'`. Reads the server that MEMSCHEDULER_REDIS_HOST, _PORT, _DB, _PASSWORD
(or _URL) name, beside any number of workers, and changes nothing there: no key is written, touched or given another time to live. Stop it with Ctrl-C.
"""

import argparse
import time

from memos.clock import SystemClock
from memos.mem_scheduler.queues.base import TaskQueue
from memos.mem_scheduler.queues.redis_streams import open_redis_queue
from memos.runtime_queue import redis_address
from memos.settings import Settings

Streams = dict[str, tuple[int, int, float]]  # name -> remaining, running, lag in seconds


def streams_of(queue: TaskQueue) -> tuple[str, Streams]:
    depth = queue.depth()
    instances = queue.instances()
    total = (
        f"remaining={depth.remaining} (queued {depth.queued}, delayed {depth.delayed}, parked {depth.parked})  "
        f"running={depth.running}  dead={depth.dead}  workers={len(instances)}"
    )
    streams: Streams = {}
    for lane in depth.lanes:
        for label in {*lane.queued, *lane.delayed, *lane.parked, *lane.running}:
            remaining = sum(counts.get(label, 0) for counts in (lane.queued, lane.delayed, lane.parked))
            name = f"{lane.lane.user_id}:{lane.lane.mem_cube_id}:{label}"
            streams[name] = (remaining, lane.running.get(label, 0), lane.oldest_s.get(label, 0.0))
    return total, streams


def show(total: str, streams: Streams, before: Streams | None) -> None:
    print(time.strftime("%H:%M:%S"), total, flush=True)
    for name in sorted({*streams, *(before or {})}, key=lambda name: (-streams.get(name, (0,))[0], name))[
        :50
    ]:
        remaining, running, lag_s = streams.get(name, (0, 0, 0.0))
        earlier = remaining if before is None else before.get(name, (0, 0, 0.0))[0]
        delta = f"{remaining - earlier:+d}" if remaining != earlier else ""
        print(f"  {name:<60} remaining {remaining:>7} {delta:>7}  running {running:>5}  lag {lag_s:8.1f} s")
    if len(streams) > 50:
        print(f"  … and {len(streams) - 50} more streams")
    print(flush=True)


def main() -> None:
    settings = Settings.load()
    parser = argparse.ArgumentParser(description="The backlog of the scheduler on Redis, live.")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument("--prefix", default=settings.queue.redis_prefix, help="what the keys begin with")
    parser.add_argument("--looks", type=int, default=0, help="end after so many looks (0: never)")
    options = parser.parse_args()
    queue = open_redis_queue(redis_address(settings), clock=SystemClock(), shards=None, prefix=options.prefix)
    before: Streams | None = None
    looks = 0
    try:
        while True:
            total, streams = streams_of(queue)
            show(total, streams, before)
            before = streams
            looks += 1
            if looks == options.looks:
                break
            time.sleep(options.interval)
    except KeyboardInterrupt:
        pass
    finally:
        queue.close()


if __name__ == "__main__":
    main()
