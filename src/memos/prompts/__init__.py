"""Prompts are data: one Markdown file each and language, read when used, filled with `${name}` fields."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from string import Template
from typing import Literal

from memos.errors import ConfigError

Language = Literal["en", "zh"]


@lru_cache(maxsize=64)
def load(name: str, language: Language = "en") -> Template:
    """The template of `<name>.<language>.md`. ConfigError when the package lacks it."""
    try:
        text = (files(__package__) / f"{name}.{language}.md").read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the package holds no prompt {name!r} in language {language!r}") from error
    return Template(text)
