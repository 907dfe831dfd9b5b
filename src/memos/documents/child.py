"""The process in which documents are read: frames in on stdin, frames out on stdout, until stdin ends.

It bounds itself before it reads a byte of a document: address space, processor time, size of files it may
write (none), core dumps (none). A frame is 8 bytes of length, then so many bytes; a request is two frames,
a JSON object and the document; an answer is one, a JSON object with `document` or with `error` and `kind`.
"""

from __future__ import annotations

import json
import struct
import sys
from typing import IO, Any

LENGTH = struct.Struct(">Q")
FRAME_BYTES_MAX = 1024 * 1024 * 1024
CPU_GRACE_S = 5


def main() -> None:
    """Serve until stdin ends."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a parser that prints must not break the frames
    while (header := read_frame(stdin)) is not None:
        request = json.loads(header)
        _bound(request)
        payload = read_frame(stdin)
        if payload is None:
            return
        answer = _answer(request, payload)
        write_frame(stdout, json.dumps(answer).encode("ascii"))


def read_frame(stream: IO[bytes]) -> bytes | None:
    """The next frame; None at the end of the stream, also in the middle of a frame."""
    length = _exactly(stream, LENGTH.size)
    if length is None:
        return None
    (size,) = LENGTH.unpack(length)
    return None if size > FRAME_BYTES_MAX else _exactly(stream, size)


def write_frame(stream: IO[bytes], frame: bytes) -> None:
    stream.write(LENGTH.pack(len(frame)))
    stream.write(frame)
    stream.flush()


def _exactly(stream: IO[bytes], size: int) -> bytes | None:
    pieces = []
    while size:
        piece = stream.read(min(size, 1024 * 1024))
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _bound(request: dict[str, Any]) -> None:
    """Limits of this process. They only ever fall, so the first request's hold for all."""
    try:
        import resource
    except ImportError:  # no POSIX: the parent's clock alone bounds it
        return
    limits = request["limits"]
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = int(used.ru_utime + used.ru_stime + limits["seconds_max"]) + CPU_GRACE_S
    _lower(resource, resource.RLIMIT_AS, limits["memory_bytes_max"])
    _lower(resource, resource.RLIMIT_CORE, 0)
    _lower(resource, resource.RLIMIT_FSIZE, 0)
    _soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or cpu_s <= hard:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, hard))


def _lower(resource: Any, kind: int, bound: int) -> None:
    _, hard = resource.getrlimit(kind)
    wanted = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    resource.setrlimit(kind, (wanted, wanted))


def _answer(request: dict[str, Any], payload: bytes) -> dict[str, Any]:
    from memos.documents.model import Limits, Options
    from memos.documents.read import read_document
    from memos.errors import DocumentError

    name = request["name"]
    try:
        document = read_document(
            payload,
            name,
            media_type=request["media_type"],
            limits=Limits(**request["limits"]),
            options=Options(**request["options"]),
        )
        return {"document": document.as_json()}
    except DocumentError as error:
        return {"kind": type(error).__name__, "error": str(error)}
    except MemoryError:
        return {"kind": "MemoryError", "error": name}
    except RecursionError:
        return {"kind": "DocumentUnreadable", "error": f"{name} is nested too deeply to be read"}
    except Exception as error:  # a parser that fails on this file must not look like a crash of ours
        return {
            "kind": "DocumentUnreadable",
            "error": f"{name} could not be read: {type(error).__name__}: {str(error)[:300]}",
        }
