"""Prefixes on disk: found by their tokens, shared, dropped, evicted; whatever is wrong is a miss."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.memory.activation.prefixes import (
    NAMESPACE,
    OTHER_PRINT,
    PRINT,
    files,
    held,
    litter,
    put,
    segment_bytes,
)

from memos.errors import ActivationMiss
from memos.memory.activation.base import MissReason
from memos.memory.activation.files import SegmentFiles, drop_namespace
from memos.memory.activation.folder import locked, segment_name
from memos.memory.activation.manifest import Manifest, to_json
from memos.testing import ManualClock

A = list(range(100, 116))
LONGER = [*A, *range(200, 208)]
BRANCH = [*A[:8], *range(300, 308)]


def test_a_prefix_survives_and_shares_its_beginning(tmp_path: Path) -> None:
    """What was written is read by another object; a longer and a branching prefix write their tails only."""
    put(files(tmp_path), A)
    kept = files(tmp_path)
    assert held(kept, A) == 16
    assert len(kept.manifest(NAMESPACE).segments) == 4
    put(kept, LONGER)
    assert (held(kept, LONGER), len(kept.manifest(NAMESPACE).segments)) == (24, 6)
    put(kept, BRANCH)
    assert (held(kept, BRANCH), held(kept, LONGER)) == (16, 24)
    assert len(kept.manifest(NAMESPACE).segments) == 8
    assert held(kept, [*A[:4], 1, 2, 3, 4]) == 4
    assert litter(kept) == []


def test_dropping_removes_what_nobody_else_needs(tmp_path: Path) -> None:
    """A dropped prefix leaves what others stand on, and the last one takes all with it."""
    kept = files(tmp_path)
    first, longer, branch = put(kept, A), put(kept, LONGER), put(kept, BRANCH)
    size = segment_bytes(kept.manifest(NAMESPACE))
    assert kept.drop(NAMESPACE, longer) > size
    assert (held(kept, LONGER), held(kept, BRANCH)) == (16, 16)
    assert kept.drop(NAMESPACE, first) > 0
    assert (held(kept, A), held(kept, BRANCH)) == (8, 16)
    assert litter(kept) == []
    assert kept.drop(NAMESPACE, first) == 0
    assert kept.drop(NAMESPACE, branch) > 0
    assert not kept.folder(NAMESPACE).exists()
    with pytest.raises(ActivationMiss) as caught:
        kept.manifest(NAMESPACE)
    assert caught.value.reason == MissReason.MISSING


def test_a_namespace_goes_whole_for_every_model(tmp_path: Path) -> None:
    """Dropping a namespace needs no model and reaches the files of all of them, and no other namespace."""
    put(files(tmp_path), A)
    put(files(tmp_path, fingerprint=OTHER_PRINT), A)
    put(files(tmp_path), A, "user/../of another: name")
    assert drop_namespace(tmp_path, NAMESPACE) > 0
    assert [path.name for path in tmp_path.rglob(f"{NAMESPACE}*")] == []
    assert held(files(tmp_path), A, "user/../of another: name") == 16
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4
    assert drop_namespace(tmp_path, "user/../of another: name") > 0
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_nobody_else_may_look(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask."""
    root = tmp_path / "deep" / "activation"
    put(files(root), A)
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_same_text_of_two_users_has_two_names(tmp_path: Path) -> None:
    """Names are salted by namespace, and a file that is copied to another one is refused."""
    kept = files(tmp_path)
    other = "aa" * 16
    put(kept, A)
    put(kept, A, other)
    mine, theirs = (kept.manifest(each).segments for each in (NAMESPACE, other))
    assert not set(mine) & set(theirs)
    for from_, to in zip(mine, theirs, strict=True):
        shutil.copy(kept.folder(NAMESPACE) / segment_name(from_), kept.folder(other) / segment_name(to))
    with pytest.raises(ActivationMiss) as caught:
        held(kept, A, other)
    assert caught.value.reason == MissReason.DAMAGED


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), MissReason.DAMAGED),
        (lambda path: path.write_bytes(b""), MissReason.DAMAGED),
        (lambda path: path.write_bytes(b"\x80\x05K\x01." * 9), MissReason.FORMAT),
        (lambda path: path.unlink(), MissReason.MISSING),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x00"), MissReason.DAMAGED),
    ],
)
def test_a_refused_file_is_forgotten_and_written_anew(
    tmp_path: Path, damage: object, reason: MissReason
) -> None:
    """A damaged second segment is a miss with its reason; the first stays good, the next write mends it."""
    kept = files(tmp_path)
    put(kept, A)
    second = list(kept.manifest(NAMESPACE).segments)[1]
    damage(kept.folder(NAMESPACE) / segment_name(second))  # type: ignore[operator]
    with pytest.raises(ActivationMiss) as caught:
        held(kept, A)
    assert caught.value.reason == reason
    assert held(kept, A) == 4
    put(kept, A)
    assert held(kept, A) == 16
    assert litter(kept) == []


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    """Any change to the manifest, a cut one and another model's are misses; the next write begins anew."""
    kept = files(tmp_path)
    put(kept, A)
    path = kept.folder(NAMESPACE) / "manifest.json"
    text = path.read_bytes()
    told = json.loads(text)
    told["segments"][0]["chain"] = "../../../etc/passwd"
    foreign = json.loads(text) | {"fingerprint": OTHER_PRINT}
    for changed in (b"", text[:-9], text.replace(b"bytes", b"Bytes", 1), b"[]", *map(_json, (told, foreign))):
        path.write_bytes(changed)
        with pytest.raises(ActivationMiss) as caught:
            kept.manifest(NAMESPACE)
        assert caught.value.reason in (MissReason.DAMAGED, MissReason.FORMAT)
    for place in range(0, len(text), 7):
        path.write_bytes(text[:place] + bytes([text[place] ^ 0x01]) + text[place + 1 :])
        with pytest.raises(ActivationMiss):
            kept.manifest(NAMESPACE)
    put(kept, A)
    assert held(kept, A) == 16
    assert litter(kept) == []


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()  # as it is written: only the edit differs


def test_another_models_manifest_is_refused(tmp_path: Path) -> None:
    """A whole folder that is moved under another fingerprint is not believed."""
    put(files(tmp_path), A)
    shutil.copytree(tmp_path / PRINT, tmp_path / OTHER_PRINT)
    with pytest.raises(ActivationMiss) as caught:
        files(tmp_path, fingerprint=OTHER_PRINT).manifest(NAMESPACE)
    assert caught.value.reason == MissReason.FINGERPRINT


def test_a_limit_of_prefixes(tmp_path: Path) -> None:
    """The oldest prefixes of a namespace are given up when there are too many."""
    kept = files(tmp_path, prefixes_max=2)
    for first in (1000, 2000, 3000):
        put(kept, list(range(first, first + 8)))
    assert [held(kept, list(range(first, first + 8))) for first in (1000, 2000, 3000)] == [0, 8, 8]


def test_eviction_takes_tails_of_the_unused_first(tmp_path: Path) -> None:
    """Over the limit the least recently used go, last segments first; what is being written stays."""
    probe = files(tmp_path / "probe")
    put(probe, A)
    size = segment_bytes(probe.manifest(NAMESPACE))
    kept = files(tmp_path / "real", bytes_max=10 * size)
    spaces = ["aa" * 16, "bb" * 16, "cc" * 16]
    for age, space in enumerate(spaces[:2]):
        put(kept, A, space)
        for path in kept.folder(space).glob("*.safetensors"):
            os.utime(path, (age + 1, age + 1))
    put(kept, A, spaces[2])
    assert [held(kept, A, space) for space in spaces] == [8, 16, 16]
    assert kept.size() <= 10 * size
    gone = kept.manifest(spaces[0]).gone
    assert len(gone) == 2
    with pytest.raises(ActivationMiss) as caught:
        put(files(tmp_path / "real", bytes_max=2 * size), A, "dd" * 16)
    assert caught.value.reason == MissReason.FAILED
    assert not kept.manifest("dd" * 16).segments
    assert litter(kept, "dd" * 16) == []


def test_what_nobody_used_for_too_long_is_removed(tmp_path: Path) -> None:
    """A use keeps a prefix and all that it stands on; without one it is a miss (`expired`) that is written anew, and its
    files go with somebody else's write or the next start, of any model; 0 keeps everything."""
    clock = ManualClock()
    kept = files(tmp_path, ttl_s=100, clock=clock)
    other, foreign = "aa" * 16, files(tmp_path, fingerprint=OTHER_PRINT, ttl_s=100, clock=clock)
    put(kept, A)
    put(kept, LONGER)
    put(foreign, A, other)
    clock.advance(90)
    assert held(kept, A) == 16
    clock.advance(90)
    with pytest.raises(ActivationMiss) as caught:
        held(kept, LONGER)
    assert caught.value.reason == MissReason.EXPIRED
    assert (held(kept, A), litter(kept)) == (16, [])
    assert foreign.folder(other).exists()
    put(kept, LONGER)
    assert held(kept, LONGER) == 24
    assert not foreign.folder(other).exists()
    clock.advance(101)
    assert held(files(tmp_path, ttl_s=0, clock=clock), A) == 16
    clock.advance(101)
    files(tmp_path, ttl_s=100, clock=clock)
    assert list(tmp_path.rglob("seg-*")) == []
    put(kept, A)
    assert held(kept, A) == 16


def test_a_dropped_prefix_goes_though_part_of_it_was_evicted(tmp_path: Path) -> None:
    """What eviction left of a prefix is removed with it."""
    kept = files(tmp_path)
    name = put(kept, A)
    kept._forget(NAMESPACE, name)
    assert held(kept, A) == 12
    assert kept.drop(NAMESPACE, name) > 0
    assert not kept.folder(NAMESPACE).exists()


def test_a_reader_keeps_what_it_reads_while_it_is_evicted(tmp_path: Path) -> None:
    """Readers never see anything torn while a writer replaces and removes: whole or a miss."""
    kept = files(tmp_path, prefixes_max=1)
    put(kept, A)
    stop, seen, faults = threading.Event(), set(), []

    def reads() -> None:
        while not stop.is_set():
            try:
                seen.add(held(kept, A))
            except ActivationMiss as miss:
                if miss.reason != MissReason.MISSING:
                    faults.append(miss)
            except BaseException as error:  # shown by the assertion below
                faults.append(error)

    readers = [threading.Thread(target=reads) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(60):
        put(kept, [turn * 10 + 5_000 + each for each in range(8)] if turn % 2 else A)
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert seen <= {0, 4, 8, 12, 16}
    put(kept, A)
    assert held(kept, A) == 16


def test_the_lock_is_one_for_threads_too(tmp_path: Path) -> None:
    """A second holder in the same process waits or is refused; a removed folder is locked anew."""
    with locked(tmp_path / "a") as first:
        assert first
        with locked(tmp_path / "a", wait=False) as second:
            assert not second
        shutil.rmtree(tmp_path / "a")
        with locked(tmp_path / "a", wait=False) as third:
            assert third


_FORGED: list[dict[str, object]] = [
    {"tokens": "4"},
    {"bytes": True},
    {"start": "0"},
    {"start": -1},
    {"chain": 7},
    {"chain": ["a"]},
    {"parent": None},
    {"parent": "ab" * 32},
    {"kind": {}},
]


@pytest.mark.parametrize("change", _FORGED)
def test_a_segment_forged_with_its_digest_is_a_miss(tmp_path: Path, change: dict[str, object]) -> None:
    """The digest proves nothing against a person: an entry that no writer makes is refused all the same."""
    kept = files(tmp_path)
    put(kept, A)
    manifest = kept.manifest(NAMESPACE)
    first = next(iter(manifest.segments))
    forged = replace(manifest.segments[first], **change)  # type: ignore[arg-type]
    _refuse(kept, replace(manifest, segments={**manifest.segments, first: forged}))


@pytest.mark.parametrize(
    "change", [{"salt": None}, {"held": {"a": []}}, {"held": {"a": None}}, {"gone": [[]]}, {"gone": [1]}]
)
def test_a_manifest_forged_with_its_digest_is_a_miss(tmp_path: Path, change: dict[str, object]) -> None:
    """Nor is one taken whose other parts are of no type that a writer gives."""
    kept = files(tmp_path)
    put(kept, A)
    _refuse(kept, replace(kept.manifest(NAMESPACE), **change))  # type: ignore[arg-type]


def test_segments_that_stand_on_each_other_are_a_miss(tmp_path: Path) -> None:
    """A circle of parents has no first one."""
    kept = files(tmp_path)
    put(kept, A)
    manifest = kept.manifest(NAMESPACE)
    first, *_, last = manifest.segments
    circle = replace(manifest.segments[first], parent=last)
    _refuse(kept, replace(manifest, segments={**manifest.segments, first: circle}))


def _refuse(kept: SegmentFiles, forged: Manifest) -> None:
    (kept.folder(NAMESPACE) / "manifest.json").write_bytes(to_json(forged))
    with pytest.raises(ActivationMiss) as caught:
        kept.manifest(NAMESPACE)
    assert caught.value.reason == MissReason.DAMAGED
    put(files(kept.root), A)
    assert held(kept, A) == 16
    assert litter(kept) == []


def test_what_is_no_file_is_a_miss(tmp_path: Path) -> None:
    """A pipe, a folder or a link in place of a segment or a manifest is refused, and nobody waits for it."""
    kept = files(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("{}")
    makers = (os.mkfifo, Path.mkdir, lambda path: path.symlink_to(secret))
    for make in makers:
        put(kept, A)
        path = kept.folder(NAMESPACE) / segment_name(next(iter(kept.manifest(NAMESPACE).segments)))
        path.unlink()
        make(path)
        before = _descriptors()
        with pytest.raises(ActivationMiss) as caught:
            held(kept, A)
        assert caught.value.reason == MissReason.DAMAGED
        if path.is_dir():
            path.rmdir()
        put(kept, A)
        manifest = kept.folder(NAMESPACE) / "manifest.json"
        manifest.unlink()
        make(manifest)
        with pytest.raises(ActivationMiss) as caught:
            kept.manifest(NAMESPACE)
        assert caught.value.reason == MissReason.DAMAGED
        assert _descriptors() == before
        if manifest.is_dir():
            manifest.rmdir()
    put(kept, A)
    assert held(kept, A) == 16
    assert secret.read_text() == "{}"


def test_nothing_outside_is_touched(tmp_path: Path) -> None:
    """Folders of other programs, links to folders, and files that no writer of ours left stay as they are."""
    root = tmp_path / "root"
    put(files(root), A)
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    foreign = root / PRINT / "notes"
    foreign.mkdir()
    linked = root / PRINT / ("12" * 16)
    linked.symlink_to(outside)
    (root / ("34" * 16)).symlink_to(tmp_path)
    own = files(root).folder(NAMESPACE)
    others = [outside / "draft.tmp", foreign / "draft.tmp", own / "draft.tmp"]
    for path in others:
        path.write_text("of somebody else")
    left = own / f"{segment_name('ab' * 32)}.0123abcd.tmp"
    left.write_text("of a writer that died")
    kept = files(root)
    with pytest.raises(ActivationMiss) as caught:
        put(kept, A, "12" * 16)
    assert caught.value.reason == MissReason.FAILED
    drop_namespace(root, "12" * 16)
    assert all(path.read_text() == "of somebody else" for path in others)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    assert [path.name for path in outside.iterdir()] == ["draft.tmp"]
    assert not left.exists()
    assert held(kept, A) == 16


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
