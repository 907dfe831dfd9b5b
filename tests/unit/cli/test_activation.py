"""`memos activation`: what it shows is what the store holds, and what it drops is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memos.testing_prefixes import PromptCache
from memos.testing_server import ModelServer, Say

from .test_items import memos  # noqa: F401  (a fixture)


def test_status_build_and_drop(memos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Nothing yet; a build makes a prefix that status shows; drop removes it from record and server."""
    shown = memos("activation", "status")
    assert shown.code == 0 and "none" in shown.out and "no block yet" in shown.out
    refused = memos("activation", "build", "boats")
    assert refused.code == 1 and "MEMOS_ACTIVATION__BACKEND" in refused.err
    cache = PromptCache("llama_cpp")
    with ModelServer(default=Say("yes"), models=["m"], prefixes=cache) as server:
        monkeypatch.setenv("MEMOS_MODELS__CHAT_MODEL", "m")
        monkeypatch.setenv("MEMOS_MODELS__CHAT_BASE_URL", server.url)
        monkeypatch.setenv("MEMOS_ACTIVATION__BACKEND", "llama_cpp")
        monkeypatch.setenv("MEMOS_ACTIVATION__PREFIX_TOKENS_MIN", "10")
        assert memos("add", "My boat is called Petrel.", "--cube", "boats").code == 0
        assert memos("activation", "build", "nowhere").code == 1
        empty = memos("activation", "build", "boats")
        assert empty.code == 1 and "no_memories" in empty.err
        from memos.memory.item import WorkingEntry
        from memos.memory.store import ItemFilter, ReplaceWorking
        from memos.runtime import build
        from memos.settings import Settings

        with build(Settings.load(), start=False) as runtime:
            [item] = runtime.store.find(ItemFilter(cube_ids=("boats",))).items
            runtime.store.apply([ReplaceWorking("boats", (WorkingEntry(item.id),), None, "test")])
        built = memos("activation", "build", "boats")
        assert built.code == 0 and "1 memories" in built.out
        told = json.loads(memos("activation", "status", "--json").out)
        assert told["backend"] == "llama_cpp" and told["builds"] is True
        [block] = told["blocks"]
        assert block["cube_ids"] == ["boats"] and block["prefix"]["memories"] == 1
        assert "boats" in memos("activation", "status", "--cube", "boats").out
        assert any(cache.files.values())
        dropped = memos("activation", "drop", "--cube", "boats")
        assert dropped.code == 0 and "1 prefixes dropped" in dropped.out
        assert not any(cache.files.values())
        assert json.loads(memos("activation", "status", "--json").out)["blocks"][0]["prefix"] is None
