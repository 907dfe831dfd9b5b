"""A backend that keeps prefixes in this process: text instead of tensors, one token a word. For tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from memos.errors import ActivationMiss, ActivationUnsupported
from memos.memory.activation.base import (
    Capabilities,
    Generation,
    Handle,
    Layout,
    MissReason,
    Response,
    Reuse,
    Suffix,
)
from memos.models.base import ChatMessage


def words(text: str) -> int:
    return len(text.split())


@dataclass
class KeptInMemory:
    """`before` is called with the name of each method: raise there to make it fail."""

    model: str = "one"
    name: str = "in_memory"
    answer: str = "yes"
    kept: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    prepared: list[Layout] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda name: None
    forgets: bool = False  # the runtime reports success and reads everything again
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.before(name)

    def capabilities(self) -> Capabilities:
        return Capabilities(2, self.name, True, True, True, False, True)

    def fingerprint(self) -> str:
        return self.model

    def tokenize(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        raise ActivationUnsupported("words have no ids")

    def prepare(self, layout: Layout) -> Handle:
        self._called("prepare")
        return self._made(layout)

    def extend(self, handle: Handle, keep: int, ids: Sequence[int], *, layout: Layout) -> Handle:
        self._called("extend")
        kept = self.kept.get(handle.id, "")
        assert words(handle.layout.text) == keep and kept.startswith(handle.layout.text)
        return self._made(layout)

    def _made(self, layout: Layout) -> Handle:
        name = f"{layout.namespace[:8]}-{abs(hash(layout.text))}"
        ends, spent = [], 0
        for part in layout.parts:
            spent += words(part)
            ends.append(spent)
        with self.lock:
            self.kept[name] = layout.text
            self.prepared.append(layout)
        return Handle(name, self.model, layout, tokens=spent, bytes=len(layout.text), ends=tuple(ends))

    def generate(self, handle: Handle, suffix: Suffix) -> Generation:
        self._called("generate")
        if handle.fingerprint != self.model:
            raise ActivationMiss(MissReason.FINGERPRINT)
        kept = self.kept.get(handle.id)
        if kept is None:
            raise ActivationMiss(MissReason.MISSING, handle.id)
        shared = handle.layout.text if suffix.layout.text.startswith(handle.layout.text) else ""
        assert kept.startswith(shared)
        reused = 0 if self.forgets else words(shared)
        prompt = sum(words(one.content) for one in suffix.chat)

        def pieces() -> Iterator[str]:
            yield from self.answer.split(" ")

        return Generation(pieces(), lambda: Response(prompt, 1, reused))

    def reused_tokens(self, response: Response) -> Reuse:
        cached = response.tokens_cached or 0
        return Reuse(cached, MissReason.NONE if cached else MissReason.NOT_REUSED)

    def drop(self, handle: Handle) -> int:
        self._called("drop")
        self.dropped.append(handle.id)
        return len(self.kept.pop(handle.id, ""))

    def drop_namespace(self, namespace: str) -> int:
        gone = [one for one in self.kept if one.startswith(namespace[:8])]
        return sum(len(self.kept.pop(one)) for one in gone)
