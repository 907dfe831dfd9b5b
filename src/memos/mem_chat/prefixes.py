"""A chat over what a runtime keeps ready: which prefix it may use, the answer, and what was really reused.

A prefix is used as far as its memories are those of the chat's own block, in the same order, unchanged, after
the same header. Whatever is wrong with it, the chat goes on: the model is asked without, the miss is counted
with its reason, and a prefix that failed is doomed, so that it is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from memos import log, metrics
from memos.clock import Clock
from memos.errors import ActivationError, ActivationMiss, ActivationUnsupported, MemosError, StoreError
from memos.memory.activation.base import ActivationBackend, Generation, Handle, Layout, MissReason, Suffix
from memos.memory.activation.block import Prepared
from memos.memory.activation.index import BlockIndex, ChatReuse, DoomPrefixes, KeptPrefix, PrefixIndex
from memos.memory.activation.promotion import TTL_S, is_expired
from memos.memory.store import MemoryStore
from memos.memory.token_count import count_tokens
from memos.models.base import LLM, ChatMessage

# A prefix that failed for one of these is of no use to the next chat either.
FATAL = frozenset(
    {
        MissReason.FINGERPRINT,
        MissReason.MISSING,
        MissReason.DAMAGED,
        MissReason.FORMAT,
        MissReason.EXPIRED,
        MissReason.EVICTED,
        MissReason.TOKENS,
    }
)
# What the record alone tells, and how people are told. Once: such a prefix is doomed.
DOOMING = {
    MissReason.FINGERPRINT: "it was made by another model, tokenizer or template",
    MissReason.EXPIRED: "nobody used it for longer than its time to live",
}
QUIET = frozenset({MissReason.NOT_BUILT, MissReason.TOO_SHORT, MissReason.NO_MEMORIES, MissReason.FILTERED})

logger = log.get_logger(__name__)

Failed = Callable[[str, str], None]  # reason, detail


@dataclass(frozen=True, slots=True)
class Sampling:
    """How this answer is made."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The prefix that a chat may use, or why there is none. predicted: tokens of it that the chat shares."""

    handle: Handle | None
    predicted: int
    reason: MissReason = MissReason.NONE
    kept: KeptPrefix | None = None


class PrefixChat:
    """Answers of one model over its backend. Thread-safe; keeps nothing between turns."""

    def __init__(self, index: BlockIndex, store: MemoryStore, *, clock: Clock, ttl_s: float = TTL_S) -> None:
        """ttl_s: a prefix that nobody used for so long is not used; 0: any is."""
        self._index = index
        self._store = store
        self._clock = clock
        self._ttl_s = ttl_s

    def answer(
        self,
        llm: LLM,
        backend: ActivationBackend | None,
        layout: Layout,
        messages: Sequence[ChatMessage],
        prepared: Prepared | None,
        sampling: Sampling,
        *,
        told: Callable[[ChatReuse], None],
        failed: Failed = lambda reason, detail: None,
    ) -> Iterator[str]:
        """The answer in pieces; then `told` gets what was reused. Raises ModelError as the model does.

        messages: what follows the system message. failed: is told of a prefix that could not be used.
        """
        choice = self._choice(backend, layout, prepared)
        if choice.kept is None and choice.reason in DOOMING:
            failed(str(choice.reason), DOOMING[choice.reason])
        suffix = Suffix(layout, tuple(messages), sampling.max_tokens, sampling.temperature, sampling.top_p)
        if backend is not None and choice.handle is not None:
            begun = False
            try:
                generation = backend.generate(choice.handle, suffix)
                for piece in generation:
                    begun = True
                    yield piece
                told(self._counted(backend, generation, choice))
                return
            except ActivationError as error:
                if begun:
                    raise
                choice = self._given_up(choice, error, failed)
        yield from llm.stream(
            suffix.chat,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )
        told(self._noted(ChatReuse(choice.predicted, None, 0, choice.reason)))

    # -- which prefix ---------------------------------------------------------------------------------

    def _choice(self, backend: ActivationBackend | None, layout: Layout, prepared: Prepared | None) -> Choice:
        if backend is None:
            return Choice(None, 0, MissReason.UNSUPPORTED)
        shared = 0 if prepared is None else _shared(prepared, layout)
        able = backend.capabilities()
        if prepared is None:
            return Choice(_bare(layout) if able.level <= 1 else None, 0, MissReason.FILTERED)
        reason = MissReason.NONE if shared else MissReason.NOT_BUILT
        if not able.builds:
            return Choice(_bare(layout), shared, reason)
        kept, why = self._kept(backend, layout, prepared)
        if kept is None:
            if able.level > 1:
                return Choice(None, 0, why)
            return Choice(_bare(layout), shared, reason if shared else why)
        count = _common(kept, layout)
        ends = kept.ends[: count + 1]
        known = count_tokens(layout.header) + sum(count_tokens(one.text) for one in layout.entries[:count])
        handle = Handle(
            kept.id,
            kept.fingerprint,
            replace(layout, entries=layout.entries[:count]),
            tokens=kept.tokens,
            bytes=kept.bytes,
            ends=ends,
            extra=kept.extra,
        )
        return Choice(handle, max(ends[-1] if ends else known, shared if able.level == 1 else 0), kept=kept)

    def _kept(
        self, backend: ActivationBackend, layout: Layout, prepared: Prepared
    ) -> tuple[KeptPrefix | None, MissReason]:
        if not isinstance(self._index, PrefixIndex):
            return None, MissReason.UNSUPPORTED
        name = backend.capabilities().name
        try:
            found = self._index.prefixes(namespaces=[layout.namespace])
            kept = next((one for one in found if one.backend == name), None)
            if kept is None:
                return None, MissReason.NOT_BUILT if layout.entries else MissReason.NO_MEMORIES
            if kept.fingerprint != backend.fingerprint():
                self._doom(kept, MissReason.FINGERPRINT)
                return None, MissReason.FINGERPRINT
            if is_expired(kept, prepared.block, at=self._clock.now(), ttl_s=self._ttl_s):
                self._doom(kept, MissReason.EXPIRED)
                return None, MissReason.EXPIRED
        except (StoreError, ActivationError) as error:
            logger.warning("activation.lookup_failed", error=str(error), kind=type(error).__name__)
            return None, _reason_of(error)
        if kept.header != layout.header:
            return None, MissReason.TOKENS
        if kept.item_ids and not _common(kept, layout):
            return None, MissReason.INVALIDATED
        return kept, MissReason.NONE

    # -- what came of it ------------------------------------------------------------------------------

    def _counted(self, backend: ActivationBackend, generation: Generation, choice: Choice) -> ChatReuse:
        response = generation.response
        reuse = backend.reused_tokens(response)
        told = None if reuse.reason is MissReason.UNTOLD else reuse.tokens
        reason = response.reason if response.reason is not MissReason.NONE else reuse.reason
        if told == 0 and choice.reason is not MissReason.NONE and reason is not MissReason.TOO_SHORT:
            reason = choice.reason  # there was nothing to reuse yet
        return self._noted(ChatReuse(choice.predicted, told, response.tokens_in, reason))

    def _noted(self, outcome: ChatReuse) -> ChatReuse:
        word = "hit" if outcome.is_hit else "miss" if outcome.is_miss else "untold"
        metrics.ACTIVATION_LOOKUPS.add(outcome=word, reason=str(outcome.reason))
        metrics.ACTIVATION_TOKENS.add(outcome.predicted, kind="predicted")
        if outcome.reused is not None:
            metrics.ACTIVATION_TOKENS.add(outcome.reused, kind="reused")
            metrics.ACTIVATION_TOKENS.add(outcome.prompt, kind="read")
        return outcome

    def _given_up(self, choice: Choice, error: ActivationError, failed: Failed) -> Choice:
        reason = _reason_of(error)
        logger.warning("activation.miss", reason=str(reason), error=str(error))
        if choice.kept is not None and reason in FATAL:
            self._doom(choice.kept, reason)
        if reason not in QUIET:
            failed(str(reason), str(error))
        return replace(choice, handle=None, predicted=0, reason=reason)

    def _doom(self, kept: KeptPrefix, reason: MissReason) -> None:
        try:
            self._store.apply([DoomPrefixes(kept.backend, (kept.id,), str(reason))])
        except MemosError as error:
            logger.warning("activation.doom_failed", error=str(error), kind=type(error).__name__)


def _reason_of(error: MemosError) -> MissReason:
    if isinstance(error, ActivationMiss):
        try:
            return MissReason(error.reason)
        except ValueError:
            return MissReason.FAILED
    return MissReason.UNSUPPORTED if isinstance(error, ActivationUnsupported) else MissReason.FAILED


def _bare(layout: Layout) -> Handle:
    """Nothing was prepared: the endpoint's own cache may know the text."""
    return Handle(layout.namespace, "", layout, tokens=0)


def _common(kept: KeptPrefix, layout: Layout) -> int:
    """How many memories the layout begins with that the prefix begins with, unchanged."""
    count = 0
    for entry, item_id, version in zip(
        layout.entries[: kept.sound], kept.item_ids, kept.versions, strict=False
    ):
        if (entry.item_id, entry.version) != (item_id, version):
            break
        count += 1
    return count


def _shared(prepared: Prepared, layout: Layout) -> int:
    """Tokens that the newest chat's prompt began with as well, at most those that this one shows."""
    shown = sum(one.tokens for one in prepared.block.state.residents[: len(layout.entries)])
    return min(prepared.kept, count_tokens(layout.header) + shown)
