"""The embedded memory store: one SQLite file in WAL mode, one writer, parallel readers.

    cube ──< item ──< posting (cube, term, item, tf, length)     lexical index, live items only
      │        ├────< mention (cube, sort, live, name, item)     links, participants, tags
      │        ├────── vector  (item, float32)
      │        ├────── alias   (id given out -> the item it stands for)
      │        └────── working (cube, place, item, score, why)   references, versioned by the cube
      ├──< journal (n, what, who, before, after, chain)          append-only, hash chain per cube
      └──< state   (cube, name, JSON)
    block ──< block_item, prefix ──< prefix_item (item, place)   activation: a trigger on item keeps them true
    mark, outbox (message keys)      web_log (bounded)      meta (store id, embedder, counts)

Guarantees beyond the contract (`memos.memory.store`)
* A call that returned survives a power cut (`synchronous=FULL`); one that raised left no trace.
* Several processes may share the file: a write waits `busy_timeout_s` for the others, then raises
  StoreUnavailable. Readers never wait, and each view is one snapshot.
* `apply` raises a cube's `seq` once per transaction. `PutState` and vectors raise it without a journal
  row; a status that is already there raises nothing.
* Only `ReplaceWorking` raises the version of the working set; an item that leaves it because it is no
  longer live is journalled but is no conflict for somebody who replaces the set meanwhile.
* Nothing but the standard library's `sqlite3` is needed, and no loadable extension.

What it does not do: network file systems (WAL needs shared memory), encryption at rest.
"""

from __future__ import annotations

from memos.memory.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
