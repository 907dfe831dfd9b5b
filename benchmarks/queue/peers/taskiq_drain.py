"""taskiq over Redis streams (its broker with acknowledgements): one worker with its defaults drains no-op
tasks. Run by the bench environment's python.

Arguments: URL, queue name, number of tasks, content. Prints tasks per second, from the receiver's start to
the last task.
"""

import asyncio
import os
import sys
import time

from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

url, name, count, content = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
broker = RedisStreamBroker(url=url, queue_name=name)
seen = 0
done = asyncio.Event()


@broker.task
async def task(text: str) -> None:
    global seen
    seen += 1
    if seen == count:
        done.set()


async def main() -> None:
    await broker.startup()
    for _ in range(count):
        await task.kiq(content)
    started = time.perf_counter()
    receiver = asyncio.create_task(run_receiver_task(broker))
    await done.wait()
    print(count / (time.perf_counter() - started), flush=True)
    assert not receiver.done()
    os._exit(0)  # a cancelled receiver does not always come back


asyncio.run(main())
