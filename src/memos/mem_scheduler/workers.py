"""The threads that run handlers: one bounded pool, and one event loop for `async def` handlers.

All threads are daemons, so that a handler that never returns cannot keep the interpreter from ending;
the runtime drains the scheduler before that. The pool takes work only while it has a free place: the
consumer asks first, so nothing that was leased waits in a second queue.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from memos import log
from memos.errors import ConfigError

logger = log.get_logger(__name__)

GOES_ON = object()  # what a job returns that is not at its end until `end` says so
Job = Callable[[], object]


class WorkerPool:
    """At most `size` jobs at a time; threads are started when they are first needed. As many again may have
    returned and not be at their end (`GOES_ON`): so the next ones are fetched while those are settled."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ConfigError(f"the worker pool needs at least 1 thread, not {size}")
        self.size = size
        lock = threading.Lock()
        self._job_ready = threading.Condition(lock)  # workers wait here
        self._place_free = threading.Condition(lock)  # the consumer and `wait_idle` wait here
        self._lock = lock
        self._jobs: deque[Job] = deque()
        self._threads = 0
        self._idle = 0
        self._coming = False  # a thread was called and has not come yet
        self._busy = 0  # jobs that wait or run
        self._kept = 0  # jobs that ran and are not at their end
        self._closed = False

    @property
    def free(self) -> int:
        """How many more jobs `submit` would take now."""
        with self._lock:
            return 0 if self._closed else self._places()

    def _places(self) -> int:
        return max(0, self.size - self._busy - max(0, self._kept - self.size))

    def wait_free(self, cancelled: Callable[[], bool]) -> int:
        """Wait until there is a free place; returns how many there are, 0 when `cancelled` turned true.

        Whoever makes `cancelled` true calls `nudge`.
        """
        with self._place_free:
            while not self._places() and not cancelled() and not self._closed:
                self._place_free.wait()
            return 0 if cancelled() or self._closed else self._places()

    def nudge(self) -> None:
        """Let `wait_free` look again."""
        with self._place_free:
            self._place_free.notify_all()

    def submit(self, job: Job) -> bool:
        """Run `job` on a thread of the pool; False when there is no place or no thread can be started."""
        return self.submit_all([job]) == 1

    def submit_all(self, jobs: Sequence[Job]) -> int:
        """Run the first of `jobs`, as many as there are places; returns how many."""
        with self._lock:
            if self._closed or (not self._threads and not self._start_thread()):
                return 0
            taken = jobs[: self._places()]
            self._busy += len(taken)
            self._jobs.extend(taken)
            self._call_thread()
            return len(taken)

    def end(self, jobs: int) -> None:
        """So many of the jobs that went on behind their return are at their end."""
        with self._place_free:
            self._kept -= jobs
            self._place_free.notify_all()

    def _call_thread(self) -> None:
        """See that a thread comes for the next job. One at a time: it calls another before it begins its job, so that
        jobs that take no time are not met by a crowd of threads that wait for each other."""
        if not self._jobs or self._coming:
            return
        if self._idle:
            self._coming = True
            self._job_ready.notify()
        elif self._threads < self.size:
            self._start_thread()

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._work, name=f"memos-worker-{self._threads + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # out of threads, or the interpreter is ending
            logger.warning("pool.no_thread", threads=self._threads, error=str(error))
            return False  # those that are there will come to it
        self._threads += 1
        self._coming = True
        return True

    def _next_job(self, *, waited: bool) -> Job | None:
        """The next job, None when the pool is closed; `waited`: this thread comes because it was called."""
        with self._job_ready:
            while True:
                if waited:
                    self._coming = False
                if self._jobs:
                    job = self._jobs.popleft()
                    self._call_thread()
                    return job
                if self._closed:
                    return None
                self._idle += 1
                self._job_ready.wait()
                self._idle -= 1
                waited = True

    def _work(self) -> None:
        job = self._next_job(waited=True)
        while job is not None:
            said: object = None
            try:
                said = job()
            except BaseException as error:  # the thread loop: whatever a job does, the place is given back
                logger.error("pool.job_died", error=type(error).__name__)
            finally:
                with self._place_free:
                    self._busy -= 1
                    self._kept += said is GOES_ON
                    self._place_free.notify_all()
            job = self._next_job(waited=False)

    def wait_idle(self, timeout_s: float | None, *, hurried: Callable[[], bool] = lambda: False) -> bool:
        """Wait until nothing runs; False when `timeout_s` passed first, or `hurried` turned true.

        Whoever makes `hurried` true calls `nudge`.
        """
        with self._place_free:
            self._place_free.wait_for(lambda: self._is_idle() or hurried(), timeout_s)
            return self._is_idle()

    def _is_idle(self) -> bool:
        return self._busy == 0 and self._kept == 0

    def close(self) -> None:
        """Take no more work; threads end when what they run has ended."""
        with self._lock:
            self._closed = True
            self._job_ready.notify_all()
            self._place_free.notify_all()


class CoroutineRunner:
    """One event loop on one thread, started with the first coroutine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, object]) -> object:
        """Run `coroutine` on the loop under the caller's context and wait for it; raises what it raises."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._serve, args=(self._loop,), name="memos-async", daemon=True
                ).start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        stopped = False
        try:
            while not stopped:
                try:
                    loop.run_forever()
                    stopped = True
                except (SystemExit, KeyboardInterrupt):
                    continue  # asyncio passes these out of the loop; the handler's caller gets them too
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.close()

    def close(self) -> None:
        """Cancel what still runs and end the loop; a later `run` starts a new one."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
