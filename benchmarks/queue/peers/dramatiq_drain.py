"""dramatiq: one worker with its defaults drains no-op tasks. Run by the bench environment's python.

Arguments: URL, namespace, number of tasks, content. Prints tasks per second, from the worker's start to
the last task.
"""

import itertools
import sys
import threading
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

url, namespace, count, content = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
broker = RedisBroker(url=url, namespace=namespace)
dramatiq.set_broker(broker)
numbers, done = itertools.count(1), threading.Event()


@dramatiq.actor
def task(text: str) -> None:
    if next(numbers) == count:
        done.set()


for _ in range(count):
    task.send(content)
worker = dramatiq.Worker(broker, worker_threads=8)  # what the command line starts in each process
started = time.perf_counter()
worker.start()
done.wait()
print(count / (time.perf_counter() - started))
worker.stop()
broker.flush_all()
