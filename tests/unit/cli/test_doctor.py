"""`memos doctor` and `memos reembed`: healthy and broken installations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memos.errors import EmbedderMismatch
from memos.runtime import build
from memos.settings import Settings
from memos.testing_server import Fault, ModelServer

from .test_items import memos  # noqa: F401  (a fixture)


def test_a_healthy_installation_is_all_green(memos: Any) -> None:  # noqa: F811
    """With a store that holds memories every part is tried and none is at fault."""
    memos("add", "Max is allergic to chicken", "--cube", "pets")
    ran = memos("doctor")
    assert ran.code == 0, ran.out + ran.err
    assert "1 live memories in 1 cubes" in ran.out
    assert "fault" not in ran.out


def test_settings_are_printed_with_secrets_masked(memos: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """`--settings` prints the tree, and no secret."""
    monkeypatch.setenv("MEMOS_API__KEY", "hush-hush")
    ran = memos("doctor", "--settings")
    assert ran.code == 0
    assert "vector_cache_bytes_max" in ran.out
    assert "hush" not in ran.out


@pytest.mark.parametrize("command", [("doctor",), ("add", "a boat", "--cube", "c")])
def test_no_password_of_a_server_is_printed(
    memos: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    """Of servers that cannot be reached the addresses are named, and neither password; in errors and logs alike."""
    monkeypatch.setenv("MEMOS_STORE__URL", "postgresql://ann:geheim-1@127.0.0.1:1/memory")
    monkeypatch.setenv("MEMOS_STORE__CONNECT_TIMEOUT_S", "1")
    monkeypatch.setenv("MEMOS_QUEUE__BACKEND", "redis")
    monkeypatch.setenv("MEMOS_QUEUE__REDIS_URL", "redis://bob:geheim-2@127.0.0.1:1/0")
    monkeypatch.setenv("MEMOS_LOG__LEVEL", "DEBUG")
    ran = memos(*command)
    assert ran.code != 0
    assert "127.0.0.1:1" in ran.out + ran.err
    assert "geheim" not in ran.out + ran.err


def test_a_corrupt_store_is_a_fault(memos: Any, clean_environment: Path) -> None:  # noqa: F811
    """A store file that is no database is named, with exit code 1."""
    clean_environment.mkdir()
    (clean_environment / "memory.db").write_bytes(b"this is not a database at all" * 200)
    ran = memos("doctor")
    assert ran.code == 1
    assert "memory.db" in ran.out


def test_a_bad_setting_is_named(memos: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A misspelt setting is one line on stderr."""
    monkeypatch.setenv("MEMOS_STORE__PAHT", "/tmp/x")
    ran = memos("doctor")
    assert ran.code == 1
    assert "MEMOS_STORE__PATH" in ran.err


def test_vectors_of_another_model_are_refused_and_reembed_mends_it(memos: Any) -> None:  # noqa: F811
    """A store bound to another embedder names `memos reembed`, which makes it usable, by vectors too."""
    memos("add", "Max is allergic to chicken", "--cube", "pets")
    with build(Settings.load(), start=False) as runtime:
        runtime.store.drop_vectors("another-model", 8)
        (item,) = runtime.store.get([row.id for row in runtime.store.without_vector(limit=1)])
        runtime.store.put_vectors({item.id: np.eye(1, 8, dtype=np.float32)[0]})
    with pytest.raises(EmbedderMismatch, match="memos reembed"):
        build(Settings.load(), start=False)
    assert memos("search", "chicken", "--cube", "pets").code == 1
    ran = memos("reembed", "--yes")
    assert ran.code == 0, ran.err
    assert "encoded 1 memories" in ran.out
    with build(Settings.load(), start=False) as runtime:
        assert runtime.store.without_vector(limit=10) == []
        assert runtime.embedder is not None
        assert runtime.store.vector_fingerprint() == (runtime.embedder.fingerprint, runtime.embedder.dim)


def test_reembed_without_an_embedder_is_refused(memos: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """There is nothing to encode with when the embedder is switched off."""
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    ran = memos("reembed")
    assert ran.code == 1
    assert "MEMOS_MODELS__EMBEDDER" in ran.err


def test_doctor_tries_every_model(memos: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Chat, reader and reranker are asked for real; one that fails is a fault that names the cause."""
    with ModelServer(["ready", "ready"], default=Fault(503, "loading")) as server:
        monkeypatch.setenv("MOS_CHAT_MODEL", "boat-1")
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        monkeypatch.setenv("MEMRADER_MODEL", "reader-1")
        monkeypatch.setenv("MOS_RERANKER_BACKEND", "http_bge")
        monkeypatch.setenv("MOS_RERANKER_URL", f"{server.url}/rerank")
        ran = memos("doctor")
        assert ran.code == 0, ran.out + ran.err
        assert f"boat-1 at {server.url}" in ran.out and "reader-1" in ran.out and "scores" in ran.out
        ran = memos("doctor")
    assert ran.code == 1 and "answers 503: loading" in ran.out


def test_doctor_says_that_a_key_alone_is_no_model(memos: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """With nothing but a key, the note tells why no model answers."""
    monkeypatch.setenv("OPENAI_API_KEY", "hush")
    ran = memos("doctor")
    assert ran.code == 0 and "an API key alone switches none on" in ran.out and "hush" not in ran.out


def test_markup_in_a_path_is_shown_as_it_is(
    memos: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A data directory whose name looks like markup is printed as it is called."""
    monkeypatch.setenv("MEMOS_HOME", str(tmp_path / "m[" / "k]"))
    ran = memos("doctor")
    assert ran.code == 0, ran.err
    assert "m[/k]" in ran.out
