"""A namespace's folder on disk: one writer at a time, files that are whole or not there.

    <root>/<fingerprint>/<namespace>/.lock · manifest.json · seg-<chain>.safetensors · *.tmp (of a writer)

A file is written beside its place, synced, and put there in one step; the manifest comes last, and what it
does not name does not count. So a process that dies anywhere leaves the state before or the state after;
what it left lying is swept by the next writer. Readers take no lock. Folders are 0700, files 0600.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from memos.errors import ActivationMiss
from memos.memory.activation.base import MissReason
from memos.memory.activation.manifest import Manifest, from_json, to_json
from memos.memory.activation.segment import open_kept

MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 16 * 1024 * 1024
LOCK = ".lock"
_SEGMENT = re.compile(r"seg-[0-9a-f]{32,64}\.safetensors")
_UNFINISHED = re.compile(r"(?:seg-[0-9a-f]{32,64}\.safetensors|manifest\.json)\.[0-9a-f]{8}\.tmp")  # of `put`


def segment_name(chain: str) -> str:
    """The file of a segment."""
    return f"seg-{chain}.safetensors"


def make(folder: Path) -> None:
    """The folder and those above it, for nobody else's eyes."""
    for each in (*reversed(folder.parents), folder):
        if not each.is_dir():
            with suppress(FileExistsError):
                each.mkdir(mode=0o700)
    if not folder.is_symlink():
        folder.chmod(0o700)


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the folder's writer lock; gives False, without it, when somebody else has it and `wait` is not.

    Between processes and between threads. The lock goes with the process that holds it. OSError.
    """
    while True:  # ends: another turn only when the folder was removed and made again meanwhile
        make(folder)
        if folder.is_symlink() or folder.parent.is_symlink():  # what is written and removed stays in the root
            raise OSError(errno.ELOOP, f"{folder} is reached by a link; link the whole folder of all models")
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if not _is_in_place(folder / LOCK, lock):
                os.close(lock)
                continue
        except BlockingIOError:
            os.close(lock)
            yield False
            return
        break
    try:
        yield True
    finally:
        os.close(lock)


def _is_in_place(path: Path, lock: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(lock))
    except FileNotFoundError:
        return False


def put(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a whole file in one step, for good: synced before it has its name. OSError; then nothing
    changed."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        made = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(made, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Names in it are for good, too."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def read_manifest(folder: Path) -> Manifest:
    """Raises ActivationMiss: missing, damaged, format."""
    return from_json(read_listing(folder / MANIFEST))


def read_listing(path: Path) -> bytes:
    """What a manifest or another listing says; no link is followed. Raises ActivationMiss: missing, damaged."""
    try:
        with os.fdopen(open_kept(path), "rb") as file:
            text = file.read(MANIFEST_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise ActivationMiss(MissReason.MISSING, f"nothing is kept here: there is no {path.name}") from error
    except OSError as error:
        raise ActivationMiss(MissReason.DAMAGED, f"{path.name}: {error.strerror or error}") from error
    if len(text) > MANIFEST_BYTES_MAX:
        raise ActivationMiss(MissReason.DAMAGED, f"{path.name} is too large")
    return text


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """What counts from now on. Under the lock. OSError; then the one before counts."""
    text = to_json(manifest)
    put(folder / MANIFEST, lambda file: file.write(text))


def sweep(folder: Path, manifest: Manifest | None) -> int:
    """Remove what the manifest does not name, and what writers left that died. Under the lock. The bytes.

    Whoever reads such a file now keeps reading it.
    """
    named = {segment_name(chain) for chain in manifest.segments} if manifest is not None else set()
    freed = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            dead = _UNFINISHED.fullmatch(entry.name)
            ours = dead or (_SEGMENT.fullmatch(entry.name) and entry.name not in named)
            if ours and not entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    freed += entry.stat(follow_symlinks=False).st_size
                    Path(entry.path).unlink()
    return freed


def remove(folder: Path) -> int:
    """The whole folder, whatever of ours is in it; the bytes that went. Under the lock. OSError."""
    (folder / MANIFEST).unlink(missing_ok=True)  # first: from here on nothing in it counts
    freed = sweep(folder, None)
    (folder / LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # somebody put a file of his own there
        folder.rmdir()
    return freed
