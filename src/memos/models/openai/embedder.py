"""An embedding model behind an OpenAI-compatible endpoint.

The dimension is probed when the object is made, never configured: a wrong number there breaks a store.
The fingerprint names host, model and dimension, so a store that was filled by another model refuses this
one and names `memos reembed`. Texts go out in batches of at most `batch_max`, each cut at
`TEXT_CHARS_MAX` characters, which hosted models take; a batch is sent once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

from memos.clock import Clock
from memos.errors import BadCompletion, InvalidInput
from memos.models.base import Vectors
from memos.models.openai.endpoint import OPENAI_URL, Endpoint, sendable
from memos.models.openai.reply import vectors_of

TIMEOUT_S = 30.0
BATCH_MAX = 64
TEXT_CHARS_MAX = 8_000
DIM_MAX = 16_384


class OpenAIEmbedder:
    """Fulfils `memos.models.base.Embedder`. Thread-safe. Making one asks the endpoint for one vector and
    raises what that raises."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str = OPENAI_URL,
        api_key: str = "",
        timeout_s: float = TIMEOUT_S,
        batch_max: int = BATCH_MAX,
        clock: Clock | None = None,
    ) -> None:
        if not model:
            raise InvalidInput("an embedding model is needed by name, as nomic-embed-text")
        if batch_max < 1:
            raise InvalidInput(f"batch_max must be at least 1, got {batch_max}")
        self._endpoint = Endpoint(base_url, api_key=api_key, timeout_s=timeout_s, clock=clock)
        self._model = model
        self._batch_max = batch_max
        self._dim = 0
        try:
            self._dim = int(self._batch(["probe"]).shape[1])
        except BaseException:
            self._endpoint.close()
            raise

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def fingerprint(self) -> str:
        return f"openai:{self._endpoint.host}:{self._model}:{self._dim}"

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the port says. A batch that fails fails the call."""
        import numpy as np

        if isinstance(texts, str):
            raise InvalidInput("embed takes a sequence of texts, not one text: wrap it in a list")
        if not texts:
            return np.zeros((0, self._dim), dtype=np.float32)
        batches = range(0, len(texts), self._batch_max)
        return np.concatenate([self._batch(texts[at : at + self._batch_max]) for at in batches])

    def _batch(self, texts: Sequence[str]) -> Vectors:
        import numpy as np

        deadline = self._endpoint.deadline(None)
        create = cast(Any, self._endpoint.client.embeddings.with_streaming_response.create)
        opened: AbstractContextManager[Any] = create(
            model=self._model,
            input=[sendable(text[:TEXT_CHARS_MAX]) or " " for text in texts],  # "" is refused by some
            encoding_format="float",
            timeout=self._endpoint.timeout(deadline),
        )
        body = self._endpoint.body(opened, deadline=deadline)
        rows = vectors_of(body, len(texts))
        try:
            vectors = np.asarray(rows, dtype=np.float32)
        except (ValueError, TypeError, OverflowError) as error:
            raise BadCompletion("the embeddings are no numbers of one length", body[:1_000]) from error
        if vectors.ndim != 2 or not 0 < vectors.shape[1] <= DIM_MAX:
            raise BadCompletion(f"embeddings of shape {vectors.shape} came", body[:1_000])
        if self._dim and vectors.shape[1] != self._dim:
            reason = f"embeddings of {vectors.shape[1]} numbers came, at the start they had {self._dim}"
            raise BadCompletion(reason, body[:1_000])
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise BadCompletion("an embedding is zero or not finite", body[:1_000])
        return cast("Vectors", (vectors / lengths).astype(np.float32))
