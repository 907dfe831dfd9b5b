"""Read a `.safetensors` file: 8 bytes of header length, a JSON header, then the tensors end to end.

Guarantees: nothing in the file is executed, every offset is checked against the file before it is used,
and tensors are read-only views of the mapped file, so that several processes share the pages and a
matrix that is never touched costs no memory. Only float32 tensors are offered; others are passed over.

The file must not be cut short while it is mapped; replacing it (as pip does) is harmless.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from pathlib import Path
from typing import Any, TypeGuard

from memos.errors import ModelUnavailable
from memos.models.base import Vectors

HEADER_BYTES_MAX = 1 << 20
_LENGTH_BYTES = 8
_FLOAT_BYTES = 4


def read(path: Path) -> dict[str, Vectors]:
    """All float32 tensors by name, as views that keep the mapping alive. ModelUnavailable if malformed."""
    import numpy as np

    mapped = _map(path)
    header, start = _header(path, mapped)
    tensors: dict[str, Vectors] = {}
    for name, entry in header.items():
        if name == "__metadata__" or not _is_float32(path, name, entry):
            continue
        shape, begin = _place(path, name, entry, bytes_max=len(mapped) - start)
        flat = np.frombuffer(mapped, dtype="<f4", count=math.prod(shape), offset=start + begin)
        tensors[name] = flat.reshape(shape)
    return tensors


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise ModelUnavailable(f"cannot read the weights {path}: {error}") from error


def _header(path: Path, mapped: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The parsed header and the offset at which the tensors begin."""
    if len(mapped) < _LENGTH_BYTES:
        raise _malformed(path, f"{len(mapped)} bytes are too few")
    (length,) = struct.unpack("<Q", mapped[:_LENGTH_BYTES])
    if length > min(HEADER_BYTES_MAX, len(mapped) - _LENGTH_BYTES):
        raise _malformed(path, f"its header cannot be {length} bytes long")
    start = _LENGTH_BYTES + length
    try:
        header = json.loads(mapped[_LENGTH_BYTES:start])
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _malformed(path, "its header is not an object")
    return header, start


def _is_float32(path: Path, name: str, entry: Any) -> bool:
    if not isinstance(entry, dict):
        raise _malformed(path, f"tensor {name!r} has no description")
    return entry.get("dtype") == "F32"


def _place(path: Path, name: str, entry: dict[str, Any], *, bytes_max: int) -> tuple[list[int], int]:
    """Shape and first byte of a tensor whose place is possible."""
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _malformed(path, f"tensor {name!r} has no valid shape and offsets")
    begin, end = offsets
    if end > bytes_max or end - begin != math.prod(shape) * _FLOAT_BYTES:
        raise _malformed(path, f"tensor {name!r} does not fit: shape {shape}, bytes {begin} to {end}")
    return shape, begin


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    """A list of a few integers that are not negative (`True` is no integer here)."""
    return (
        isinstance(value, list) and len(value) <= 8 and all(type(size) is int and size >= 0 for size in value)
    )


def _malformed(path: Path, why: str) -> ModelUnavailable:
    return ModelUnavailable(f"{path} is not a usable safetensors file: {why}")
