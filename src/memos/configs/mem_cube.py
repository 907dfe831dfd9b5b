"""The documented configuration of a cube: `GeneralMemCubeConfig(cube_id=…, text_mem={…}, …)`.

An area is `{"backend": …, "config": {}}`. There is one engine for text and one for preferences, over the
process's memory store. `act_mem={"backend": "kv_cache", "config": {"extractor_llm": …}}` gives the cube caches of
a model in this process. An area can be left out, set to null or named `uninitialized`; there is no parametric
memory. Anything else is a ConfigError that names the area.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field, field_validator

from memos.configs.base import Checked, nearest

Area = TypeVar("Area", "MemoryConfigFactory", "ActivationConfigFactory")

DEFAULT_CUBE_ID = "default"
ABSENT = "uninitialized"
TEXT_BACKENDS = ("tree_text", "general_text", "naive_text")
PREFERENCE_BACKENDS = ("prefer_text", "pref_text", ABSENT)
ACTIVATION_BACKENDS = ("kv_cache", ABSENT)


class MemoryConfigFactory(Checked):
    """An area of a cube: which backend, and its configuration (none is needed here)."""

    backend: str = ABSENT
    config: Mapping[str, Any] | None = Field(None, description="must be empty: the store is the process's")

    @field_validator("config")
    @classmethod
    def _nothing_to_configure(cls, config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if config:
            raise ValueError(
                f"{', '.join(map(repr, config))} cannot be set for one cube: store, embedder and limits "
                "are the process's (docs/reference/settings.md); leave config empty"
            )
        return config


class ActivationConfig(Checked):
    """What `kv_cache` can be told."""

    extractor_llm: Mapping[str, Any] | None = Field(
        None, description="backend huggingface and a model's folder; none: the chat model of the process"
    )


class ActivationConfigFactory(Checked):
    """The activation area of a cube."""

    backend: str = ABSENT
    config: ActivationConfig = Field(default_factory=ActivationConfig)

    @field_validator("config", mode="before")
    @classmethod
    def _or_none(cls, config: Any) -> Any:
        return {} if config is None else config


class GeneralMemCubeConfig(Checked):
    """What a `GeneralMemCube` can be told."""

    user_id: str = Field("", description="whose memories are added where nobody is named")
    cube_id: str = Field(DEFAULT_CUBE_ID, description="the cube in the store")
    text_mem: MemoryConfigFactory = MemoryConfigFactory(backend="tree_text")
    pref_mem: MemoryConfigFactory | None = MemoryConfigFactory(backend="prefer_text")
    act_mem: ActivationConfigFactory | None = Field(None, description="caches of a model in this process")
    para_mem: MemoryConfigFactory | None = Field(None, description="not in this version")

    @field_validator("text_mem")
    @classmethod
    def _text(cls, area: MemoryConfigFactory) -> MemoryConfigFactory:
        return _one_of(area, TEXT_BACKENDS)

    @field_validator("pref_mem")
    @classmethod
    def _preferences(cls, area: MemoryConfigFactory | None) -> MemoryConfigFactory | None:
        return None if area is None else _one_of(area, PREFERENCE_BACKENDS)

    @field_validator("act_mem")
    @classmethod
    def _activation(cls, area: ActivationConfigFactory | None) -> ActivationConfigFactory | None:
        return None if area is None else _one_of(area, ACTIVATION_BACKENDS)

    @field_validator("para_mem")
    @classmethod
    def _absent(cls, area: MemoryConfigFactory | None) -> MemoryConfigFactory | None:
        return None if area is None else _one_of(area, (ABSENT,))


def _one_of(area: Area, known: tuple[str, ...]) -> Area:
    if area.backend not in known:
        raise ValueError(f"there is no backend {area.backend!r} here.{nearest(area.backend, known)}")
    return area
