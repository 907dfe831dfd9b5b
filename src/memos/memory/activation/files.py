"""Kept prefixes on disk, for one model: found by their tokens, added, dropped, evicted.

What is guaranteed: a file that is served is whole and was written for these tokens by this model in this
namespace; everything else is an `ActivationMiss` with its reason. A process may be killed anywhere, the disk
may be full: the state before or the state after stands. Together the files stay within `bytes_max`: the least
recently used go first, the last segment of a prefix before those it stands on; the prefix that is being
written is never evicted for itself. What nobody used for `ttl_s` is not read (`expired`), and removed when it is
asked for, with the next write and at the next start. Thread-safe, and safe between processes.

A segment's time of change says when it was used last.

What is not: nobody is kept out who can read the folder. Keys and values are as private as the text that they
were computed from; `drop` and `drop_namespace` remove their files, not what a disk remembers.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memos import log
from memos.clock import Clock, SystemClock
from memos.errors import ActivationError, ActivationMiss
from memos.memory.activation import folder as disk
from memos.memory.activation.base import MissReason
from memos.memory.activation.eviction import Kept, evicted
from memos.memory.activation.manifest import Manifest
from memos.memory.activation.promotion import TTL_S
from memos.memory.activation.segment import KvShape, Proof, Scratch, Segment, read, write

BYTES_MAX = 4 * 1024**3
PREFIXES_MAX = 8
_NAME = re.compile(r"[0-9a-f]{32,64}")

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """How much is kept: bytes in all, and prefixes of one namespace at a time; and for how long after its last
    use (0: for ever)."""

    bytes_max: int = BYTES_MAX
    prefixes_max: int = PREFIXES_MAX
    ttl_s: float = TTL_S


class SegmentFiles:
    """See the module docstring. A salt is made at a namespace's first write."""

    def __init__(
        self,
        root: Path,
        *,
        fingerprint: str,
        shape: KvShape,
        room: Room | None = None,
        clock: Clock | None = None,
        new_salt: Callable[[], str] = lambda: secrets.token_hex(32),
    ) -> None:
        if not _NAME.fullmatch(fingerprint):
            raise ValueError(f"fingerprint {fingerprint!r} is not a hexadecimal digest")
        self.root = root.expanduser()
        self.fingerprint = fingerprint
        self.shape = shape
        self.room = room or Room()
        self._clock = clock or SystemClock()
        self._new_salt = new_salt
        disk.make(self.root)
        sweep_all(self.root)
        self._expire()

    def folder(self, namespace: str) -> Path:
        """Where a namespace's files are."""
        return self.root / self.fingerprint / _folder_name(namespace)

    def manifest(self, namespace: str) -> Manifest:
        """What is kept there now. Raises ActivationMiss: missing, damaged, format, fingerprint."""
        manifest = disk.read_manifest(self.folder(namespace))
        if manifest.fingerprint != self.fingerprint:
            raise ActivationMiss(MissReason.FINGERPRINT, "another model's files were put here")
        return manifest

    def opened(self, namespace: str) -> Manifest:
        """As `manifest`, made where there is none that can be used."""
        with self._writing(namespace) as folder:
            return self._opened(folder)

    def read(self, namespace: str, proof: Proof) -> Segment:
        """One segment that a manifest names, in memory of its own. Raises as `read_path`."""
        return next(self.read_path(namespace, [proof]))

    def read_path(self, namespace: str, path: Sequence[Proof]) -> Iterator[Segment]:
        """Segments that a manifest names, one after the other; each is gone when the next one is asked for.

        Raises ActivationMiss at the first that cannot be used; a file that is refused is removed, so that
        the next build writes it anew.
        """
        folder, scratch = self.folder(namespace), Scratch()
        for proof in path:
            yield self._read(namespace, folder / disk.segment_name(proof.chain), proof, scratch)

    def used(self, namespace: str, path: Sequence[Proof]) -> None:
        """These segments were of use just now, though they were not read: they were at hand."""
        self._note_use(self.folder(namespace), path)

    def _read(self, namespace: str, path: Path, proof: Proof, scratch: Scratch) -> Segment:
        try:
            if self._is_old(path):
                raise ActivationMiss(MissReason.EXPIRED, f"nobody used it for {self.room.ttl_s:g} s")
            segment = read(path, fingerprint=self.fingerprint, shape=self.shape, proof=proof, scratch=scratch)
        except ActivationMiss as miss:
            logger.warning("activation.file_refused", reason=str(miss.reason), why=str(miss), file=path.name)
            if miss.reason is not MissReason.FAILED:
                with suppress(ActivationError):
                    self._forget(namespace, proof.chain)
            raise
        told = (segment.chain, segment.parent, segment.start, len(segment.ids), segment.kind)
        if told != (proof.chain, proof.parent, proof.start, proof.tokens, proof.kind):
            raise ActivationMiss(MissReason.DAMAGED, "manifest and file disagree")
        self._note_use(path.parent, [proof])
        return segment

    def _note_use(self, folder: Path, path: Iterable[Proof]) -> None:
        now = self._clock.now()
        for proof in path:
            with suppress(OSError):
                os.utime(folder / disk.segment_name(proof.chain), (now, now))

    def _is_old(self, path: Path) -> bool:
        used_at = _used_at(path)
        return self.room.ttl_s > 0 and 0 < used_at < self._clock.now() - self.room.ttl_s

    def write(self, namespace: str, segments: Sequence[Segment], *, head: str) -> Manifest:
        """Add segments, each after its parent, and hold the prefix that ends with `head`.

        All of it counts or nothing. Raises ActivationMiss: evicted (a parent went meanwhile: build again),
        failed (disk full, or larger than all there is room for).
        """
        with self._writing(namespace) as folder:
            before = self._opened(folder)
            proofs = dict(before.segments)
            for segment in segments:
                if segment.parent and segment.parent not in proofs:
                    raise ActivationMiss(MissReason.EVICTED, "what this stands on went meanwhile")
                if segment.chain not in proofs:
                    proofs[segment.chain] = self._put(folder, segment)
            grown = replace(before, segments=proofs)
            size = sum(proof.bytes for proof in grown.path_to(head))
            if not size:
                raise ActivationMiss(MissReason.EVICTED, "what this stands on went meanwhile")
            if size > self.room.bytes_max:
                disk.sweep(folder, before)
                raise ActivationMiss(
                    MissReason.FAILED,
                    f"{size} bytes are more than the {self.room.bytes_max} there is room for",
                )
            after = grown.holding(head, prefixes_max=self.room.prefixes_max)
            disk.write_manifest(folder, after)
            disk.sweep(folder, after)
            self._note_use(folder, after.path_to(head))
        self._make_room(namespace, head)
        self._expire()
        return after

    def drop(self, namespace: str, name: str) -> int:
        """Remove what only this prefix holds; the bytes that went."""
        return self._changed(namespace, lambda manifest: manifest.dropping(name))

    def drop_namespace(self, namespace: str) -> int:
        """Remove everything of a namespace, of any model; the bytes that went."""
        return drop_namespace(self.root, namespace)

    def size(self) -> int:
        """Bytes of all segments, of any model."""
        return sum(manifest.bytes for _, manifest in _manifests(self.root))

    # -- inside -----------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self, namespace: str) -> Iterator[Path]:
        folder = self.folder(namespace)
        try:
            with disk.locked(folder):
                try:
                    yield folder
                except OSError as error:
                    with suppress(OSError, ActivationMiss):
                        disk.sweep(folder, disk.read_manifest(folder))
                    raise _not_written(error) from error
        except OSError as error:
            raise _not_written(error) from error

    def _opened(self, folder: Path) -> Manifest:
        try:
            manifest = disk.read_manifest(folder)
            if manifest.fingerprint == self.fingerprint:
                return manifest
            why = "another model's"
        except ActivationMiss as miss:
            why = str(miss) if miss.reason is not MissReason.MISSING else ""
        if why:  # nothing here can be trusted any more
            logger.warning("activation.manifest_refused", why=why, folder=folder.name)
        made = Manifest(self.fingerprint, self._new_salt(), {})
        disk.write_manifest(folder, made)
        disk.sweep(folder, made)
        return made

    def _put(self, folder: Path, segment: Segment) -> Proof:
        proofs: list[Proof] = []
        disk.put(
            folder / disk.segment_name(segment.chain),
            lambda file: proofs.append(write(file, segment, fingerprint=self.fingerprint, shape=self.shape)),
        )
        return proofs[0]

    def _forget(self, namespace: str, chain: str) -> None:
        # The manifest stays, and its salt with it: what is built again has its old name.
        self._changed(namespace, lambda manifest: manifest.without([chain]), stays=True)

    def _changed(self, namespace: str, change: Callable[[Manifest], Manifest], *, stays: bool = False) -> int:
        folder = self.folder(namespace)
        if not folder.is_dir():
            return 0
        with self._writing(namespace):
            try:
                before = self.manifest(namespace)
            except ActivationMiss:
                return disk.remove(folder)
            after = change(before)
            if after == before:
                return 0
            if not after.segments and not stays:
                return disk.remove(folder)
            try:
                disk.write_manifest(folder, after)
            except OSError:  # a full disk must not keep what has to go
                return disk.remove(folder)
            return disk.sweep(folder, after)

    def _expire(self) -> None:
        """Remove what nobody used for too long, of all namespaces and models; folders that somebody is writing in are
        left for the next time. What stands on such a segment is as old: a use of it is a use of all before it."""
        if self.room.ttl_s <= 0:
            return
        for folder, manifest in _manifests(self.root):
            old = {chain for chain in manifest.segments if self._is_old(folder / disk.segment_name(chain))}
            if old:
                _take_out(folder, old, evicted=False)
                logger.info("activation.expired", folder=folder.name, segments=len(old))

    def _make_room(self, namespace: str, head: str) -> None:
        """Evict until everything fits, over all namespaces and models. Folders that somebody is writing in
        are left for the next time."""
        kept: list[Kept] = []
        folders: dict[str, Path] = {}
        own = self.folder(namespace)
        for folder, manifest in _manifests(self.root):
            pinned = manifest.needed([head]) if folder == own else set()
            held = manifest.needed(manifest.held.values())
            for proof in manifest.segments.values():
                key = f"{folder.parent.name}/{folder.name}"
                folders[key] = folder
                used_at = _used_at(folder / disk.segment_name(proof.chain))
                kept.append(
                    Kept(
                        key,
                        proof.chain,
                        proof.parent,
                        proof.bytes,
                        used_at,
                        held=proof.chain in held,
                        pinned=proof.chain in pinned,
                    )
                )
        victims = evicted(kept, bytes_max=self.room.bytes_max)
        for key in dict.fromkeys(victim.folder for victim in victims):
            chains = {victim.chain for victim in victims if victim.folder == key}
            _take_out(folders[key], chains, evicted=True)
            logger.info("activation.evicted", folder=folders[key].name, segments=len(chains))


def drop_namespace(root: Path, namespace: str) -> int:
    """Remove a namespace's files, of every model that ever wrote some; the bytes that went. No model is
    needed for it. Raises ActivationMiss (failed)."""
    freed = 0
    for folder in _folders(root.expanduser(), _folder_name(namespace)):
        try:
            with disk.locked(folder):
                freed += disk.remove(folder)
        except OSError as error:
            raise ActivationMiss(MissReason.FAILED, f"cannot remove: {error.strerror or error}") from error
    return freed


def sweep_all(root: Path) -> int:
    """Remove what writers left that died, everywhere nobody is writing; the bytes that went."""
    freed = 0
    for folder in _folders(root):
        with suppress(OSError), disk.locked(folder, wait=False) as held:
            if held:
                try:
                    manifest: Manifest | None = disk.read_manifest(folder)
                except ActivationMiss:
                    manifest = None
                freed += disk.sweep(folder, manifest)
    return freed


def _take_out(folder: Path, chains: Iterable[str], *, evicted: bool) -> None:
    with suppress(OSError, ActivationMiss), disk.locked(folder, wait=False) as held:
        if held:
            after = disk.read_manifest(folder).without(set(chains), evicted=evicted)
            if not after.segments and not evicted:
                disk.remove(folder)
                return
            disk.write_manifest(folder, after)
            disk.sweep(folder, after)


def _folders(root: Path, name: str = "") -> list[Path]:
    try:
        models = [path for path in root.iterdir() if _is_ours(path)]
        found = [path for model in models for path in model.iterdir() if _is_ours(path)]
    except OSError:  # removed while we looked
        return []
    return [path for path in found if not name or path.name == name]


def _is_ours(path: Path) -> bool:
    return bool(_NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


def _manifests(root: Path) -> Iterator[tuple[Path, Manifest]]:
    for folder in _folders(root):
        with suppress(ActivationMiss):
            yield folder, disk.read_manifest(folder)


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _folder_name(namespace: str) -> str:
    """A name that can be a folder's; any other text is told by its digest."""
    if _NAME.fullmatch(namespace):
        return namespace
    return hashlib.sha256(b"memos activation folder\x1e" + namespace.encode()).hexdigest()[:32]


def _not_written(error: OSError) -> ActivationMiss:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    why = "the disk is full" if full else (error.strerror or str(error))
    return ActivationMiss(MissReason.FAILED, f"nothing was kept: {why}")


def as_ids(ids: Sequence[int]) -> npt.NDArray[np.int32]:
    """Token ids as they are stored."""
    return np.asarray(ids, dtype="<i4")
