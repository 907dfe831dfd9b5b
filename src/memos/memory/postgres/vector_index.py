"""The index of vectors: pgvector's HNSW over half precision, whose candidates are scored exactly.

It stands beside the exact vectors (`vector`), for one model at a time, and is made by the owner: when the
model is bound, or by `memos migrate`. It answers for large cubes alone: in a small one comparing with every
vector is both exact and fast, and the graph of a partition holds other cubes too. Filters (the cube, live
items, what the caller allows) are met by an iterative scan (pgvector 0.8), which goes on until enough is
found; when it ends before that, the caller compares with every vector.

Half precision and the graph cost a little recall; twice as many candidates as asked for and their exact
scores win it back (measured in docs/postgres.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql

from memos.memory.postgres.session import Session

DIM_MAX = 4_000  # of an index over half precision
VERSION_MIN = (0, 8)
OVERFETCH = 2
EF_SEARCH_MIN, EF_SEARCH_MAX = 400, 1_000  # 100 lost 3 to 8 points of few asked for, for as much CPU time
SCAN_TUPLES_MAX = 200_000

_EXTENSION = """
SELECT extversion, (SELECT nspname FROM pg_namespace WHERE oid = extnamespace)
FROM pg_extension WHERE extname = 'vector'
"""
_AVAILABLE = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
_META = "SELECT value FROM meta WHERE name = %(name)s"
_PUT_META = """
INSERT INTO meta (name, value) VALUES (%(name)s, %(value)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
_WIDEN_PATH = "SELECT set_config('search_path', current_setting('search_path') || ', ' || quote_ident(%(schema)s), true)"
_HOLD_ALL = "LOCK TABLE cube IN EXCLUSIVE MODE"
_DROP_TABLE = "DROP TABLE IF EXISTS vector_index"
_CREATE = sql.SQL(
    """
CREATE TABLE vector_index (
    cube_no   bigint NOT NULL,
    item_no   bigint NOT NULL,
    embedding halfvec({dim}) NOT NULL,
    PRIMARY KEY (cube_no, item_no)
) PARTITION BY HASH (cube_no)
"""
)
_CREATE_PARTITION = sql.SQL(
    "CREATE TABLE {name} PARTITION OF vector_index FOR VALUES WITH (MODULUS {parts}, REMAINDER {part})"
)
_CREATE_GRAPH = "CREATE INDEX vector_index_graph ON vector_index USING hnsw (embedding halfvec_ip_ops)"
_FENCE = "ALTER TABLE vector_index ENABLE ROW LEVEL SECURITY"
_POLICY = """
CREATE POLICY scope ON vector_index USING
    ((SELECT scope_is_open()) OR cube_no = ANY ((SELECT scope_cubes())::bigint[]))
"""
_EVERY = "SELECT cube_no, item_no, value FROM vector"
_PUT = """
INSERT INTO vector_index (cube_no, item_no, embedding) VALUES (%(cube)s, %(no)s, %(embedding)s::halfvec)
ON CONFLICT (cube_no, item_no) DO UPDATE SET embedding = excluded.embedding
"""
_DROP = "DELETE FROM vector_index WHERE cube_no = %(cube)s AND item_no = %(no)s"
_CLEAR = "DELETE FROM vector_index"
_DIM = "vector_index_dim"
_BOUND_DIM = "embedder_dim"
_SCAN = """
SELECT set_config('hnsw.ef_search', %(ef_search)s::text, true),
       set_config('hnsw.iterative_scan', 'relaxed_order', true),
       set_config('hnsw.max_scan_tuples', %(tuples)s::text, true)
"""
_NEAREST = """
SELECT near.item_no, vector.value
FROM (SELECT vector_index.item_no FROM vector_index
      JOIN item ON item.cube_no = vector_index.cube_no AND item.no = vector_index.item_no AND item.live
      WHERE vector_index.cube_no = %(cube)s
      ORDER BY vector_index.embedding <#> %(embedding)s::halfvec LIMIT %(limit)s) AS near
JOIN vector ON vector.cube_no = %(cube)s AND vector.item_no = near.item_no
"""
_NEAREST_ALLOWED = """
SELECT near.item_no, vector.value
FROM (SELECT vector_index.item_no FROM vector_index
      JOIN item ON item.cube_no = vector_index.cube_no AND item.no = vector_index.item_no AND item.live
      WHERE vector_index.cube_no = %(cube)s AND vector_index.item_no = ANY (%(allowed)s)
      ORDER BY vector_index.embedding <#> %(embedding)s::halfvec LIMIT %(limit)s) AS near
JOIN vector ON vector.cube_no = %(cube)s AND vector.item_no = near.item_no
"""
_THESE = """
SELECT vector.item_no, vector.value FROM vector
JOIN item ON item.cube_no = vector.cube_no AND item.no = vector.item_no AND item.live
WHERE vector.cube_no = %(cube)s AND vector.item_no = ANY (%(allowed)s)
"""
_BATCH = 1_000


def extension(connection: psycopg.Connection[Any]) -> tuple[str, str] | None:
    """(version, schema) of pgvector in this database, if it is there and new enough."""
    row = connection.execute(_EXTENSION).fetchone()
    if row is None:
        return None
    version = tuple(int(part) for part in str(row[0]).split(".")[:2] if part.isdigit())
    return (str(row[0]), str(row[1])) if version >= VERSION_MIN else None


def wanted_dim(connection: psycopg.Connection[Any]) -> int | None:
    """The dimension for which the index still has to be made; None: nothing to do, or none can be made."""
    bound, made = (_meta(connection, name) for name in (_BOUND_DIM, _DIM))
    if not bound or bound == made or int(bound) > DIM_MAX or extension(connection) is None:
        return None
    return int(bound)


def bring_up(connection: psycopg.Connection[Any]) -> bool:
    """Make the index for the bound model, where the extension can be had; as the owner, inside a transaction.

    The search_path stands on the store's schema. Writers wait meanwhile. Whether there is an index now.
    """
    if extension(connection) is None and connection.execute(_AVAILABLE).fetchone() is not None:
        try:
            with connection.transaction():
                connection.execute("CREATE EXTENSION vector WITH SCHEMA public")
        except (errors.InsufficientPrivilege, errors.DuplicateObject, errors.UniqueViolation):
            pass  # an operator has to; docs/postgres.md says how
    found = extension(connection)
    if found is None:
        return False
    connection.execute(_WIDEN_PATH, {"schema": found[1]})
    connection.execute(_HOLD_ALL)
    dim = wanted_dim(connection)
    if dim is None:
        return bool(_meta(connection, _DIM))
    parts = int(_meta(connection, "partitions") or 1)
    connection.execute(_DROP_TABLE)
    connection.execute(_CREATE.format(dim=sql.Literal(dim)))
    for part in range(parts):
        connection.execute(
            _CREATE_PARTITION.format(
                name=sql.Identifier(f"vector_index_{part}"), parts=sql.Literal(parts), part=sql.Literal(part)
            )
        )
    _fill(connection)
    connection.execute(_CREATE_GRAPH)
    connection.execute(_FENCE)
    connection.execute(_POLICY)
    connection.execute(_PUT_META, {"name": _DIM, "value": str(dim)})
    return True


def _fill(connection: psycopg.Connection[Any]) -> None:
    with connection.cursor(name="vectors", scrollable=False) as every, connection.cursor() as writer:
        every.itersize = _BATCH
        every.execute(_EVERY)
        while rows := every.fetchmany(_BATCH):
            writer.executemany(
                _PUT, [{"cube": cube, "no": no, "embedding": _text(value)} for cube, no, value in rows]
            )


def _meta(connection: psycopg.Connection[Any], name: LiteralString) -> str | None:
    row = connection.execute(_META, {"name": name}).fetchone()
    return None if row is None else str(row[0])


def _text(value: bytes) -> str:
    """A vector in the form that pgvector reads. Half precision has four digits."""
    import numpy as np

    numbers = np.clip(np.frombuffer(value, dtype="<f4"), -65_504, 65_504)
    return "[" + ",".join(f"{number:.6g}" for number in numbers.tolist()) + "]"


def dim_of(session: Session) -> int:
    """The dimension of the index that there is; 0 without one. Looked up once a transaction."""
    if session.vector_index_dim is None:
        row = session.row(_META, name=_DIM)
        session.vector_index_dim = int(row[0]) if row is not None and row[0] else 0
    return session.vector_index_dim


def put(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Take vectors into the index, where there is one for their dimension."""
    if rows and dim_of(session) * 4 == len(rows[0]["value"]):
        session.run_many(
            _PUT,
            [{"cube": row["cube"], "no": row["no"], "embedding": _text(row["value"])} for row in rows],
        )


def drop(session: Session, cube_no: int, no: int) -> None:
    """Take a vector out of the index."""
    if dim_of(session):
        session.run(_DROP, cube=cube_no, no=no)


def clear(session: Session) -> None:
    """Take every vector out, and use the index no more: the next model's may be of another dimension."""
    if dim_of(session):
        session.run(_CLEAR)
        session.run(_PUT_META, name=_DIM, value="")
        session.vector_index_dim = 0


def nearest(
    session: Session,
    cube_no: int,
    vector: bytes,
    *,
    limit: int,
    allowed: frozenset[int] | None,
    exact_max: int,
) -> list[tuple[int, bytes]] | None:
    """Candidates with their exact vectors; None where the index cannot answer."""
    if allowed is not None and len(allowed) <= exact_max:
        return [(no, value) for no, value in session.binary_rows(_THESE, cube=cube_no, allowed=list(allowed))]
    if dim_of(session) * 4 != len(vector):
        return None
    count = OVERFETCH * limit
    session.run(
        _SCAN,
        ef_search=min(EF_SEARCH_MAX, max(EF_SEARCH_MIN, count)),
        tuples=SCAN_TUPLES_MAX,
    )
    asked: dict[str, Any] = {"cube": cube_no, "embedding": _text(vector), "limit": count}
    rows = (
        session.binary_rows(_NEAREST, **asked)
        if allowed is None
        else session.binary_rows(_NEAREST_ALLOWED, **asked, allowed=list(allowed))
    )
    return [(row[0], row[1]) for row in rows] if len(rows) >= limit else None
