"""The safetensors reader: right values from good files, a typed error from any other."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memos.errors import ModelUnavailable
from memos.models import safetensors


def _file(path: Path, header: Any, payload: bytes = b"") -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + payload)
    return path


def _entry(shape: Any, begin: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_tensors_come_out_as_they_were_written(tmp_path: Path) -> None:
    """Names, shapes and values of float32 tensors survive; metadata and other types are passed over."""
    first = np.arange(6, dtype="<f4").reshape(2, 3)
    second = np.array([1.5, -2.0], dtype="<f4")
    header = {
        "__metadata__": {"format": "pt"},
        "first": _entry([2, 3], 0, 24),
        "counts": _entry([1], 24, 32, "I64"),
        "second": _entry([2], 32, 40),
    }
    path = _file(tmp_path / "m.safetensors", header, first.tobytes() + bytes(8) + second.tobytes())
    tensors = safetensors.read(path)
    assert set(tensors) == {"first", "second"}
    np.testing.assert_array_equal(tensors["first"], first)
    np.testing.assert_array_equal(tensors["second"], second)


def test_tensors_are_read_only(tmp_path: Path) -> None:
    """Nobody can change the weights through a view."""
    path = _file(tmp_path / "m.safetensors", {"t": _entry([1], 0, 4)}, bytes(4))
    with pytest.raises(ValueError, match="read-only"):
        safetensors.read(path)["t"][0] = 1.0


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[" * 100_000,
        b"\xff\xfe",
        [],
        {"t": []},
        {"t": _entry([2], 0, 4)},
        {"t": _entry([1], 4, 8)},
        {"t": _entry([1], -4, 0)},
        {"t": _entry([1], 4, 0)},
        {"t": _entry([-1], 0, 4)},
        {"t": _entry([True], 0, 4)},
        {"t": _entry([1.0], 0, 4)},
        {"t": _entry("1", 0, 4)},
        {"t": _entry([1], "0", 4)},
        {"t": _entry([1 << 62, 4], 0, 4)},
        {"t": _entry([1] * 9, 0, 4)},
        {"t": {"dtype": "F32"}},
        {"t": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
    ],
)
def test_a_malformed_header_is_refused(tmp_path: Path, header: Any) -> None:
    """Headers that lie about types, shapes or places raise ModelUnavailable naming the file."""
    path = _file(tmp_path / "m.safetensors", header, bytes(4))
    with pytest.raises(ModelUnavailable, match=r"m\.safetensors"):
        safetensors.read(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x01", struct.pack("<Q", 1 << 60), struct.pack("<Q", 100) + b"{}"]
)
def test_a_file_cut_short_is_refused(tmp_path: Path, content: bytes) -> None:
    """Files too short for what they announce raise ModelUnavailable."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelUnavailable, match=r"m\.safetensors"):
        safetensors.read(path)


def test_a_missing_file_is_a_typed_error(tmp_path: Path) -> None:
    """A path that does not exist is named."""
    with pytest.raises(ModelUnavailable, match="absent"):
        safetensors.read(tmp_path / "absent")


@given(cut=st.integers(0, 200), flip=st.integers(0, 199), value=st.integers(0, 255))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_never_reads_outside_the_file(tmp_path: Path, cut: int, flip: int, value: int) -> None:
    """Any cut and any changed byte gives tensors inside the file or ModelUnavailable, never a crash."""
    path = _file(
        tmp_path / "m.safetensors", {"a": _entry([2, 2], 0, 16), "b": _entry([3], 16, 28)}, bytes(28)
    )
    content = bytearray(path.read_bytes())
    content[flip % len(content)] = value
    path.write_bytes(content[:cut] if cut % 2 else content)
    try:
        tensors = safetensors.read(path)
    except ModelUnavailable:
        return
    assert all(
        tensor.nbytes <= len(content) and float(tensor.sum()) is not None for tensor in tensors.values()
    )
