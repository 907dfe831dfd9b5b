"""The port to whatever keeps a prefix ready: an endpoint's own cache, a server's slot, tensors in a file.

What every backend guarantees
* Thread-safe. It raises `memos.errors.ActivationError` and its children (a prefix could not be used:
  the chat goes on without), and `ModelError` when the model itself fails.
* A prepared prefix is immutable: `generate` leaves what the handle names as it was, `extend` makes another.
* A handle of another model, tokenizer or template is refused (`ActivationMiss`, reason `fingerprint`).
* Whether a prefix was really reused is looked up, never assumed: `reused_tokens` says 0 and why.
* Text is tokenised in lines: the ids of a chat whose system message begins with the lines of a layout begin
  with the ids of that layout, whatever follows.

What a backend does not do: it decides no order (`layout`), keeps no index from memories to prefixes (the
store does) and starts no build by itself: `generate` never prepares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from memos.errors import ActivationMiss
from memos.models.base import ChatMessage


class MissReason(StrEnum):
    """Why the tokens of a prefix were read again. The value is the label in metrics, logs and answers."""

    NONE = "none"  # they were not
    DISABLED = "disabled"  # activation memory is switched off
    NO_MODEL = "no_model"  # no language model answers
    NO_MEMORIES = "no_memories"  # the memory block is empty
    FILTERED = "filtered"  # the query has a filter: it gets no block that others share
    NOT_BUILT = "not_built"  # nothing is prepared for this reader yet
    TOO_SHORT = "too_short"  # shorter than what is worth a build, or than what the server caches
    INVALIDATED = "invalidated"  # a memory in it changed or went
    FINGERPRINT = "fingerprint"  # made by another model, tokenizer, template or adapter
    TOKENS = "tokens"  # the chat's tokens part from the prefix before its first line ends
    MISSING = "missing"  # the file, slot or entry is gone
    DAMAGED = "damaged"  # cut off, edited, a checksum or a shape that does not fit
    FORMAT = "format"  # a format that is not read (another version, a pickle)
    EXPIRED = "expired"  # older than its time to live
    EVICTED = "evicted"  # made room for others
    UNSUPPORTED = "unsupported"  # the model or server cannot keep prefixes
    UNREACHABLE = "unreachable"  # the server does not answer
    NOT_REUSED = "not_reused"  # the server had it, and read everything again
    UNTOLD = "untold"  # the server does not say what it reused
    FAILED = "failed"  # anything else; the log has the cause


@dataclass(frozen=True, slots=True)
class Entry:
    """One memory in the block. `text` is its line as the model reads it, with its one line end."""

    item_id: str
    version: int
    text: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The stable beginning of a chat: the content of its system message, line by line.

    header: what stands before the memories (the system prompt, the opening of the block), line-ended.
    namespace: who may share what is prepared (a digest of cube and reader); a salt, and a folder name.
    """

    namespace: str
    header: str
    entries: tuple[Entry, ...] = ()

    @property
    def text(self) -> str:
        """Header and entries, as the model reads them."""
        return self.header + "".join(entry.text for entry in self.entries)

    @property
    def parts(self) -> tuple[str, ...]:
        """What is tokenised by itself: the header, then each entry."""
        return (self.header, *(entry.text for entry in self.entries))

    def common_entries(self, other: Layout) -> int:
        """How many entries both begin with; -1 when they are not even in one namespace or headers differ."""
        if (self.namespace, self.header) != (other.namespace, other.header):
            return -1
        shared = 0
        for mine, theirs in zip(self.entries, other.entries, strict=False):
            if mine != theirs:
                break
            shared += 1
        return shared


@dataclass(frozen=True, slots=True)
class Handle:
    """A prepared prefix. Plain values: it is kept in the store and works in another process.

    id: the backend's name for it (a segment chain, a slot file, a cache key).
    ends: tokens up to the end of each part of the layout, so `ends[0]` is the header and `ends[-1]` all;
    empty where the backend counts no tokens. A chat gives a handle back with the part of its layout (and its
    `ends`) that the chat's own layout begins with; `tokens` stays that of the whole.
    """

    id: str
    fingerprint: str
    layout: Layout
    tokens: int
    bytes: int = 0
    ends: tuple[int, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)  # what the backend needs to find it again


@dataclass(frozen=True, slots=True)
class Suffix:
    """One chat on top of a prefix. `layout` is the chat's own, whole: the handle may hold an older one, of
    which the beginning that both share is used."""

    layout: Layout
    messages: tuple[ChatMessage, ...]  # what follows the system message: history, the question
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    timeout_s: float | None = None

    @property
    def chat(self) -> tuple[ChatMessage, ...]:
        """The whole chat."""
        return (ChatMessage("system", self.layout.text), *self.messages)


@dataclass(frozen=True, slots=True)
class Response:
    """What is known when an answer is complete. `tokens_cached=None`: the server does not say."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int | None = None
    reason: MissReason = MissReason.NONE  # why less was reused than the handle holds
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reuse:
    """Tokens of the prompt that were not computed again, and why not more."""

    tokens: int
    reason: MissReason = MissReason.NONE


class Generation:
    """An answer in pieces. Iterate once; `response` is there afterwards."""

    def __init__(self, pieces: Iterator[str], finish: Callable[[], Response]) -> None:
        self._pieces = pieces
        self._finish = finish
        self._response: Response | None = None

    def __iter__(self) -> Iterator[str]:
        yield from self._pieces
        self._response = self._finish()

    @property
    def is_complete(self) -> bool:
        """Whether the answer was read to its end."""
        return self._response is not None

    @property
    def response(self) -> Response:
        """Raises ActivationMiss (`failed`) while the answer is not complete."""
        if self._response is None:
            raise ActivationMiss(MissReason.FAILED, "the answer is not complete yet")
        return self._response


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do. level: 0 any endpoint, 1 warmed prefix cache, 2 slots, 3 tensors."""

    level: int
    name: str  # "openai", "vllm", "sglang", "llama.cpp", "transformers"
    builds: bool  # `prepare` makes something; else the text's stability alone is at work
    extends: bool  # `extend` costs less than `prepare`
    survives_restart: bool  # of the runtime that keeps it
    token_ids: bool  # `tokenize` gives the model's ids
    tells_reuse: bool  # responses say how much was reused


class ActivationBackend(Protocol):
    """See the module docstring for what every backend guarantees."""

    def capabilities(self) -> Capabilities:
        """Costs no call to a server that has been asked once."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever a prepared prefix would no longer fit: weights, dtype, adapters, tokenizer,
        template. Raises ActivationUnsupported for a model whose cache cannot be cut or kept."""
        ...

    def tokenize(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """Ids of the chat as the template renders it, without the opening of an answer. In lines: see above.
        Raises ActivationUnsupported where `capabilities().token_ids` is False."""
        ...

    def prepare(self, layout: Layout) -> Handle:
        """Compute and keep the whole prefix. Slow: never on the chat path. A prefix that is kept already is
        given again. Raises ActivationError, ModelError; nothing half-made stays."""
        ...

    def extend(self, handle: Handle, keep: int, ids: Sequence[int], *, layout: Layout) -> Handle:
        """The first `keep` tokens of `handle` and what follows them in `layout`, as the prefix of `layout`.

        `ids`: the tokens of `layout` after `keep`, where the caller has them; without, the backend makes them
        from the layout (a layout that ends at `keep` is a cut). `handle` stays as it is: `drop` it when nobody
        wants it. A backend without token ids goes by the layout alone.
        """
        ...

    def generate(self, handle: Handle, suffix: Suffix) -> Generation:
        """Answer. ActivationMiss, here or when the first piece is asked for, when nothing of the handle can be
        used. The generation is read to its end or closed."""
        ...

    def reused_tokens(self, response: Response) -> Reuse:
        """What was really reused; 0 with a reason when nothing was."""
        ...

    def drop(self, handle: Handle) -> int:
        """Remove what only this handle holds; the bytes that went. One that is gone already is 0."""
        ...

    def drop_namespace(self, namespace: str) -> int:
        """Remove everything of a namespace; the bytes that went."""
        ...
