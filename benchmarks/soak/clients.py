"""Users who add, search and chat through any server, try again after an error, and keep a ledger of what was answered.

Each user says what no other user says, so that a text in the wrong hands is seen in the answer it stands in. An add
carries a message id, so that a repeat is the same add; a chat does not, and is not repeated. The ledger is outside of
what is judged: what stands in it as answered has to be in the store once, whatever happened meanwhile.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.soak.site import Process

PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 1.0
WORD = re.compile(r"quartz(\w+?)x(\d+)")


def text_of(user: str, number: int) -> str:
    """What a user says: one preference, that nobody else has."""
    return f"I love quartz{user}x{number}."


def fact_of(user: str, number: int) -> str:
    """What is read from it."""
    return f"The user likes quartz{user}x{number}."


@dataclass(frozen=True, slots=True)
class Answered:
    """One thing that a user asked for, from the moment it was wanted to its answer. `ok` False: given up."""

    kind: str
    user: str
    number: int
    wanted_at: float
    took_s: float
    tries: int
    ok: bool


@dataclass
class Ledger:
    """What clients saw. Thread-safe."""

    answered: list[Answered] = field(default_factory=list)
    tried: dict[str, set[int]] = field(
        default_factory=dict
    )  # by user: adds of which an answer is open or came
    errors: Counter[str] = field(default_factory=Counter)  # each try's, by kind
    given_up: Counter[str] = field(default_factory=Counter)  # the last one of what was not tried again
    foreign: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # requests that no other try could mend
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, one: Answered, errors: Sequence[str]) -> None:
        with self._lock:
            self.answered.append(one)
            self.errors.update(errors)
            if not one.ok:
                self.given_up[errors[-1]] += 1

    def begin(self, user: str, number: int) -> None:
        with self._lock:
            self.tried.setdefault(user, set()).add(number)

    def saw(self, user: str, texts: Sequence[str]) -> None:
        """Texts in an answer to `user`: whatever names another one is foreign."""
        wrong = [text for text in texts for owner, _ in WORD.findall(text) if owner != user]
        if wrong:
            with self._lock:
                self.foreign += [f"{user} was shown {text!r}" for text in wrong]

    def acknowledged(self, user: str) -> set[int]:
        with self._lock:
            return {one.number for one in self.answered if one.ok and one.kind == "add" and one.user == user}

    @property
    def adds(self) -> int:
        return sum(one.ok and one.kind == "add" for one in list(self.answered))


class Caller:
    """Calls for any user. One thread at a time uses one; it holds a connection to each server."""

    def __init__(
        self,
        servers: Sequence[Process],
        ledger: Ledger,
        *,
        timeout_s: float,
        patience_s: float,
        source: random.Random,
    ) -> None:
        """`timeout_s`: of one try; `patience_s`: after which something is given up."""
        self._servers = list(servers)
        self._ledger = ledger
        self._patience_s = patience_s
        self._random = source
        self._http = [httpx.Client(base_url=one.url, timeout=timeout_s, trust_env=False) for one in servers]

    def add(self, user: str, number: int, *, wanted_at: float | None = None) -> bool:
        """Add the user's text of that number; whether it was acknowledged."""
        self._ledger.begin(user, number)
        turn = {"role": "user", "content": text_of(user, number), "message_id": f"{user}-{number}"}
        body = {"user_id": user, "session_id": "s", "messages": [turn]}
        return self._call("add", user, number, "/product/add", body, wanted_at) is not None

    def search(self, user: str, number: int, *, wanted_at: float | None = None) -> dict[str, Any] | None:
        """Search for it: words that every user's texts hold, and its own."""
        body = {"user_id": user, "query": f"Do I love quartz{user}x{number}?", "relativity": 0, "top_k": 10}
        answer = self._call("search", user, number, "/product/search", body, wanted_at)
        if answer is not None:
            self._ledger.saw(user, texts_in(answer))
        return answer

    def chat(self, user: str, number: int, *, wanted_at: float | None = None) -> bool:
        """Ask about it; once, as a chat that is repeated is another one."""
        body = {"user_id": user, "query": f"Do I love quartz{user}x{number}?", "session_id": "chat"}
        answer = self._call("chat", user, number, "/product/chat/complete", body, wanted_at, again=False)
        if answer is not None:
            self._ledger.saw(user, [str(answer)])
        return answer is not None

    def _call(
        self,
        kind: str,
        user: str,
        number: int,
        path: str,
        body: dict[str, Any],
        wanted_at: float | None,
        *,
        again: bool = True,
    ) -> dict[str, Any] | None:
        began = time.monotonic() if wanted_at is None else wanted_at
        errors: list[str] = []
        pause_s = PAUSE_MIN_S
        first = self._random.randrange(len(self._servers))
        while True:
            answer: dict[str, Any] | None = None
            try:
                said = self._http[(first + len(errors)) % len(self._http)].post(path, json=body)
                if said.status_code == 200:
                    answer = said.json()
                else:
                    errors.append(str(said.status_code))
                    if said.status_code < 500:
                        self._ledger.refused.append(f"{kind}: {said.status_code} {said.text[:200]}")
                        again = False
            except httpx.TransportError as error:
                errors.append(type(error).__name__)
            late = time.monotonic() - began
            if answer is not None or not again or late > self._patience_s:
                ok = answer is not None
                self._ledger.note(Answered(kind, user, number, began, late, len(errors) + ok, ok), errors)
                return answer
            time.sleep(pause_s * self._random.uniform(0.5, 1.0))
            pause_s = min(PAUSE_MAX_S, 2 * pause_s)

    def close(self) -> None:
        for one in self._http:
            one.close()


def texts_in(answer: object) -> list[str]:
    """Every text anywhere in an answer."""
    if isinstance(answer, str):
        return [answer]
    if isinstance(answer, dict):
        return [text for one in answer.values() for text in texts_in(one)]
    if isinstance(answer, list):
        return [text for one in answer for text in texts_in(one)]
    return []


class Crowd:
    """A thread for each user, who does one thing after the other until the block ends."""

    def __init__(
        self,
        servers: Sequence[Process],
        users: Sequence[str],
        *,
        timeout_s: float = 5.0,
        patience_s: float = 60.0,
        pause_s: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.ledger = Ledger()
        self.users = tuple(users)
        self._pause_s = pause_s
        self._over = threading.Event()
        self._callers = [
            Caller(
                servers,
                self.ledger,
                timeout_s=timeout_s,
                patience_s=patience_s,
                source=random.Random(f"{seed} {user}"),
            )
            for user in users
        ]
        self._threads = [
            threading.Thread(target=self._work, args=(user, caller), name=f"user {user}")
            for user, caller in zip(users, self._callers, strict=True)
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for caller in self._callers:
            caller.close()

    def _work(self, user: str, caller: Caller) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            caller.add(user, number)
            caller.search(user, number)
            if number % 5 == 0:
                caller.chat(user, number)
            self._over.wait(self._pause_s)
