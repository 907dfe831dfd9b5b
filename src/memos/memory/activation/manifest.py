"""What a namespace holds: which segments, after which, for which prefixes. Values and their JSON. Pure.

    {"format", "fingerprint", "salt", "segments": [{chain, parent, …}], "held": {name: chain, …},
     "gone": [chain, …], "digest"}

Segments form a tree. A prefix is `held` under its name, the chain of its last segment, which may be evicted:
then `held` says which one before it is left. What no held prefix needs is garbage.
`gone` remembers the last evicted ones, so that a miss can say why. `salt` is random, one for each namespace:
the same text of two users has two names. `digest` finds a damaged manifest; it proves nothing against a
person who can write the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from memos.errors import ActivationMiss
from memos.memory.activation.base import MissReason
from memos.memory.activation.segment import FORMAT, KINDS, Proof, chain_of

GONE_MAX = 256
SEGMENTS_MAX = 10_000
SEGMENT_TOKENS_MIN = 48
_HEX = re.compile(r"[0-9a-f]{32,64}")
_TYPES = tuple(int if one.type == "int" else str for one in fields(Proof))
_DIGEST = b',"digest":"'  # of all that stands before it


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the module docstring. `held` is in the order in which it was written, newest last."""

    fingerprint: str
    salt: str
    segments: Mapping[str, Proof]
    held: Mapping[str, str] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all segment files."""
        return sum(proof.bytes for proof in self.segments.values())

    def path_to(self, chain: str) -> tuple[Proof, ...]:
        """The segments from the first token to the end of `chain`; empty when one of them is not here."""
        path: list[Proof] = []
        while chain:
            proof = self.segments.get(chain)
            if proof is None or len(path) > SEGMENTS_MAX:
                return ()
            path.append(proof)
            chain = proof.parent
        return tuple(reversed(path))

    def walk(self, ids: npt.NDArray[np.int32], cuts: Sequence[int]) -> tuple[Proof, ...]:
        """The segments that hold the beginning of `ids`, cut at `cuts`."""
        found: list[Proof] = []
        for name in chains_of(self.fingerprint, self.salt, ids, cuts):
            if name not in self.segments:
                break
            found.append(self.segments[name])
        return tuple(found)

    def needed(self, heads: Iterable[str]) -> set[str]:
        """The chains of all segments that these heads stand on, themselves included."""
        return {proof.chain for head in heads for proof in self.path_to(head)}

    def without(self, chains: Collection[str], *, evicted: bool = False) -> Manifest:
        """These segments and all that stand on them taken out; a prefix is held by what is left of it."""
        lost = set(chains)
        for chain in self.segments:
            if any(proof.chain in lost for proof in self.path_to(chain)):
                lost.add(chain)
        kept = {chain: proof for chain, proof in self.segments.items() if chain not in lost}
        held = {name: last for name, head in self.held.items() if (last := self._last_of(head, lost))}
        gone = (*self.gone, *sorted(lost)) if evicted else self.gone
        return replace(self, segments=kept, held=held, gone=gone[-GONE_MAX:])

    def _last_of(self, head: str, lost: Collection[str]) -> str:
        kept = [proof.chain for proof in self.path_to(head) if proof.chain not in lost]
        return kept[-1] if kept else ""

    def holding(self, chain: str, *, prefixes_max: int) -> Manifest:
        """This prefix held as well, and the oldest ones given up that are too many; garbage collected."""
        held = {name: last for name, last in self.held.items() if name != chain} | {chain: chain}
        kept = dict(list(held.items())[-prefixes_max:])
        return replace(self, held=kept).collected()

    def dropping(self, name: str) -> Manifest:
        """This prefix no longer held; garbage collected."""
        held = {each: last for each, last in self.held.items() if each != name}
        return replace(self, held=held).collected()

    def collected(self) -> Manifest:
        """Without what no held prefix needs."""
        needed = self.needed(self.held.values())
        return replace(self, segments={name: self.segments[name] for name in self.segments if name in needed})


def cuts_of(ends: Sequence[int], *, whole: bool = True) -> tuple[int, ...]:
    """Where a prefix with these ends of its parts is cut into segments: at ends, but no segment is shorter
    than SEGMENT_TOKENS_MIN, save the last. What goes with a memory are the segments from its own on.

    whole: these are the ends of all its parts, not of the first ones.
    """
    cuts: list[int] = []
    last = 0
    for end in ends:
        if end - last >= SEGMENT_TOKENS_MIN:
            cuts.append(end)
            last = end
    if whole and ends and ends[-1] > last:
        cuts.append(ends[-1])
    return tuple(cuts)


def chains_of(fingerprint: str, salt: str, ids: npt.NDArray[np.int32], cuts: Sequence[int]) -> Iterable[str]:
    """The names of the segments of `ids`, first to last; none for a cut beyond its end."""
    parent, start = "", 0
    for cut in cuts:
        if cut > len(ids):
            return
        parent = chain_of(fingerprint, salt, parent, ids[start:cut])
        yield parent
        start = cut


def to_json(manifest: Manifest) -> bytes:
    """The file's content."""
    told = {
        "format": FORMAT,
        "fingerprint": manifest.fingerprint,
        "salt": manifest.salt,
        "segments": [asdict(proof) for proof in manifest.segments.values()],
        "held": dict(manifest.held),
        "gone": list(manifest.gone),
    }
    body = json.dumps(told, separators=(",", ":")).encode()[:-1]
    return body + _DIGEST + _digest(body).encode() + b'"}'


def from_json(text: bytes) -> Manifest:
    """Raises ActivationMiss (format, damaged) for anything but what `to_json` gives, each segment after the
    one that it stands on."""
    try:
        told = json.loads(str(text, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise ActivationMiss(MissReason.DAMAGED, "the manifest is not JSON") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ActivationMiss(MissReason.FORMAT, f"the manifest is not of the format {FORMAT}")
    body, _, _ = text.rpartition(_DIGEST)
    if text != body + _DIGEST + _digest(body).encode() + b'"}':
        raise ActivationMiss(MissReason.DAMAGED, "the manifest was edited")
    try:
        proofs = [Proof(**entry) for entry in told["segments"]]
        fingerprint, salt, held, gone = (told[name] for name in ("fingerprint", "salt", "held", "gone"))
    except (KeyError, TypeError) as error:
        raise ActivationMiss(MissReason.DAMAGED, "the manifest is not complete") from error
    formed = isinstance(told["segments"], list) and isinstance(held, dict) and isinstance(gone, list)
    if not formed or not all(isinstance(text, str) for text in (fingerprint, salt, *held.values(), *gone)):
        raise ActivationMiss(MissReason.DAMAGED, "the manifest is not complete")
    known = {""}
    for proof in proofs:  # a chain becomes a file's name
        if not is_whole(proof) or proof.parent not in known:
            raise ActivationMiss(MissReason.DAMAGED, "the manifest names what cannot be a segment")
        known.add(proof.chain)
    return Manifest(fingerprint, salt, {proof.chain: proof for proof in proofs}, held, tuple(gone))


def is_whole(proof: Proof) -> bool:
    """Whether it is what a writer puts down: values of its types, a chain that can be a file's name."""
    return bool(
        tuple(map(type, astuple(proof))) == _TYPES
        and _HEX.fullmatch(proof.chain)
        and proof.kind in KINDS
        and proof.start >= 0
        and proof.tokens > 0
        and proof.bytes > 0
    )


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
