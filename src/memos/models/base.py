"""The ports through which every model is reached: embedder, reranker, language model.

Guarantees: implementations are thread-safe and raise only `memos.errors.ModelError` and its children.
They never retry: retries live in the queue. A part that has no model holds `None`, not a fake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors: TypeAlias = npt.NDArray[np.float32]
else:  # importing the ports must not load numpy
    Vectors = Any


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors of the same text would change (weights, tokenizer, pooling)."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape `(n, dim)` float32, each row of length 1, in the order of `texts`; `(0, dim)` for none."""
        ...


class Reranker(Protocol):
    """Scores texts against a query."""

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """One score per text, in input order; larger is more relevant."""
        ...


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a prompt."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    images: tuple[str, ...] = ()  # data URLs, for models that see


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's whole reply. `parsed` is set when a schema was asked for and met."""

    text: str
    parsed: Mapping[str, Any] | None = None
    reasoning: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


class LLM(Protocol):
    """A chat model."""

    @property
    def name(self) -> str:
        """What the model is called, for logs and answers."""
        ...

    def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Completion:
        """One reply. Raises ModelUnavailable, RateLimited or BadCompletion (a schema was not met).

        temperature, top_p: of this call; None: as the model was configured.
        """
        ...

    def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Iterator[str]:
        """The reply in pieces, as they come."""
        ...
