"""The file of a segment: what is written is read, and nothing else is."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memos.errors import ActivationMiss
from memos.memory.activation.base import MissReason
from memos.memory.activation.segment import Kind, KvShape, Proof, Scratch, Segment, chain_of, read, write

SHAPE = KvShape(2, 3, 4, 5)
PRINT = "ab" * 32


def segment(kind: Kind = "fp32", tokens: int = 7, seed: int = 0) -> Segment:
    """A segment with random content."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 1000, tokens).astype("<i4")
    rows = (SHAPE.layers, SHAPE.heads, tokens)
    if kind == "int8":
        tensors = {
            "k": random.integers(-127, 128, (*rows, 4)).astype("i1"),
            "v": random.integers(-127, 128, (*rows, 5)).astype("i1"),
            "k_scale": random.random((2, 3, 1, 4), dtype="<f4"),
            "v_scale": random.random((2, 3, tokens, 1), dtype="<f4"),
        }
    elif kind == "bf16":
        tensors = {
            name: random.integers(0, 2**16, (*rows, wide)).astype("<u2")
            for name, wide in (("k", 4), ("v", 5))
        }
    else:
        tensors = {name: random.random((*rows, wide), dtype="<f4") for name, wide in (("k", 4), ("v", 5))}
    return Segment(chain_of(PRINT, "salt", "", ids), "", 0, kind, ids, tensors)


def written(path: Path, one: Segment) -> Proof:
    """The segment in a file."""
    with path.open("wb") as file:
        return write(file, one, fingerprint=PRINT, shape=SHAPE)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_what_is_written_is_read(tmp_path: Path, kind: Kind) -> None:
    """Every kind comes back bit by bit, with its place in the prefix."""
    one = segment(kind)
    proof = written(tmp_path / "a", one)
    assert proof.bytes == (tmp_path / "a").stat().st_size
    back = read(tmp_path / "a", fingerprint=PRINT, shape=SHAPE, proof=proof)
    assert (back.chain, back.parent, back.start, back.kind) == (one.chain, "", 0, kind)
    assert np.array_equal(back.ids, one.ids)
    assert set(back.tensors) == set(one.tensors)
    for name, array in one.tensors.items():
        assert back.tensors[name].dtype == array.dtype
        assert back.tensors[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_other_programs_can_read_it(tmp_path: Path, kind: Kind) -> None:
    """The file is one that the safetensors library opens, with its metadata."""
    import safetensors

    one = segment(kind)
    written(tmp_path / "a.safetensors", one)
    found = dict(safetensors.deserialize((tmp_path / "a.safetensors").read_bytes()))
    assert set(found) == {"ids", *one.tensors}
    for name, array in (("ids", one.ids), *one.tensors.items()):
        assert (tuple(found[name]["shape"]), bytes(found[name]["data"])) == (array.shape, array.tobytes())
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="np") as file:
        assert file.metadata()["fingerprint"] == PRINT


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    """No single byte of a file can be changed without the file being refused."""
    path = tmp_path / "a"
    proof = written(path, segment("int8", tokens=2))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
        with pytest.raises(ActivationMiss):
            read(path, fingerprint=PRINT, shape=SHAPE, proof=proof)
    path.write_bytes(whole)
    assert read(path, fingerprint=PRINT, shape=SHAPE, proof=proof).kind == "int8"


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_nothing_of_the_file_before_is_read(tmp_path: Path, kind: Kind) -> None:
    """Memory that files share hides no missing byte: a cut file is refused though all of it was there before,
    and a shorter one after a longer one is read as it is."""
    scratch, path = Scratch(), tmp_path / "a"
    proof = written(path, segment(kind))
    whole = path.read_bytes()
    for left in (len(whole) - 1, len(whole) // 2, 9, 0):
        path.write_bytes(whole)
        assert read(path, fingerprint=PRINT, shape=SHAPE, proof=proof, scratch=scratch).kind == kind
        path.write_bytes(whole[:left])
        with pytest.raises(ActivationMiss):
            read(path, fingerprint=PRINT, shape=SHAPE, proof=proof, scratch=scratch)
    short = segment(kind, tokens=3, seed=5)
    back = read(path, fingerprint=PRINT, shape=SHAPE, proof=written(path, short), scratch=scratch)
    assert np.array_equal(back.ids, short.ids)
    assert all(back.tensors[name].tobytes() == array.tobytes() for name, array in short.tensors.items())


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 2_000), tail=st.binary(max_size=8))
def test_a_cut_or_longer_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, length: int, tail: bytes
) -> None:
    """Any other length than the written one is refused, with or without the manifest's word."""
    path = tmp_path_factory.mktemp("cut") / "a"
    proof = written(path, segment())
    whole = path.read_bytes()
    changed = whole[:length] + tail
    path.write_bytes(changed)
    if changed == whole:
        return
    for known in (proof, None):
        with pytest.raises(ActivationMiss):
            read(path, fingerprint=PRINT, shape=SHAPE, proof=known)


@settings(max_examples=80, deadline=None)
@given(content=st.binary(max_size=300), framed=st.booleans())
def test_any_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, framed: bool
) -> None:
    """Whatever stands in the file, the answer is a miss and never another exception."""
    path = tmp_path_factory.mktemp("any") / "a"
    path.write_bytes(struct.pack("<Q", len(content)) + content if framed else content)
    with pytest.raises(ActivationMiss):
        read(path, fingerprint=PRINT, shape=SHAPE, proof=None)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    """A pickle that would run code when it is loaded is refused as no such format, and does not run."""
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (trap,))

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "a").write_bytes(pickle.dumps({"kv_cache_memories": Trap()}, protocol=protocol))
        with pytest.raises(ActivationMiss) as caught:
            read(tmp_path / "a", fingerprint=PRINT, shape=SHAPE, proof=None)
        assert caught.value.reason in (MissReason.FORMAT, MissReason.DAMAGED)
    assert not trap.exists()


def test_what_is_foreign_is_told_apart(tmp_path: Path) -> None:
    """Another model, another width, another file, and none, each has its reason."""
    path = tmp_path / "a"
    proof = written(path, segment())
    cases = [
        ({"fingerprint": "cd" * 32, "shape": SHAPE, "proof": proof}, MissReason.FINGERPRINT),
        ({"fingerprint": PRINT, "shape": KvShape(2, 3, 4, 6), "proof": proof}, MissReason.DAMAGED),
        ({"fingerprint": PRINT, "shape": KvShape(1, 3, 4, 5), "proof": None}, MissReason.DAMAGED),
    ]
    for given_, reason in cases:
        with pytest.raises(ActivationMiss) as caught:
            read(path, **given_)  # type: ignore[arg-type]
        assert caught.value.reason == reason
    written(path, segment(seed=1))  # whole, and not the one that the manifest means
    with pytest.raises(ActivationMiss) as caught:
        read(path, fingerprint=PRINT, shape=SHAPE, proof=proof)
    assert caught.value.reason == MissReason.DAMAGED
    path.unlink()
    with pytest.raises(ActivationMiss) as caught:
        read(path, fingerprint=PRINT, shape=SHAPE, proof=proof)
    assert caught.value.reason == MissReason.MISSING
    path.symlink_to("/etc/hostname")
    with pytest.raises(ActivationMiss):
        read(path, fingerprint=PRINT, shape=SHAPE, proof=proof)


def test_wrong_tensors_are_not_written(tmp_path: Path) -> None:
    """Tensors that are not of the kind and width are refused before anything is in the file."""
    one = segment()
    wrong = Segment(one.chain, "", 0, "fp32", one.ids, {"k": one.tensors["k"], "v": one.tensors["k"]})
    with (tmp_path / "a").open("wb") as file, pytest.raises(ValueError, match="v is float32"):
        write(file, wrong, fingerprint=PRINT, shape=SHAPE)
    assert (tmp_path / "a").stat().st_size == 0


def test_names_depend_on_everything() -> None:
    """A segment's name changes with its model, its salt, what stands before it, and its tokens."""
    ids = np.arange(5, dtype="<i4")
    names = {
        chain_of("f", "s", "p", ids),
        chain_of("g", "s", "p", ids),
        chain_of("f", "t", "p", ids),
        chain_of("f", "s", "q", ids),
        chain_of("f", "s", "p", ids + 1),
    }
    assert len(names) == 5
    assert chain_of("f", "s", "p", ids) in names
