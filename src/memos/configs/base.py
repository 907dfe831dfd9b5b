"""What every configuration class shares: frozen, checked, and read from YAML or JSON files.

An unknown key and a value that cannot work are a ConfigError that names the key, its value and the
nearest valid one. Environment variables are not looked at here: they are `settings`' part.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from memos.errors import ConfigError

CONFIG_BYTES_MAX = 1024 * 1024


class Checked(BaseModel):
    """Frozen; whatever cannot be read is a ConfigError, not a pydantic error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(error, type(self))) from error

    @classmethod
    def from_yaml_file(cls, path: str | Path) -> Self:
        """The configuration in a YAML file. Raises ConfigError."""
        return cls(**read_mapping(path))

    @classmethod
    def from_json_file(cls, path: str | Path) -> Self:
        """The configuration in a JSON file. Raises ConfigError."""
        return cls(**read_mapping(path))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping that a `.json`, `.yaml` or `.yml` file holds. Raises ConfigError naming the file."""
    file = Path(path).expanduser()
    kind = file.suffix.lower()
    if kind not in (".json", ".yaml", ".yml"):
        raise ConfigError(f"{file}: a configuration is a .yaml, .yml or .json file, not {kind or 'this'!r}")
    try:
        size = file.stat().st_size
        if size > CONFIG_BYTES_MAX:
            raise ConfigError(f"{file} has {size} bytes; a configuration has at most {CONFIG_BYTES_MAX}")
        text = file.read_text(encoding="utf-8")
        value = json.loads(text) if kind == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError) as error:
        name = "JSON" if kind == ".json" else "YAML"
        raise ConfigError(f"{file} is not {name}: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{file} must hold a mapping of keys, not {type(value).__name__}")
    return {str(key): inner for key, inner in value.items()}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The faults in one line each: key, value, and the nearest key that exists."""
    lines = []
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"{name!r} is not a key of {model.__name__}.{nearest(name, model.model_fields)}")
        else:
            lines.append(f"{name}={fault.get('input')!r}: {fault['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)


def nearest(name: str, names: Iterable[str]) -> str:
    """What was probably meant, or everything that would be valid."""
    known = list(names)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else f" Valid: {', '.join(sorted(known))}."
