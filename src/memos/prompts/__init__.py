"""Prompts are data: one Markdown file each and language, read when used, filled with `${name}` fields.

A prompt of a structured question has two parts with a line `---` between them: what is asked, and what it
is asked about. The documented names (`INTENT_RECOGNIZING_PROMPT`, `MEMORY_RERANKEING_PROMPT`, spelled so)
are attributes of this module that hold the English text.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Literal

from memos.errors import ConfigError

Language = Literal["en", "zh"]

NAMED = {
    "INTENT_RECOGNIZING_PROMPT": "intent_recognizing",
    "MEMORY_RERANKEING_PROMPT": "memory_rerankeing",
}

if TYPE_CHECKING:
    INTENT_RECOGNIZING_PROMPT: str
    MEMORY_RERANKEING_PROMPT: str


@lru_cache(maxsize=64)
def load(name: str, language: Language = "en") -> Template:
    """The template of `<name>.<language>.md`. ConfigError when the package lacks it."""
    try:
        text = (files(__package__) / f"{name}.{language}.md").read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the package holds no prompt {name!r} in language {language!r}") from error
    return Template(text)


@lru_cache(maxsize=64)
def parts(name: str, language: Language = "en") -> tuple[Template, Template]:
    """What is asked, and what it is asked about. ConfigError when the file is not in two parts."""
    about, line, question = load(name, language).template.partition("\n---\n")
    if not line:
        raise ConfigError(f"the prompt {name!r} in language {language!r} has no line '---'")
    return Template(about), Template(question)


def __getattr__(name: str) -> str:
    if name in NAMED:
        return load(NAMED[name]).template
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
