"""The documented configuration of `MOS`: `MOSConfig(mem_scheduler={"backend": …, "config": {…}}, …)`.

What is left out follows the process's settings (`docs/reference/settings.md`). A key that asks for
something this version does not have is a ConfigError that names it, never ignored.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from memos.configs.base import Checked
from memos.configs.mem_scheduler import SchedulerConfigFactory

DEFAULT_USER_ID = "root"


class MOSConfig(Checked):
    """What a `MOS` can be told."""

    user_id: str = Field(DEFAULT_USER_ID, description="who acts where no user is named; created at once")
    session_id: str = Field("", description="the conversation where none is named")
    top_k: int = Field(5, ge=1, le=1_000, description="memories recalled for a search or a question")
    max_turns_window: int = Field(15, ge=1, le=1_000, description="turns of a chat kept as its history")
    mem_scheduler: SchedulerConfigFactory | None = Field(
        None, description="the scheduler's backend and config; none: as the settings say"
    )
    enable_mem_scheduler: bool | None = Field(
        None, description="whether the scheduler starts; none: as the settings say"
    )
    enable_textual_memory: bool = Field(True, description="always on: false is refused")
    enable_preference_memory: bool = Field(True, description="recall preferences besides text")
    enable_activation_memory: bool = Field(
        False, description="promote working memory to activation memory, beside what the settings say"
    )
    enable_parametric_memory: bool = Field(False, description="not in this version: true is refused")
    chat_model: Any = Field(
        None, description="set by the settings (MEMOS_MODELS__CHAT_MODEL): one here is refused"
    )
    mem_reader: Any = Field(None, description="the reader works by rules: a configuration is refused")

    @field_validator("mem_scheduler", mode="before")
    @classmethod
    def _scheduler(cls, value: object) -> SchedulerConfigFactory | None:
        if value is None or isinstance(value, SchedulerConfigFactory):
            return value
        return SchedulerConfigFactory.model_validate(value)

    @field_validator("enable_textual_memory")
    @classmethod
    def _text_stays(cls, wanted: bool) -> bool:
        if not wanted:
            raise ValueError("text memory cannot be switched off; leave it out")
        return wanted

    @field_validator("enable_parametric_memory")
    @classmethod
    def _not_here(cls, wanted: bool) -> bool:
        if wanted:
            raise ValueError("this version does not have it; set it to false")
        return wanted

    @field_validator("chat_model", "mem_reader")
    @classmethod
    def _no_model(cls, value: object) -> None:
        if value is not None:
            raise ValueError(
                "models are not configured here: see MEMOS_MODELS__CHAT_MODEL among the settings; leave it out"
            )
