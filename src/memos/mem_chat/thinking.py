"""Splits a model's stream into reasoning and answer, for models that think between <think> and </think>.

A tag may come in pieces: what could still become a tag is held back until it is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

OPEN, CLOSE = "<think>", "</think>"


def split_thinking(pieces: Iterable[str]) -> Iterator[tuple[bool, str]]:
    """(is reasoning, text) for each piece of text, in order; empty texts are left out.

    Only an opening tag before the first visible character counts: later ones belong to the answer.
    """
    held = ""
    phase: Literal["start", "thinking", "gap", "answer"] = "start"
    for piece in pieces:
        held += piece
        if phase == "start":
            held = held.lstrip()
            if held.startswith(OPEN):
                held, phase = held[len(OPEN) :], "thinking"
            elif not OPEN.startswith(held):
                phase = "answer"
        if phase == "thinking":
            thought, closed, rest = held.partition(CLOSE)
            if closed:
                held, phase = rest, "gap"
            else:
                keep = _could_begin(CLOSE, held)
                thought, held = held[: len(held) - keep], held[len(held) - keep :]
            if thought:
                yield True, thought
        if phase == "gap":
            held = held.lstrip()
            if held:
                phase = "answer"
        if phase == "answer" and held:
            yield False, held
            held = ""
    if held:
        yield phase == "thinking", held


def _could_begin(tag: str, text: str) -> int:
    """How many characters at the end of `text` could be the beginning of `tag`."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-n:])), 0)
