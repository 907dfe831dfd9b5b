"""Prepares, extends and removes prefixes of one runtime. Never on the chat path.

What is prepared is put on record by the caller, in its own transaction; a prefix that was prepared and never
recorded (a crash in between) is found again by its name when it is prepared the next time. What is doomed is
removed first and forgotten afterwards, so that a crash in between removes it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memos import log, metrics
from memos.clock import Clock
from memos.errors import ActivationError, ModelError
from memos.memory.activation.base import ActivationBackend, Handle, Layout, MissReason
from memos.memory.activation.block import MemoryBlocks, Prepared
from memos.memory.activation.index import DoomPrefixes, KeptPrefix, PrefixIndex
from memos.memory.activation.promotion import Decision, PromotionRules, decide, is_expired
from memos.memory.item import ItemStatus
from memos.memory.store import ItemFilter, MemoryStore
from memos.memory.token_count import count_tokens

SWEEP_MAX = 100  # prefixes removed in one sweep

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed, and what it could not."""

    prefixes: int = 0
    bytes: int = 0
    left: int = 0


class PrefixKeeper:
    """Over one store, one backend and the blocks of all readers. Thread-safe."""

    def __init__(
        self,
        store: MemoryStore,
        blocks: MemoryBlocks,
        backend: ActivationBackend,
        *,
        clock: Clock,
        rules: PromotionRules | None = None,
    ) -> None:
        self._store = store
        self.blocks = blocks
        self.backend = backend
        self._clock = clock
        self._rules = rules or PromotionRules()
        self.name = backend.capabilities().name

    @property
    def index(self) -> PrefixIndex | None:
        """Where prefixes are on record; None: this store keeps none, so nothing may be prepared."""
        index = self.blocks.index
        return index if isinstance(index, PrefixIndex) else None

    @property
    def builds(self) -> bool:
        """Whether there is anything to prepare."""
        return self.index is not None and self.backend.capabilities().builds

    def newest(self, namespace: str) -> KeptPrefix | None:
        """The prefix of a block."""
        index = self.index
        found = index.prefixes(namespaces=[namespace]) if index is not None else []
        return next((one for one in found if one.backend == self.name), None)

    def decide(self, prepared: Prepared, kept: KeptPrefix | None, *, forced: bool) -> Decision:
        """Raises ActivationError when the backend cannot say what model it has."""
        residents = prepared.block.state.residents
        return decide(
            prepared.block,
            prepared.layout,
            kept,
            tokens=(count_tokens(prepared.layout.header), *(one.tokens for one in residents)),
            fingerprint=self.backend.fingerprint(),
            extends=self.backend.capabilities().extends,
            rules=self._rules,
            forced=forced,
        )

    def make(self, prepared: Prepared, kept: KeptPrefix | None, decision: Decision) -> KeptPrefix:
        """Prepare what was decided. Raises ActivationError, ModelError; nothing is on record yet.

        A backend that knows token ids finds by itself what it kept of the beginning, and computes the rest.
        """
        started = self._clock.monotonic()
        layout = prepared.layout
        if decision.reason in ("first", "other_model"):
            self.backend.drop_namespace(layout.namespace)  # what another model left there
        how = decision.how
        if how == "extend" and kept is not None and not self.backend.capabilities().token_ids:
            handle = handle_of(kept, layout, decision.common)
            keep = handle.ends[-1] if handle.ends else 0
            try:
                made = self.backend.extend(handle, keep, (), layout=layout)
            except ActivationError as error:  # what was kept is of no use: from the beginning, then
                logger.warning("activation.extend_failed", error=str(error), kind=type(error).__name__)
                how = "build"
                made = self.backend.prepare(layout)
        else:
            made = self.backend.prepare(layout)
        metrics.ACTIVATION_PREPARE_SECONDS.observe(self._clock.monotonic() - started, how=how)
        entries = layout.entries
        return KeptPrefix(
            id=made.id,
            namespace=layout.namespace,
            user_id=prepared.block.user_id,
            backend=self.name,
            fingerprint=made.fingerprint,
            header=layout.header,
            tokens=made.tokens,
            bytes=made.bytes,
            ends=made.ends,
            item_ids=tuple(one.item_id for one in entries),
            versions=tuple(one.version for one in entries),
            sound=len(entries),
            extra=dict(made.extra),
        )

    # -- removing -------------------------------------------------------------------------------------

    def sweep(self) -> Swept:
        """Remove what is doomed, what holds a memory that was deleted or held for review, and what nobody used
        for too long."""
        index = self.index
        if index is None:
            return Swept()
        kept = [one for one in index.prefixes() if one.backend == self.name]
        bare = tuple(one.id for one in kept if self._holds_deleted(one))
        old = tuple(one.id for one in kept if one.id not in bare and self._is_expired(index, one))
        dooms = [
            DoomPrefixes(self.name, ids, str(reason))
            for ids, reason in ((bare, MissReason.INVALIDATED), (old, MissReason.EXPIRED))
            if ids
        ]
        if dooms:
            self._store.apply(dooms)
        gone = size = left = 0
        for one in index.prefixes(doomed=True)[:SWEEP_MAX]:
            if one.backend != self.name:
                continue
            try:
                size += self._drop(one)
            except (ActivationError, ModelError, OSError) as error:
                left += 1
                logger.warning("activation.drop_failed", error=str(error), kind=type(error).__name__)
                continue
            gone += index.forget_prefixes(self.name, [one.id])
            metrics.ACTIVATION_DROPS.add(reason=one.doomed)
        return Swept(gone, size, left)

    def _drop(self, prefix: KeptPrefix) -> int:
        """A runtime removes what its own model made; what another one left goes with the namespace."""
        freed = self.backend.drop(handle_of(prefix, Layout(prefix.namespace, prefix.header), 0))
        if prefix.fingerprint != self.backend.fingerprint() and self.newest(prefix.namespace) is None:
            freed += self.backend.drop_namespace(prefix.namespace)
        return freed

    def _is_expired(self, index: PrefixIndex, prefix: KeptPrefix) -> bool:
        """Its own time is looked at first: most were made within it."""
        at, ttl_s = self._clock.now(), self._rules.ttl_s
        if not is_expired(prefix, None, at=at, ttl_s=ttl_s):
            return False
        return is_expired(prefix, index.block(prefix.namespace), at=at, ttl_s=ttl_s)

    def _holds_deleted(self, prefix: KeptPrefix) -> bool:
        if prefix.is_sound:
            return False
        wanted = ItemFilter(ids=prefix.item_ids, statuses=(ItemStatus.DELETED, ItemStatus.QUARANTINED))
        return self._store.find(wanted, limit=1).total > 0

    def doom(self, namespaces: Sequence[str], reason: str) -> int:
        """Doom the prefixes of these blocks; returns how many."""
        index = self.index
        found = index.prefixes(namespaces=namespaces) if index is not None else []
        ids = tuple(one.id for one in found if one.backend == self.name)
        if ids:
            self._store.apply([DoomPrefixes(self.name, ids, reason)])
        return len(ids)


def handle_of(kept: KeptPrefix, layout: Layout, count: int) -> Handle:
    """What the backend is given of a prefix: `count` memories of `layout` are those that it begins with."""
    return Handle(
        kept.id,
        kept.fingerprint,
        Layout(layout.namespace, layout.header, layout.entries[:count]),
        tokens=kept.tokens,
        bytes=kept.bytes,
        ends=kept.ends[: count + 1],
        extra=kept.extra,
    )
