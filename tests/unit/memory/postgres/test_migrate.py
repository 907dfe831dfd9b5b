"""Migrations: forward only, once, under a lock; refused where they do not fit."""

from __future__ import annotations

import threading
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from tests.postgres import BOUNDS, Schemas

from memos.errors import ConfigError, SchemaTooNew, StoreCorrupt, StoreError
from memos.memory.postgres import PostgresAddress, PostgresStore
from memos.memory.postgres.connection import bring_up
from memos.memory.postgres.schema import migrate, migrations, outstanding
from memos.testing import ManualClock


@pytest.fixture
def fresh(schemas: Schemas) -> PostgresAddress:
    """A schema that nobody has made yet."""
    address = schemas.address("fresh")
    with psycopg.connect(address.url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(address.schema)))
    return address


def test_steps_are_numbered_without_a_gap() -> None:
    """Steps run from 1 upwards, and a step's checksum is of its text."""
    steps = migrations()
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert len({step.checksum for step in steps}) == len(steps)


def test_a_dry_run_names_the_steps_and_changes_nothing(fresh: PostgresAddress) -> None:
    """`--dry-run` tells what is missing; afterwards it is still missing."""
    names, _ = bring_up(fresh, dry_run=True)
    assert list(names) == [f"{step.number:04}_{step.name}" for step in migrations()]
    assert bring_up(fresh, dry_run=True)[0] == names
    assert bring_up(fresh, dry_run=False)[0] == names
    assert bring_up(fresh, dry_run=False)[0] == ()


def test_of_many_that_migrate_one_does(fresh: PostgresAddress) -> None:
    """Processes that start together make each step once, and all go on."""
    taken: list[int] = []

    def start() -> None:
        with psycopg.connect(fresh.url, autocommit=True) as connection:
            taken.extend(step.number for step in migrate(connection, fresh))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [step.number for step in migrations()]


def test_a_newer_store_and_a_changed_step_are_refused(fresh: PostgresAddress) -> None:
    """A layout that this version does not know is left alone, and so is one whose steps were other ones."""
    steps = migrations()
    with psycopg.connect(fresh.url, autocommit=True) as connection:
        migrate(connection, fresh)
        with pytest.raises(SchemaTooNew, match="newer version"), connection.transaction():
            outstanding(connection, fresh, steps[:-1])
        edited = [replace(steps[0], text=steps[0].text + "\n-- edited"), *steps[1:]]
        with pytest.raises(StoreCorrupt, match="another form"):
            migrate(connection, fresh, edited)
        connection.execute("SELECT set_config('search_path', %s, false)", (fresh.schema,))
        connection.execute("INSERT INTO migration (number, name, checksum) VALUES (999, 'later', 'x')")
    with pytest.raises(SchemaTooNew, match="untouched"):
        PostgresStore(fresh, clock=ManualClock(), bounds=BOUNDS)


def test_a_step_that_fails_leaves_the_step_before(fresh: PostgresAddress) -> None:
    """An interrupted upgrade stands at a whole step, and goes on from there."""
    steps = migrations()
    broken = replace(steps[1], text="CREATE TABLE half (n integer); SELECT nothing_of_that_name();")
    with psycopg.connect(fresh.url, autocommit=True) as connection:
        with pytest.raises(StoreError, match="schema fresh"):
            migrate(connection, fresh, [steps[0], broken, *steps[2:]])
        connection.execute("SELECT set_config('search_path', %s, false)", (fresh.schema,))
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
        assert [step.number for step in migrate(connection, fresh)] == [step.number for step in steps[1:]]


def test_without_auto_migrate_the_operator_is_told(fresh: PostgresAddress) -> None:
    """A store that lacks its tables says which command makes them."""
    with pytest.raises(ConfigError, match="memos migrate"):
        PostgresStore(fresh, clock=ManualClock(), auto_migrate=False)


def test_an_unreachable_server_is_a_config_error_without_the_password() -> None:
    """Nobody listens at the address: the error names it and keeps the password."""
    address = PostgresAddress("postgresql://ann:geheim@127.0.0.1:9/none")
    with pytest.raises(ConfigError, match=r"ann@127\.0\.0\.1:9") as caught:
        PostgresStore(address, clock=ManualClock())
    assert "geheim" not in str(caught.value) and "geheim" not in repr(address)


def test_an_address_that_is_none_is_refused_without_the_password() -> None:
    """A broken address is told as such, not shown."""
    with pytest.raises(ConfigError) as caught:
        PostgresAddress("postgresql://ann:geheim@[host/none")
    assert "geheim" not in str(caught.value)
