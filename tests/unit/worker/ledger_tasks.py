"""Handlers for the workers of the tests: what they did stands in a file, one line for each step."""

from __future__ import annotations

import os
import time
from pathlib import Path


def note(*words: object) -> None:
    """Append a line; short lines of several processes do not mix."""
    with Path(os.environ["LEDGER"]).open("a", encoding="utf-8") as ledger:
        ledger.write(" ".join(map(str, words)) + "\n")


def quick(messages: list) -> None:
    for message in messages:
        note("ran", message.content, os.getpid())


def slow(messages: list) -> None:
    """Runs for as many seconds as its message says."""
    for message in messages:
        note("began", message.content, os.getpid())
        time.sleep(float(message.content))
        note("ended", message.content, os.getpid())


def threads(messages: list) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    note("threads", *(os.environ.get(name) for name in names))


HANDLERS = {"quick": quick, "slow": slow, "threads": threads}
