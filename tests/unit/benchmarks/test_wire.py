"""What is recorded between the program and PostgreSQL does the same when it is played again."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from benchmarks.scale.wire import Player, Recorder, Stream
from tests.postgres import schemas_of


@pytest.fixture
def url() -> str:
    schemas = schemas_of("pgvector")
    with psycopg.connect(schemas.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS noted")
        connection.execute("CREATE TABLE noted (who int, what text)")
    return schemas.url


def recorded(url: str, who: int, tasks: int) -> Stream:
    """Each task notes two things in a transaction, by statements that get prepared."""
    with Recorder(url) as recorder, psycopg.connect(recorder.url, prepare_threshold=1) as connection:
        for number in range(tasks):
            for half in "ab":
                connection.execute("INSERT INTO noted VALUES (%s, %s)", (who, f"{number}{half}"))
            connection.commit()
            recorder.end_task()
        return recorder.end_stream()


def noted(url: str) -> list[tuple[int, str]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT who, what FROM noted ORDER BY who, what").fetchall()


def test_streams_side_by_side_write_what_was_written(url: str) -> None:
    """All tasks of two streams are played once, the warm ones too, and leave the rows they left when recorded."""
    streams = [recorded(url, who, 6) for who in (1, 2)]
    before = noted(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM noted")
    with Player(url, streams, warm=2) as player:
        assert len(noted(url)) == 2 * 2 * 2
        found = player.replay([0.0] * 8, again=False)
    assert noted(url) == before
    assert len(found.took_s) == 8
    assert all(took > 0 for took in found.took_s)


def test_tasks_that_are_not_there_are_refused(url: str) -> None:
    """Playing once cannot play more than was recorded."""
    streams = [recorded(url, 1, 3)]
    with Player(url, streams, warm=1) as player, pytest.raises(ValueError, match="too few"):
        player.replay([0.0] * 3, again=False)


def test_tasks_that_change_nothing_are_played_again(url: str) -> None:
    """With `again` a stream begins anew."""
    parts = urlsplit(url)
    with (
        Recorder(urlunsplit(parts)) as recorder,
        psycopg.connect(recorder.url, autocommit=True) as connection,
    ):
        connection.execute("SELECT 1")
        recorder.end_task()
        stream = recorder.end_stream()
    with Player(url, [stream], warm=0) as player:
        assert len(player.replay([0.0] * 5, again=True).took_s) == 5
