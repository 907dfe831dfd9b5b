"""What bare redis-py with hiredis does on the same server with the same bytes: the floors of QUEUE rates.

Rates are messages per second; each function leaves its stream empty or takes it away.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.queue.workload import SUBMIT_SIZE

GROUP, CONSUMER = "group", "consumer"


class Floor:
    """One stream with one group."""

    def __init__(self, client: Any, prefix: str, body: bytes) -> None:
        self._client = client
        self._stream = f"{prefix}-floor"
        self._body = {b"b": body}
        client.delete(self._stream)
        client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)

    def submit_single(self, count: int) -> float:
        """One XADD a round trip."""
        started = time.perf_counter()
        for _ in range(count):
            self._client.xadd(self._stream, self._body)
        return count / (time.perf_counter() - started)

    def submit_batch(self, count: int) -> float:
        """XADD pipelined 500 at a time."""
        started = time.perf_counter()
        for _ in range(count // SUBMIT_SIZE):
            self._pipe()
        return count / (time.perf_counter() - started)

    def drain(self) -> float:
        """XREADGROUP 500 and one XACK, until the stream is read."""
        count = 0
        started = time.perf_counter()
        while size := self._read():
            count += size
        rate = count / (time.perf_counter() - started)
        self._client.xtrim(self._stream, maxlen=0, approximate=False)
        return rate

    def cycle(self, count: int) -> float:
        """Pipeline 500, read 500, one XACK."""
        started = time.perf_counter()
        for _ in range(count // SUBMIT_SIZE):
            self._pipe()
            self._read()
        rate = count / (time.perf_counter() - started)
        self._client.xtrim(self._stream, maxlen=0, approximate=False)
        return rate

    def wake_ms(self, samples: int) -> list[float]:
        """From just before an XADD to the return of an XREADGROUP BLOCK in another thread."""
        took: list[float] = []
        sent = [0.0]
        ready = threading.Semaphore(0)

        def consume() -> None:
            for _ in range(samples):
                ready.release()
                self._read(block_ms=60_000)
                took.append((time.perf_counter() - sent[0]) * 1_000)

        consumer = threading.Thread(target=consume)
        consumer.start()
        for _ in range(samples):
            ready.acquire()
            time.sleep(0.005)  # let the read begin to block
            sent[0] = time.perf_counter()
            self._client.xadd(self._stream, self._body)
        consumer.join()
        self._client.xtrim(self._stream, maxlen=0, approximate=False)
        return took

    def close(self) -> None:
        self._client.delete(self._stream)

    def _pipe(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for _ in range(SUBMIT_SIZE):
            pipeline.xadd(self._stream, self._body)
        pipeline.execute()

    def _read(self, block_ms: int | None = None) -> int:
        answer = self._client.xreadgroup(
            GROUP, CONSUMER, {self._stream: ">"}, count=SUBMIT_SIZE, block=block_ms
        )
        if not answer:
            return 0
        [(_, entries)] = answer.items() if isinstance(answer, dict) else answer
        if isinstance(answer, dict):
            [entries] = entries
        self._client.xack(self._stream, GROUP, *[entry_id for entry_id, _ in entries])
        return len(entries)
