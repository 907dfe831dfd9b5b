"""Row-level security: a transaction sees the cubes of its scope, and none without a scope."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from psycopg import errors, sql

from memos import context
from memos.errors import ItemNotFound, StoreError
from memos.memory.activation.index import PutPrefix
from memos.memory.postgres import PostgresAddress, PostgresStore
from memos.memory.store import ItemFilter

from .items import add, block, followup, prefix, web_log

TABLES = (
    "cube", "item_key", "item", "lexicon", "mention", "vector", "alias", "working", "state", "journal", "outbox",
    "web_log", "mark", "block", "block_cube", "block_item", "prefix", "prefix_item",
)  # fmt: skip
Open = Callable[..., PostgresStore]


@pytest.fixture
def store(opened: Open) -> PostgresStore:
    store = opened()
    store.apply_once("P", [add("a", links=("Rex",))], followups=[followup("F", "P")], logs=[web_log("one")])
    store.apply([add("b", cube_id="other", user_id="bob")])
    return store


def as_program(address: PostgresAddress) -> psycopg.Connection:
    connection = psycopg.connect(address.url)
    connection.execute("SELECT set_config('search_path', %s, false)", (address.schema,))
    connection.execute("SELECT set_config('role', %s, false)", (address.role,))
    return connection


def test_a_forged_query_without_a_scope_sees_nothing(store: PostgresStore, address: PostgresAddress) -> None:
    """As the program's role, no table shows a row before a scope was said; as the owner all have some."""
    with psycopg.connect(address.url) as owner, as_program(address) as program:
        owner.execute("SELECT set_config('search_path', %s, false)", (address.schema,))
        for table in TABLES:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            assert program.execute(query).fetchone() == (0,), table
            if table in (
                "cube",
                "item_key",
                "item",
                "lexicon",
                "mention",
                "journal",
                "outbox",
                "web_log",
                "mark",
            ):
                assert owner.execute(query).fetchone() > (0,), table
        with pytest.raises(errors.InsufficientPrivilege):  # row-level security: nor does it write
            program.execute("INSERT INTO state (cube_no, name, value) VALUES (1, 'x', '{}')")


def test_a_forged_query_in_a_view_sees_its_cube_alone(store: PostgresStore) -> None:
    """Whatever a query says of cubes, inside the view of one cube there are no rows of another."""
    with store._database.snapshot("cube") as tables:
        rows = tables.session.rows("SELECT DISTINCT id FROM item")  # type: ignore[attr-defined]
        assert rows == [("a",)]
        assert tables.items.by_id(["a", "b"]).keys() == {"a"}
    with store._database.snapshot("nowhere") as tables:
        assert tables.items.by_id(["a", "b"]) == {}


def test_the_fence_of_a_request_holds_everywhere(store: PostgresStore) -> None:
    """With a fence around one cube no reading names an item of another, and no write reaches it."""
    token = context.fence.set(frozenset({"cube"}))
    try:
        assert store.find(ItemFilter()).total == 1
        assert store.cubes() == ["cube"]
        assert {row.cube_id for row in store.journal()} == {"cube"}
        with pytest.raises(ItemNotFound):
            store.get(["b"])
        with store.read("other") as view:
            assert view.size == 0
        with pytest.raises(StoreError):
            store.apply([add("c", cube_id="other")])
        store.apply([add("d")])
    finally:
        context.fence.reset(token)
    assert store.find(ItemFilter()).total == 3
    assert store.verify() == []


def test_a_fence_lets_a_new_cube_of_its_own_be_made(store: PostgresStore) -> None:
    """A cube that the fence names may be the first of its kind."""
    token = context.fence.set(frozenset({"fresh"}))
    try:
        store.apply([add("n", cube_id="fresh")])
        assert store.cubes() == ["fresh"]
    finally:
        context.fence.reset(token)


def test_a_fence_hides_blocks_over_other_cubes(store: PostgresStore) -> None:
    """A block, and its prefix, is seen where all of its cubes are; a fenced reader stores blocks of their own."""
    store.put_block(block("a", "b"))
    store.apply([PutPrefix(prefix("a", "b"), "built")])
    own = replace(block("a", namespace="own"), cube_ids=("cube",))
    for fence, blocks, prefixes in (({"cube"}, {"own"}, 1), ({"cube", "other"}, {"own", "ns"}, 2)):
        token = context.fence.set(frozenset(fence))
        try:
            if store.block("own") is None:
                store.put_block(own)
                store.apply([PutPrefix(replace(prefix("a"), id="p2", namespace="own"), "built")])
            assert {one.namespace for one in store.blocks()} == blocks
            assert len(store.prefixes()) == prefixes
            for table, count in (
                ("block", len(blocks)),
                ("prefix", prefixes),
                ("block_cube", 1 + len(fence)),
            ):
                with store._database.read() as tables:
                    query = f"SELECT count(*) FROM {table}"
                    assert tables.session.row(query) == (count,)  # type: ignore[attr-defined]
        finally:
            context.fence.reset(token)
    assert {one.namespace for one in store.blocks()} == {"own", "ns"}
    assert store.verify() == []


def test_the_program_is_not_the_owner(store: PostgresStore, address: PostgresAddress) -> None:
    """The program's role changes no layout, reads no partition directly and takes nothing off the journal."""
    for statement in (
        "DROP TABLE item",
        "SELECT 1 FROM item_0",
        "DELETE FROM journal",
        "ALTER TABLE cube ADD x int",
    ):
        with as_program(address) as program, pytest.raises(errors.InsufficientPrivilege):
            program.execute(statement)  # type: ignore[call-overload]


def test_the_journal_lets_nothing_go(store: PostgresStore, address: PostgresAddress) -> None:
    """Even the owner cannot delete or rewrite a row: only redact it."""
    for statement in ("DELETE FROM journal", "UPDATE journal SET reason = 'other'"):
        with psycopg.connect(address.url) as owner:
            owner.execute("SELECT set_config('search_path', %s, false)", (address.schema,))
            with pytest.raises(errors.RaiseException, match="append-only"):
                owner.execute(statement)  # type: ignore[call-overload]


def test_terms_are_found_within_the_scope_alone(store: PostgresStore, address: PostgresAddress) -> None:
    """The functions that look past the policy show a cube's terms in a scope with it, and to nobody else."""
    with psycopg.connect(address.url) as owner, as_program(address) as program:
        owner.execute("SELECT set_config('search_path', %s, false)", (address.schema,))
        [(cube, lexemes)] = owner.execute(
            "SELECT cube_no, lexemes FROM lexicon JOIN cube ON cube.no = cube_no WHERE cube.id = 'other'"
        ).fetchall()

        def found() -> tuple[int, int]:
            asked = {"cube": cube, "lexemes": lexemes}
            postings = program.execute("SELECT * FROM postings(%(cube)s, %(lexemes)s)", asked).fetchall()
            bearing = program.execute("SELECT * FROM bearing_items(%(cube)s, %(lexemes)s)", asked).fetchall()
            return len(postings), len(bearing)

        assert lexemes
        assert found() == (0, 0)
        program.execute("SELECT enter_scope(ARRAY['cube'])")
        assert found() == (0, 0)
        program.execute("SELECT enter_scope(ARRAY['cube', 'other'])")
        assert found() == (len(lexemes), len(lexemes))
        program.execute("SELECT set_config('memos.scope', '*', true)")
        assert found() == (len(lexemes), len(lexemes))


def test_terms_are_looked_up_in_the_index(opened: Open) -> None:
    """A rare term among many memories is found without reading the cube's other terms, also behind the fence."""
    store = opened()
    for start in range(0, 3_000, 500):
        store.apply([add(*(f"m{n}" for n in range(start, start + 500)), cube_id="large")])
    with psycopg.connect(store._server.address.url, autocommit=True) as owner:
        owner.execute("SELECT set_config('search_path', %s, false)", (store._server.address.schema,))
        owner.execute("ANALYZE lexicon")
    with store._database.read(("large",)) as tables:
        cube = tables.cubes.find("large")
        assert cube is not None
        assert [len(found) for found in tables.recall.postings(cube.no, ["m7"]).values()] == [1]
        assert tables.recall.bearing(cube.no, ["m8"]) == {"m8": 1}
        read = tables.session.rows(
            "SELECT relname, seq_tup_read FROM pg_stat_xact_user_tables "
            "WHERE schemaname = current_schema() AND relname LIKE 'lexicon%%'"
        )
    assert sum(count for _, count in read) == 0, read
