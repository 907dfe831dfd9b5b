"""Sentence vectors kept on disk by content hash, so that a second run encodes nothing again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memos.models.base import Embedder, Vectors

FOLDER = Path(__file__).parent.parent / ".cache"


class DiskCachedEmbedder:
    """Fulfils `Embedder` by way of another one. Call `save` to keep what was encoded; not thread-safe."""

    def __init__(self, inner: Embedder, *, folder: Path = FOLDER) -> None:
        self._inner = inner
        self._file = folder / f"vectors-{inner.fingerprint}.npz"
        self._kept: dict[str, Vectors] = {}
        self._fresh = 0
        if self._file.exists():
            with np.load(self._file) as stored:
                self._kept = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    @property
    def dim(self) -> int:
        return self._inner.dim

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the inner embedder's, each distinct text encoded once ever."""
        keys = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._kept}
        if missing:
            self._kept.update(zip(missing, self._inner.embed(list(missing.values())), strict=True))
            self._fresh += len(missing)
        return np.array([self._kept[key] for key in keys], dtype=np.float32).reshape(len(texts), self.dim)

    def save(self) -> None:
        """Write everything, if there is something new."""
        if not self._fresh:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp.npz")
        np.savez(temporary, keys=np.array(list(self._kept)), vectors=np.array(list(self._kept.values())))
        temporary.replace(self._file)
        self._fresh = 0
