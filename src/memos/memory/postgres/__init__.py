"""The memory store on PostgreSQL 14 or newer: several machines, the same rules as the embedded store.

    cube ──< item_key (id -> cube, number)                       ids, unique over all partitions
      │  ├─< item     (every field, as in the embedded store)    ╮
      │  ├─< lexicon  (item, length, terms[], counts[])   GIN    │ partitioned by a hash of the cube
      │  ├─< mention  (sort, live, name, item)                   │
      │  ├─< vector   (item, float32)                            │
      │  ├─< vector_index (item, halfvec)                 HNSW   │ with pgvector
      │  ├─< journal  (n, what, who, before, after, chain)       ╯
      │  ├─< alias, working, state
    mark, outbox (message keys)   web_log (bounded)   meta   migration (number, name, checksum)

Guarantees beyond the contract (`memos.memory.store`)
* Writers of one cube wait for each other on its row; writers of different cubes do not. A deadlock, a
  serialisation failure or a lock that is held too long is StoreUnavailable, which the queue tries again.
* A view is one REPEATABLE READ snapshot and holds no lock.
* Every transaction runs as a role that does not own the tables, in a scope: row-level security shows it the
  cubes of that scope, and nothing where none was said (`migrations/0002_fence.sql`).
* What a call that returned is worth after a power cut is what `synchronous_commit` says (docs/postgres.md).

What it does not do: pool connections across processes, replicate, or speak to other databases.
"""

from __future__ import annotations

from memos.memory.postgres.address import PoolBounds, PostgresAddress
from memos.memory.postgres.store import PostgresStore

__all__ = ["PoolBounds", "PostgresAddress", "PostgresStore"]
