"""One segment of a kept prefix as a file: the keys and values of some tokens, and proof of what they are.

    8 bytes    length of the header, little endian
    header     JSON: a description of each tensor, and under `__metadata__` what the segment is
    payload    ids int32 (n,) · scales float32 · k (L, H, n, Dk) · v (L, H, n, Dv), end to end

This is the safetensors format, so other programs can read it; nothing in it is ever executed. Every byte is
covered by a hash: the payload by `payload_blake3` of the header, the header by the manifest. A file that is
foreign, cut short, edited or no such file at all is refused with a reason, never with an exception.
Reading and writing need numpy and blake3 (a cryptographic hash, four times as fast as SHA-256 with the
processor's own instructions for it; the hash is what most of a load is). bfloat16 is held as its 16 bits in uint16.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from memos.errors import ActivationMiss
from memos.memory.activation.base import MissReason

FORMAT = "memos-kv/2"
HEADER_BYTES_MAX = 64 * 1024
_LENGTH_BYTES = 8
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EACCES)  # say nothing of the file

Kind = Literal["fp32", "bf16", "int8"]
Array: TypeAlias = npt.NDArray[Any]

KINDS: tuple[Kind, ...] = ("fp32", "bf16", "int8")

_DTYPES: dict[str, str] = {"F32": "<f4", "BF16": "<u2", "I8": "|i1", "I32": "<i4"}
_STORED_AS: dict[str, str] = {"fp32": "F32", "bf16": "BF16", "int8": "I8"}
_TEXTS = ("format", "fingerprint", "chain", "parent", "start", "kind", "payload_blake3")


@dataclass(frozen=True, slots=True)
class KvShape:
    """What one token leaves in a model's cache."""

    layers: int
    heads: int
    key_dim: int
    value_dim: int

    def __str__(self) -> str:
        return f"{self.layers} layers, {self.heads} heads, {self.key_dim}+{self.value_dim} wide"


@dataclass(frozen=True, slots=True)
class Segment:
    """`ids` (n,) int32 and `tensors`: k (L, H, n, Dk), v (L, H, n, Dv); for int8 also k_scale (L, H, 1, Dk)
    and v_scale (L, H, n, 1) float32. chain: its name; parent: that of the segment before, "" for none."""

    chain: str
    parent: str
    start: int
    kind: Kind
    ids: npt.NDArray[np.int32]
    tensors: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Proof:
    """What the manifest says of a segment's file."""

    chain: str
    parent: str
    start: int
    tokens: int
    kind: Kind
    bytes: int
    header_blake3: str


def chain_of(fingerprint: str, salt: str, parent: str, ids: npt.NDArray[np.int32]) -> str:
    """The name of a segment: equal only for the same tokens after the same ones, of one model and salt."""
    told = "\x1f".join((FORMAT, fingerprint, salt, parent)).encode()
    return hashlib.sha256(told + b"\x1e" + np.ascontiguousarray(ids, "<i4").tobytes()).hexdigest()


def layout_of(shape: KvShape, tokens: int, kind: Kind) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name, dtype and shape of every tensor that such a file holds, in its order."""
    rows = (shape.layers, shape.heads)
    stored = _STORED_AS[kind]
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {"ids": ("I32", (tokens,))}
    if kind == "int8":
        wanted["k_scale"] = ("F32", (*rows, 1, shape.key_dim))
        wanted["v_scale"] = ("F32", (*rows, tokens, 1))
    wanted["k"] = (stored, (*rows, tokens, shape.key_dim))
    wanted["v"] = (stored, (*rows, tokens, shape.value_dim))
    return wanted


def write(file: IO[bytes], segment: Segment, *, fingerprint: str, shape: KvShape) -> Proof:
    """Write all of it. ValueError when the tensors are not what kind and shape ask for; OSError."""
    wanted = layout_of(shape, len(segment.ids), segment.kind)
    held: dict[str, Array] = {"ids": segment.ids, **segment.tensors}
    if set(held) != set(wanted):
        raise ValueError(f"a segment of kind {segment.kind} has {sorted(wanted)}, not {sorted(held)}")
    from blake3 import blake3

    digest, end, header = blake3(), 0, {}
    for name, (dtype, size) in wanted.items():
        array = held[name]
        if array.shape != size or array.dtype != np.dtype(_DTYPES[dtype]):
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {size}")
        held[name] = array = np.ascontiguousarray(array)
        digest.update(array.reshape(-1).view(np.uint8).data)
        header[name] = {"dtype": dtype, "shape": list(size), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    told = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "chain": segment.chain,
        "parent": segment.parent,
        "start": str(segment.start),
        "kind": segment.kind,
        "payload_blake3": digest.hexdigest(),
    }
    text = json.dumps({"__metadata__": told, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    file.write(head)
    for name in wanted:
        file.write(held[name].reshape(-1).view(np.uint8).data)
    return Proof(
        segment.chain,
        segment.parent,
        segment.start,
        len(segment.ids),
        segment.kind,
        len(head) + end,
        blake3(head).hexdigest(),
    )


class Scratch:
    """Memory that one file after the other is read into, so that it stays in the processor's cache. For one
    thread. A segment that was read into it is gone with the next one."""

    def __init__(self) -> None:
        self._held = memoryview(b"")

    def room(self, size: int) -> memoryview:
        """This many bytes of it, with whatever is in them."""
        if len(self._held) < size:
            self._held = np.empty(size, np.uint8).data
        return self._held[:size]


def read(
    path: Path, *, fingerprint: str, shape: KvShape, proof: Proof | None, scratch: Scratch | None = None
) -> Segment:
    """The segment in `path`, every byte of it checked, its tensors in memory of their own or in `scratch`.

    proof: what the manifest says; without one the file speaks for itself (it can be whole and still be
    somebody else's work). Raises ActivationMiss: missing, format, fingerprint, damaged; failed
    where the system cannot open it now.
    """
    from blake3 import blake3

    whole = _content(path, scratch or Scratch(), bytes_max=None if proof is None else proof.bytes)
    start, header = _header(whole)
    told = header.pop("__metadata__", None)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ActivationMiss(MissReason.FORMAT, f"it is not of the format {FORMAT}")
    if not all(isinstance(told.get(name), str) for name in _TEXTS) or told["kind"] not in KINDS:
        raise ActivationMiss(MissReason.DAMAGED, "its header is not complete")
    if told["fingerprint"] != fingerprint:
        raise ActivationMiss(MissReason.FINGERPRINT, "it was made by another model, tokenizer or template")
    if proof is not None and blake3(whole[:start]).hexdigest() != proof.header_blake3:
        raise ActivationMiss(MissReason.DAMAGED, "its header is not the one that was written")
    wanted = layout_of(shape, _tokens(header), told["kind"])
    places = _places(header, wanted)
    size = start + sum(bytes_ for _, bytes_ in places.values())
    if len(whole) != size:
        raise ActivationMiss(MissReason.DAMAGED, f"it is {len(whole)} bytes long, and should be {size}")
    if blake3(whole[start:]).hexdigest() != told["payload_blake3"]:
        raise ActivationMiss(MissReason.DAMAGED, "its content is not what was written")
    begins = told["start"]
    if not (begins.isascii() and begins.isdigit()):
        raise ActivationMiss(MissReason.DAMAGED, "its header is not complete")
    tensors = {
        name: np.frombuffer(whole, _DTYPES[dtype], math.prod(size), start + places[name][0]).reshape(size)
        for name, (dtype, size) in wanted.items()
    }
    return Segment(told["chain"], told["parent"], int(begins), told["kind"], tensors.pop("ids"), tensors)


def open_kept(path: Path) -> int:
    """A descriptor of a plain file, to read. Follows no link and waits for no writer of a pipe. OSError."""
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise OSError(errno.EINVAL, "not a plain file")


def _content(path: Path, scratch: Scratch, *, bytes_max: int | None) -> memoryview:
    """The file, read once into memory of our own: nothing that happens to it afterwards is seen."""
    try:
        opened = open_kept(path)
        with os.fdopen(opened, "rb", buffering=0) as file:
            size = os.fstat(opened).st_size
            if bytes_max is not None and size > bytes_max + HEADER_BYTES_MAX:
                size = bytes_max + HEADER_BYTES_MAX  # too large by far: its beginning says what it is
            view, filled = scratch.room(size), 0
            while filled < size and (count := file.readinto(view[filled:])):
                filled += count
    except FileNotFoundError as error:
        raise ActivationMiss(MissReason.MISSING, f"there is no {path.name}") from error
    except OSError as error:
        reason = MissReason.FAILED if error.errno in _PASSING else MissReason.DAMAGED
        raise ActivationMiss(reason, f"{path.name}: {error.strerror or error}") from error
    return view[:filled]


def _header(content: memoryview) -> tuple[int, dict[str, Any]]:
    """Where the payload begins, and the parsed header."""
    if len(content) < _LENGTH_BYTES:
        raise ActivationMiss(MissReason.DAMAGED, f"{len(content)} bytes are too few")
    (length,) = struct.unpack("<Q", content[:_LENGTH_BYTES])
    if length > HEADER_BYTES_MAX:  # what a pickle begins with reads as a length beyond any
        raise ActivationMiss(MissReason.FORMAT, "it is not a segment file")
    if length > len(content) - _LENGTH_BYTES:
        raise ActivationMiss(MissReason.DAMAGED, "its header is cut off")
    try:
        header = json.loads(str(content[_LENGTH_BYTES : _LENGTH_BYTES + length], "utf-8"))
    except (ValueError, RecursionError) as error:
        raise ActivationMiss(MissReason.FORMAT, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise ActivationMiss(MissReason.FORMAT, "its header is not an object")
    return _LENGTH_BYTES + length, header


def _tokens(header: Mapping[str, Any]) -> int:
    entry = header.get("ids")
    size = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(size, list) or len(size) != 1 or type(size[0]) is not int or size[0] < 1:
        raise ActivationMiss(MissReason.DAMAGED, "it does not say how many tokens it holds")
    return int(size[0])


def _places(
    header: Mapping[str, Any], wanted: Mapping[str, tuple[str, tuple[int, ...]]]
) -> dict[str, tuple[int, int]]:
    """First byte and size of each tensor. Everything has to stand exactly where `write` puts it."""
    if set(header) != set(wanted):
        raise ActivationMiss(MissReason.DAMAGED, f"it holds {sorted(header)}, not {sorted(wanted)}")
    places, end = {}, 0
    for name, (dtype, size) in wanted.items():
        bytes_ = math.prod(size) * np.dtype(_DTYPES[dtype]).itemsize
        described = {"dtype": dtype, "shape": list(size), "data_offsets": [end, end + bytes_]}
        if header[name] != described:
            raise ActivationMiss(MissReason.DAMAGED, f"its {name} is not {dtype} {size} as the model's")
        places[name] = (end, bytes_)
        end += bytes_
    return places
