"""What a kept prefix depends on, as one digest: weights, config, dtype, kernels, tokenizer, chat template.

Of the weights in memory every tensor is sampled at 64 places, adapters among them (milliseconds); a change
that misses all samples is found by the hash over the checkpoint's files, where there are files (half a second
for each GB, once). Paths and version numbers are left out: the same model elsewhere is the same model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memos.errors import ActivationUnsupported

SAMPLES = 64
_LEFT_OUT = frozenset({"_name_or_path", "transformers_version", "name_or_path"})
_WEIGHTS = ("*.safetensors", "adapter_config.json")


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A file that a model was loaded from, as it was then."""

    path: Path
    bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> CheckpointFile:
        found = path.stat()
        return cls(path, found.st_size, found.st_mtime_ns)


def checkpoint_files(folder: Path) -> tuple[CheckpointFile, ...]:
    """The weights in a checkpoint's folder."""
    return tuple(
        CheckpointFile.of(path) for path in sorted(p for glob in _WEIGHTS for p in folder.glob(glob))
    )


def fingerprint_of(model: Any, tokenizer: Any, *, files: Sequence[CheckpointFile]) -> str:
    """64 hexadecimal digits. files: what the model was loaded from, none for one that came from elsewhere.

    Raises ActivationUnsupported when they were changed since.
    """
    digest = hashlib.sha256(b"memos model fingerprint 1")

    def tell(name: str, value: str | bytes) -> None:
        told = value.encode() if isinstance(value, str) else value
        digest.update(f"\x1e{name}\x1f{len(told)}\x1f".encode() + told)

    config = {key: value for key, value in model.config.to_dict().items() if key not in _LEFT_OUT}
    tell("config", json.dumps(config, sort_keys=True, default=str))
    tell("attention", str(model.config._attn_implementation))
    tell("class", type(model).__qualname__)
    for name, tensor in _tensors(model):
        tell(name, f"{tensor.dtype} {tuple(tensor.shape)} {_sampled(tensor)}")
    tell("tokenizer", _tokenizer_text(tokenizer))
    tell("template", json.dumps(tokenizer.chat_template, sort_keys=True))
    for file in files:
        tell(file.path.name, _file_digest(file))
    return digest.hexdigest()


def _tensors(model: Any) -> list[tuple[str, Any]]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return sorted(named, key=lambda pair: pair[0])


def _sampled(tensor: Any) -> str:
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // SAMPLES)
    return ",".join(repr(value) for value in flat[::step][: SAMPLES + 1].tolist())


def _tokenizer_text(tokenizer: Any) -> str:
    backend = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else ""
    vocabulary = "" if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return json.dumps([type(tokenizer).__qualname__, backend, vocabulary, str(tokenizer.special_tokens_map)])


def _file_digest(file: CheckpointFile) -> str:
    try:
        with file.path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if CheckpointFile.of(file.path) == file:
            return digest
        why = "was changed"
    except OSError as error:
        why = f"cannot be read ({error.strerror or error})"
    raise ActivationUnsupported(f"{file.path} {why} since the model was loaded: load it again")
