"""Vectors for items that have none, and the change to another embedding model.

`rebind` forgets the vectors of another model and binds the store to the given one; `fill` encodes what
has no vector, batch by batch, each batch committed: an interrupted run goes on where it stopped. Items
stay recallable by text and links all the while.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from memos.memory.indexer import Indexer
from memos.memory.item import MemoryItem
from memos.memory.store import MemoryStore
from memos.models.base import Embedder, Vectors


def is_bound_elsewhere(store: MemoryStore, embedder: Embedder) -> bool:
    """Whether the stored vectors come from another model than `embedder`."""
    stored = store.vector_fingerprint()
    return stored is not None and stored != (embedder.fingerprint, embedder.dim)


def rebind(store: MemoryStore, embedder: Embedder) -> bool:
    """Bind the store to `embedder`, forgetting vectors of another model. True when there were such."""
    if not is_bound_elsewhere(store, embedder):
        store.bind_embedder(embedder.fingerprint, embedder.dim)
        return False
    store.drop_vectors(embedder.fingerprint, embedder.dim)
    return True


def fill(
    store: MemoryStore,
    indexer: Indexer,
    *,
    batch_size: int = 64,
    on_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Encode every live item that has no vector; `on_progress` is told the count so far. Returns it.

    Raises what the embedder raises, after committing the batches before; stops when a batch brings no
    vector at all, so that a text which cannot be encoded cannot loop for ever.
    """
    done = 0
    while items := store.without_vector(limit=batch_size):
        vectors = _encode(store, indexer, items)
        if not vectors:
            break
        store.put_vectors(vectors)
        done += len(vectors)
        on_progress(done)
    return done


def _encode(store: MemoryStore, indexer: Indexer, items: list[MemoryItem]) -> dict[str, Vectors]:
    by_cube: dict[str, list[MemoryItem]] = defaultdict(list)
    for item in items:
        by_cube[item.cube_id].append(item)
    vectors: dict[str, Vectors] = {}
    for cube_id, of_cube in by_cube.items():
        with store.read(cube_id) as view:
            participants = view.participants()
        for indexed in indexer.index(of_cube, participants=participants):
            if indexed.vector is not None:
                vectors[indexed.item.id] = indexed.vector
    return vectors
