"""A whole runtime whose chat model runs in its own process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.torch_there import torch_or_skip

torch_or_skip()

from memos.api.app import create_app
from memos.api.handlers import handlers_of
from memos.api.product_models import APIADDRequest
from memos.errors import ConfigError, ModelUnavailable
from memos.mem_os.main import MOS
from memos.models.base import ChatMessage
from memos.models.hf.chat import HFChat
from memos.runtime import Runtime, build
from memos.runtime_models import build_models
from memos.settings import Settings
from memos.testing import ManualClock
from memos.testing_model import write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=3)


def settings_in(home: Path, folder: Path, **models: Any) -> Settings:
    chat = {"chat_backend": "hf", "chat_model": str(folder), "chat_tokens_max": 24, "chat_threads": 1}
    return Settings(
        home=home,
        models={"embedder": "none", **chat, **models},
        scheduler={"model_steps": ()},  # a random model has nothing to say to them
        api={"enable_chat": True},
    )


@pytest.fixture
def runtime(tmp_path: Path, folder: Path) -> Iterator[Runtime]:
    with build(settings_in(tmp_path, folder)) as running:
        handlers_of(running).add.handle_add_memories(
            APIADDRequest(user_id="u", messages="My boat is called Petrel.", async_mode="sync")
        )
        yield running


def test_chat_over_http_is_answered_by_it(runtime: Runtime) -> None:
    """The stream's text is the model's, not a quotation, and it is what the model says to that prompt."""
    with TestClient(create_app(runtime)) as client:
        asked = {"user_id": "u", "query": "What is my boat called?"}
        whole = client.post("/product/chat/complete", json=asked)
        streamed = client.post("/product/chat/stream", json=asked)
    assert whole.status_code == 200
    assert whole.json()["data"]["response"].strip()
    assert "no language model" not in str(whole.json()["data"]["reasoning"])
    frames = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert "".join(frame["data"] for frame in frames if frame["type"] == "text").strip()
    assert isinstance(runtime.llm, HFChat)


def test_the_library_chats_with_it(tmp_path: Path, folder: Path) -> None:
    """`MOS.chat` answers with the model that the settings name."""
    with build(settings_in(tmp_path, folder)) as runtime:
        mos = MOS(runtime=runtime)
        mos.create_user("u")
        mos.register_mem_cube("boats", user_id="u")
        mos.add(messages=[{"role": "user", "content": "My boat is called Petrel."}], user_id="u")
        answer = mos.chat("What is my boat called?", user_id="u")
    assert answer.strip()


def test_a_closed_runtime_computes_no_more(tmp_path: Path, folder: Path) -> None:
    """An answer that is being given when the runtime closes ends with an error at its next token."""
    with build(settings_in(tmp_path, folder, chat_tokens_max=4_000)) as runtime:
        assert runtime.llm is not None
        answer = runtime.llm.stream([ChatMessage("user", "Tell me all.")], temperature=1.0)
        next(answer)
    with pytest.raises(ModelUnavailable, match="closed"):
        list(answer)


def test_other_roles_share_the_weights(folder: Path, tmp_path: Path) -> None:
    """Reader and scheduler ask the same loaded model, each within its own limits."""
    models = build_models(settings_in(tmp_path, folder).models, ManualClock())
    assert isinstance(models.llm, HFChat)
    for role in (models.reader_llm, models.scheduler_llm):
        assert role is not None
        assert isinstance(role.inner, HFChat)
        assert role.inner.model is models.llm.model
    assert list(models.chat_llms) == ["tiny"]
    assert "of this process" in models.llm.base_url


@pytest.mark.parametrize(
    ("models", "why"),
    [
        ({"chat_backend": "hf"}, "needs a model's folder"),
        (
            {"chat_backend": "hf", "chat_model": "m", "chat_base_url": "http://127.0.0.1:1/v1"},
            "unset chat_base_url",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(models: dict[str, str], why: str) -> None:
    """A missing folder's name, and an endpoint beside it, are named."""
    with pytest.raises(ValueError, match=why):
        Settings(models=models)


def test_a_folder_without_a_model_is_an_error_at_start(tmp_path: Path) -> None:
    """The error names the setting and the folder."""
    with pytest.raises(ConfigError, match=r"CHAT_MODEL.*no config\.json"):
        build_models(settings_in(tmp_path, tmp_path / "nothing").models, ManualClock())
