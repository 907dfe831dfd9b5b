"""Reading documents where it cannot hurt: in a process that has bounds and can be killed.

    with Sandbox(limits) as sandbox:            # one process for many documents
        document = sandbox.read(payload, "report.pdf")

A thread cannot be killed and a parser can loop, eat memory or crash: the process is given a deadline, an
address space and no secrets of the environment, and is killed with its children when the deadline is over.
Whatever happens in it comes out as a `DocumentError`; the next document gets a fresh process. It opens no
connection, and nothing that a document names is fetched. Where the system knows no POSIX limits (Windows)
the deadline alone holds. Not thread-safe: one sandbox for each thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from types import TracebackType
from typing import Any

from memos import errors
from memos.documents.child import read_frame, write_frame
from memos.documents.model import Document, Limits, Options, too_large
from memos.errors import DocumentError, DocumentTooLarge, DocumentUnreadable, InvalidInput

DOCUMENTS_MAX = 200  # of one process, so that what a parser leaks goes
REUSE_BYTES_MAX = 4 * 1024 * 1024  # a process that read more is not used again: memory stays with it
STOP_S = 2.0
NAME_CHARS_MAX = 300

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TESSDATA_PREFIX", "SYSTEMROOT")
_MEASURED = "COVERAGE_"
_START = "import sys; sys.path[:] = {paths!r}; from memos.documents.child import main; main()"


class Sandbox:
    """See the module docstring."""

    def __init__(self, limits: Limits | None = None, options: Options | None = None) -> None:
        self.limits = limits or Limits()
        self.options = options or Options()
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0

    def read(self, payload: bytes, name: str, *, media_type: str = "", picture: bool = False) -> Document:
        """The document. Raises DocumentError and its children; ConfigError when no process can be started."""
        if not name.strip():
            raise InvalidInput("a document needs a name: give the name of its file")
        name = name[:NAME_CHARS_MAX]
        self.limits.check_bytes(len(payload), name)
        request = {
            "name": name,
            "media_type": media_type[:200],
            "limits": asdict(self.limits),
            "options": asdict(self.options) | {"picture": picture},
        }
        answer = self._ask(json.dumps(request).encode("ascii"), payload, name)
        self._read += 1
        if self._read >= DOCUMENTS_MAX or len(payload) > REUSE_BYTES_MAX or "document" not in answer:
            self.close()
        if "document" in answer:
            return Document.from_json(answer["document"])
        raise self._error(answer, name)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        self._read = 0
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the process ------------------------------------------------------------------------------------

    def _ask(self, header: bytes, payload: bytes, name: str) -> dict[str, Any]:
        process = self._running()
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(self.limits.seconds_max, stop)
        timer.daemon = True
        timer.start()
        frame: bytes | None = None
        try:
            assert process.stdin is not None and process.stdout is not None
            write_frame(process.stdin, header)
            write_frame(process.stdin, payload)
            frame = read_frame(process.stdout)
        except OSError:  # it ended while it was written to
            pass
        except BaseException:  # an interrupted caller must not leave a process with half a request
            _kill(process)
            self.close()
            raise
        finally:
            timer.cancel()
        if late.is_set():
            self.close()
            raise too_large(name, "work for longer", "seconds_max", self.limits.seconds_max)
        if frame is None:
            _kill(process)
            code = process.wait()
            self.close()
            if code == -getattr(signal, "SIGXCPU", 0):
                raise too_large(name, "work for longer", "seconds_max", self.limits.seconds_max)
            raise DocumentUnreadable(
                f"{name} makes its reader crash ({_ending(code)}): it is damaged, or needs more than "
                f"MEMOS_DOCUMENTS__MEMORY_BYTES_MAX={self.limits.memory_bytes_max} bytes"
            )
        answer: dict[str, Any] = json.loads(frame)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        program = _START.format(paths=[path for path in sys.path if path])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise errors.ConfigError(f"no process can be started to read documents in: {error}") from error
        return self._process

    def _error(self, answer: dict[str, Any], name: str) -> DocumentError:
        if answer["kind"] == "MemoryError":
            return DocumentTooLarge(
                f"{name} needs more than {self.limits.memory_bytes_max} bytes of memory to be read: split it, "
                "or raise MEMOS_DOCUMENTS__MEMORY_BYTES_MAX"
            )
        kind = _KINDS.get(answer["kind"], DocumentUnreadable)
        return kind(str(answer["error"]))


_KINDS: dict[str, type[DocumentError]] = {
    kind.__name__: kind
    for kind in (
        errors.DocumentUnsupported,
        errors.DocumentUnreadable,
        errors.DocumentEncrypted,
        errors.DocumentEmpty,
        errors.DocumentTooLarge,
    )
}


def _environment() -> dict[str, str]:
    """What the process may know of ours: where programs are, and the language; no keys."""
    kept = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_MEASURED)
    }
    return kept | {"OMP_THREAD_LIMIT": "1"}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
