"""Prefixes with made-up tensors, as the tests of files need them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memos.clock import Clock
from memos.memory.activation.files import Room, SegmentFiles, as_ids
from memos.memory.activation.manifest import Manifest, chains_of
from memos.memory.activation.segment import KvShape, Segment

SHAPE = KvShape(2, 2, 4, 4)
PRINT = "ab" * 32
OTHER_PRINT = "cd" * 32
NAMESPACE = "ef" * 16
TOKENS = 4  # of a segment


def files(
    root: Path,
    *,
    fingerprint: str = PRINT,
    bytes_max: int = 10**9,
    prefixes_max: int = 8,
    ttl_s: float = 0.0,
    clock: Clock | None = None,
) -> SegmentFiles:
    """The files of one model."""
    room = Room(bytes_max=bytes_max, prefixes_max=prefixes_max, ttl_s=ttl_s)
    return SegmentFiles(root, fingerprint=fingerprint, shape=SHAPE, room=room, clock=clock)


def cuts(ids: Sequence[int]) -> list[int]:
    """Every TOKENS tokens a segment."""
    return list(range(TOKENS, len(ids) + 1, TOKENS))


def content(start: int, ids: Sequence[int]) -> dict[str, np.ndarray]:
    """Tensors that say where they belong."""
    values = np.asarray(ids, "<f4").reshape(1, 1, -1, 1) + np.float32(start) / 1000
    whole = np.broadcast_to(values, (2, 2, len(ids), 4)).astype("<f4")
    return {"k": whole.copy(), "v": -whole}


def put(kept: SegmentFiles, ids: Sequence[int], namespace: str = NAMESPACE) -> str:
    """Write a prefix; its name."""
    manifest = kept.opened(namespace)
    names = list(chains_of(manifest.fingerprint, manifest.salt, as_ids(ids), cuts(ids)))
    segments, parent = [], ""
    for place, name in zip(cuts(ids), names, strict=True):
        start = place - TOKENS
        if name not in manifest.segments:
            part = ids[start:place]
            segments.append(Segment(name, parent, start, "fp32", as_ids(part), content(start, part)))
        parent = name
    kept.write(namespace, segments, head=names[-1])
    return names[-1]


def held(kept: SegmentFiles, ids: Sequence[int], namespace: str = NAMESPACE) -> int:
    """How many of the tokens can be read back, checked value by value."""
    tokens = 0
    for proof in kept.manifest(namespace).walk(as_ids(ids), cuts(ids)):
        segment = kept.read(namespace, proof)
        assert segment.start == tokens
        expected = content(tokens, ids[tokens : tokens + TOKENS])
        for name, array in expected.items():
            assert np.array_equal(segment.tensors[name], array)
        tokens += len(segment.ids)
    return tokens


def litter(kept: SegmentFiles, namespace: str = NAMESPACE) -> list[str]:
    """Files that no manifest names."""
    folder = kept.folder(namespace)
    named = {f"seg-{chain}.safetensors" for chain in kept.manifest(namespace).segments}
    return sorted(
        path.name for path in folder.iterdir() if path.name not in {"manifest.json", ".lock", *named}
    )


def segment_bytes(manifest: Manifest) -> int:
    """Of the largest segment."""
    return max(proof.bytes for proof in manifest.segments.values())
