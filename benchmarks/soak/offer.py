"""Work offered at a rate, whether or not it is served: arrivals at random (Poisson), latencies from the moment at which
something was wanted. A closed loop would ask less while the system is slow, and look well in its worst moments.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence

from benchmarks.soak.clients import Caller, Ledger
from benchmarks.soak.site import Process

CALLERS = 48
KINDS, SHARES = ("add", "search", "chat"), (0.6, 0.35, 0.05)
TIMEOUT_S, PATIENCE_S = 15.0, 60.0
DROP_S = 20.0


class Offer:
    """Offers until the block ends, and then waits for what is under way, and a while for what no caller has taken up."""

    def __init__(self, servers: Sequence[Process], users: Sequence[str], *, rate: float, seed: int) -> None:
        self._rate = rate
        self.ledger = Ledger()
        self.offered = 0
        self.dropped = 0  # wanted, and not taken up in the end
        self._drop_at = float("inf")
        self._lock = threading.Lock()
        self._users = list(users)
        self._random = random.Random(seed)
        self._numbers: Counter[str] = Counter()
        self._over = threading.Event()
        self._wanted: queue.SimpleQueue[tuple[str, str, int, float] | None] = queue.SimpleQueue()
        self._callers = [
            Caller(
                servers,
                self.ledger,
                timeout_s=TIMEOUT_S,
                patience_s=PATIENCE_S,
                source=random.Random(f"{seed} {number}"),
            )
            for number in range(CALLERS)
        ]
        self._threads = [threading.Thread(target=self._arrive, name="arrivals")]
        self._threads += [threading.Thread(target=self._call, args=(one,)) for one in self._callers]

    @property
    def waiting(self) -> int:
        """Requests that no caller has taken up yet."""
        return self._wanted.qsize()

    def __enter__(self) -> Offer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_at = time.monotonic() + DROP_S
        self._over.set()
        for thread in self._threads:
            thread.join()
        for caller in self._callers:
            caller.close()

    def _arrive(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            due += self._random.expovariate(self._rate)
            if self._over.wait(max(0.0, due - time.monotonic())):
                break
            [kind] = self._random.choices(KINDS, SHARES)
            user = self._random.choice(self._users)
            if kind == "add":
                self._numbers[user] += 1
            self.offered += 1
            self._wanted.put((kind, user, max(1, self._numbers[user]), due))
        for _ in self._callers:
            self._wanted.put(None)

    def _call(self, caller: Caller) -> None:
        while (one := self._wanted.get()) is not None:
            kind, user, number, due = one
            if time.monotonic() > self._drop_at:
                with self._lock:
                    self.dropped += 1
                continue
            if kind == "add":
                caller.add(user, number, wanted_at=due)
            elif kind == "search":
                caller.search(user, number, wanted_at=due)
            else:
                caller.chat(user, number, wanted_at=due)
