"""Activation memory of a model that runs in this process: tensors in files, and the last used ones at hand.

A prefix is kept as segments, cut where memories end, so a changed memory costs the segments from its own on,
and a deleted one leaves nothing behind. What is used is found by the chat's own token ids, never believed
from a handle; a file that is missing or refused shortens the prefix to what stands before it, with the reason
in the response. Every answer gets a cache of its own, so what is kept cannot grow. What the manifest no
longer names is not served from memory either.

Which reason is told when less is reused than the handle holds: `invalidated` when the chat's layout has
changed since, `evicted`, `missing`, `damaged` or `format` when files went or were refused, `fingerprint` for
another model's handle, `tokens` when the chat begins otherwise.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from memos import log
from memos.clock import Clock
from memos.errors import ActivationMiss, ActivationUnsupported
from memos.memory.activation.base import (
    Capabilities,
    Generation,
    Handle,
    Layout,
    MissReason,
    Response,
    Reuse,
    Suffix,
)
from memos.memory.activation.codec import Assembly, encode
from memos.memory.activation.files import Room, SegmentFiles, as_ids
from memos.memory.activation.manifest import Manifest, chains_of, cuts_of
from memos.memory.activation.segment import Kind, KvShape, Proof, Segment
from memos.models.base import ChatMessage
from memos.models.hf.model import HFModel, Past
from memos.models.hf.sampling import Sampling
from memos.models.hf.text import Beginning

REUSE_MIN = (
    0.3  # below it, a prefix is computed whole: reading on costs more for each token than reading anew
)
HOT_BYTES_MAX = 1024**3
TOKENS_MAX = 4_096
TIMEOUT_S = 120.0

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is of a prefix. `last` is its last segment; `reason` why it is not more."""

    past: Past | None
    last: str = ""
    reason: MissReason = MissReason.NONE

    @property
    def tokens(self) -> int:
        return self.past.tokens if self.past is not None else 0


@dataclass(frozen=True, slots=True)
class _Read:
    """What came out of files, the last segment of it, and why it is not more."""

    made: Assembly
    last: str
    miss: ActivationMiss | None = None


class HFActivation:
    """Fulfils `ActivationBackend`, level 3. `root`: the folder of all models' files."""

    def __init__(
        self,
        model: HFModel,
        root: Path,
        *,
        kind: Kind = "bf16",
        room: Room | None = None,
        clock: Clock | None = None,
        hot_bytes_max: int = HOT_BYTES_MAX,
        tokens_max: int = TOKENS_MAX,
        timeout_s: float = TIMEOUT_S,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> None:
        self.model = model
        self._sampling = Sampling(temperature, top_p)
        self._kind = kind
        self._root = root
        self._room = room
        self._clock = clock
        self._tokens_max = tokens_max
        self._timeout_s = timeout_s
        self._hot = _Hot(hot_bytes_max)
        self._opened: SegmentFiles | None = None
        self._lock = threading.Lock()

    @property
    def files(self) -> SegmentFiles:
        """The files. The first use takes the model's fingerprint. Raises ActivationUnsupported."""
        self._check()
        with self._lock:
            if self._opened is None:
                self._opened = SegmentFiles(
                    self._root,
                    fingerprint=self.model.fingerprint(),
                    shape=KvShape(*self.model.shape),
                    room=self._room,
                    clock=self._clock,
                )
            return self._opened

    def capabilities(self) -> Capabilities:
        able = not self.model.unsupported
        return Capabilities(
            level=3,
            name="transformers",
            builds=able,
            extends=able,
            survives_restart=able,
            token_ids=True,
            tells_reuse=True,
        )

    def fingerprint(self) -> str:
        self._check()
        return self.model.fingerprint()

    def tokenize(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        return self.model.text.ids(messages, opening=False)

    def prepare(self, layout: Layout) -> Handle:
        self._check()
        return self._kept(layout, self.model.text.beginning(layout.parts), reuse_min=REUSE_MIN)

    def extend(self, handle: Handle, keep: int, ids: Sequence[int], *, layout: Layout) -> Handle:
        self._same_model(handle)
        begun = self.model.text.beginning(layout.parts)
        tail = begun.ids[keep:]  # of the ids that are given, what closes the message may be a part
        if keep > len(begun.ids) or tuple(ids[: len(tail)]) != tail:
            raise ActivationMiss(MissReason.TOKENS, "these are not the ids of this layout")
        return self._kept(layout, begun, reuse_min=0.0)

    def generate(self, handle: Handle, suffix: Suffix) -> Generation:
        self._same_model(handle)
        namespace = handle.layout.namespace
        if suffix.layout.namespace != namespace:
            raise ActivationMiss(MissReason.TOKENS, "the handle is of another namespace")
        ids = self.model.text.ids(suffix.chat, opening=True)
        cuts = [cut for cut in _cuts(handle) if cut < len(ids)]
        found = self._find(namespace, ids, cuts)
        reason = self._why_less(found, handle, suffix.layout)
        if not found.tokens:
            raise ActivationMiss(reason, "nothing of the prefix can be used")
        answer = self.model.answer(
            ids,
            past=found.past,
            max_tokens=min(suffix.max_tokens or self._tokens_max, self._tokens_max),
            sampling=Sampling(
                self._sampling.temperature if suffix.temperature is None else suffix.temperature,
                self._sampling.top_p if suffix.top_p is None else suffix.top_p,
            ),
            timeout_s=suffix.timeout_s or self._timeout_s,
        )

        def finished() -> Response:
            return Response(
                answer.tokens_in,
                answer.tokens_out,
                answer.tokens_cached,
                reason,
                {"finish_reason": answer.finish_reason, "ids": tuple(answer.ids)},
            )

        return Generation(iter(answer), finished)

    def reused_tokens(self, response: Response) -> Reuse:
        if response.tokens_cached is None:
            return Reuse(0, MissReason.UNTOLD)
        return Reuse(response.tokens_cached, response.reason)

    def drop(self, handle: Handle) -> int:
        if handle.fingerprint != self.model.fingerprint():
            return 0
        freed = self.files.drop(handle.layout.namespace, handle.id)
        self._forget_unnamed(handle.layout.namespace)
        return freed

    def drop_namespace(self, namespace: str) -> int:
        self._hot.forget(namespace)
        return self.files.drop_namespace(namespace)

    def kept(self, handle: Handle) -> Past | None:
        """What is kept of a prefix, as tensors that must not be changed; None when nothing of it is.

        Raises ActivationMiss (fingerprint), ActivationUnsupported.
        """
        self._same_model(handle)
        ids = self.model.text.beginning(handle.layout.parts).ids
        return self._find(handle.layout.namespace, ids, _cuts(handle)).past

    def loaded(self, namespace: str, path: Sequence[Proof]) -> Past:
        """These segments out of their files, as tensors. Raises ActivationMiss for the first that is refused."""
        read = self._assembled(namespace, None, path, sum(proof.tokens for proof in path))
        if read.miss is not None:
            raise read.miss
        return read.made.past()

    # -- inside -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.model.unsupported:
            raise ActivationUnsupported(f"{self.model.name} keeps no prefix: {self.model.unsupported}")

    def _same_model(self, handle: Handle) -> None:
        self._check()
        if handle.fingerprint != self.model.fingerprint():
            raise ActivationMiss(MissReason.FINGERPRINT, "made by another model, tokenizer or template")

    def _kept(self, layout: Layout, begun: Beginning, *, reuse_min: float) -> Handle:
        """The prefix with these ids, on disk: what is there already, and the rest computed."""
        namespace, ids, cuts = layout.namespace, begun.ids, cuts_of(begun.ends)
        for _ in range(2):  # once more when somebody evicted meanwhile what this stands on
            manifest = self.files.opened(namespace)
            names = list(chains_of(manifest.fingerprint, manifest.salt, as_ids(ids), cuts))
            try:
                written = self._completed(namespace, manifest, ids, cuts, names, reuse_min=reuse_min)
                break
            except ActivationMiss as miss:
                if miss.reason is not MissReason.EVICTED:
                    raise
                last = miss
        else:
            raise last
        self._forget_unnamed(namespace)
        return Handle(
            id=names[-1],
            fingerprint=manifest.fingerprint,
            layout=layout,
            tokens=len(ids),
            bytes=sum(proof.bytes for proof in written.path_to(names[-1])),
            ends=begun.ends,
        )

    def _completed(
        self,
        namespace: str,
        manifest: Manifest,
        ids: Sequence[int],
        cuts: Sequence[int],
        names: Sequence[str],
        *,
        reuse_min: float,
    ) -> Manifest:
        missing = [name for name in names if name not in manifest.segments]
        if not missing:
            return self.files.write(namespace, [], head=names[-1])
        found = self._find(namespace, ids, cuts)
        if found.tokens < reuse_min * len(ids):
            found = _Found(None)
        _, cache = self.model.read(ids[found.tokens :], found.past)
        whole = self.model.past_of(cache)
        segments: list[Segment] = []
        start, parent = 0, ""
        for cut, name in zip(cuts, names, strict=True):
            if cut > found.tokens:
                part = Past(whole.keys[:, :, start:cut], whole.values[:, :, start:cut])
                segments.append(
                    Segment(name, parent, start, self._kind, as_ids(ids[start:cut]), encode(part, self._kind))
                )
            start, parent = cut, name
        return self.files.write(namespace, segments, head=names[-1])

    def _find(self, namespace: str, ids: Sequence[int], cuts: Sequence[int]) -> _Found:
        """The longest kept beginning of `ids`."""
        try:
            manifest = self.files.manifest(namespace)
        except ActivationMiss as miss:
            self._hot.forget(namespace)
            return _Found(None, reason=MissReason(miss.reason))
        path = manifest.walk(as_ids(ids), cuts)
        reason = MissReason.NONE
        if len(path) < len(cuts):
            names = list(chains_of(manifest.fingerprint, manifest.salt, as_ids(ids), cuts))
            reason = MissReason.EVICTED if names[len(path)] in manifest.gone else MissReason.MISSING
        hot, begun = self._hot.longest(namespace, [proof.chain for proof in path])
        past, last = hot, path[begun - 1].chain if begun else ""
        self.files.used(namespace, path[:begun])
        if begun < len(path):
            read = self._assembled(namespace, hot, path[begun:], cuts[len(path) - 1])
            reason = reason if read.miss is None else MissReason(read.miss.reason)
            past, last = (read.made.past() if read.made.filled else None), read.last or last
        if past is None:
            return _Found(None, reason=reason)
        self._hot.put(namespace, last, past)
        return _Found(past, last, reason)

    def _assembled(self, namespace: str, begun: Past | None, path: Sequence[Proof], tokens: int) -> _Read:
        """What is at hand and the segments of `path` after it that can be read; together at most `tokens`."""
        made, last = Assembly(self.files.shape, tokens, dtype=self.model.dtype, device=self.model.device), ""
        if begun is not None:
            made.take(begun)
        try:
            for segment in self.files.read_path(namespace, path):
                if segment.start != made.filled or made.filled + len(segment.ids) > tokens:
                    raise ActivationMiss(MissReason.DAMAGED, "it does not begin where the one before it ends")
                made.fill(segment.tensors, segment.kind)
                last = segment.chain
        except ActivationMiss as miss:
            return _Read(made, last, miss)
        return _Read(made, last)

    def _why_less(self, found: _Found, handle: Handle, layout: Layout) -> MissReason:
        if found.tokens >= handle.tokens:
            return MissReason.NONE
        shared = handle.layout.common_entries(layout)
        if shared < 0:
            return MissReason.TOKENS
        wanted = handle.ends[shared] if shared < len(handle.ends) else handle.tokens
        within = [cut for cut in _cuts(handle) if cut <= wanted]
        if found.tokens >= (within[-1] if within else 0):
            return MissReason.INVALIDATED
        return found.reason if found.reason is not MissReason.NONE else MissReason.TOKENS

    def _forget_unnamed(self, namespace: str) -> None:
        named: set[str] = set()
        with suppress(ActivationMiss):
            named = set(self.files.manifest(namespace).segments)
        self._hot.keep_only(namespace, named)


def _cuts(handle: Handle) -> tuple[int, ...]:
    """Where the handle's prefix is cut; its ends may be those of the first entries alone."""
    return cuts_of(handle.ends, whole=bool(handle.ends) and handle.ends[-1] == handle.tokens)


class _Hot:
    """The prefixes used last, as tensors, within a limit of bytes. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[tuple[str, str], Past] = OrderedDict()
        self._lock = threading.Lock()

    def longest(self, namespace: str, chains: Sequence[str]) -> tuple[Past | None, int]:
        """The tensors of the longest of these beginnings, and how many segments it has."""
        with self._lock:
            for count in range(len(chains), 0, -1):
                past = self._kept.get((namespace, chains[count - 1]))
                if past is not None:
                    self._kept.move_to_end((namespace, chains[count - 1]))
                    return past, count
        return None, 0

    def put(self, namespace: str, chain: str, past: Past) -> None:
        with self._lock:
            self._kept[(namespace, chain)] = past
            self._kept.move_to_end((namespace, chain))
            while self._kept and sum(one.bytes for one in self._kept.values()) > self._bytes_max:
                self._kept.popitem(last=False)

    def keep_only(self, namespace: str, chains: set[str]) -> None:
        """Forget what ends with another segment than these."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == namespace and key[1] not in chains]:
                del self._kept[key]

    def forget(self, namespace: str) -> None:
        self.keep_only(namespace, set())
