"""Write hygiene: what may be stored as new, and what a store looks like that nobody kept clean.

`check` is the gate in front of a write. In this order it refuses what is too long, holds what is dangerous
(`quarantine`), and turns away what is there already: the same text, an *echo* (words that just came out
of recall, coming back as if they were news: how one wrong memory became 668 copies in mem0#4573), or the
same fact in other words (`merge`). What a user says in a raw turn is the record of the conversation and no
echo, even when it repeats a memory. `audit` counts the same defects over items that are stored already.

Pure. An echo is told by shingle containment (Broder 1997); pairs of alike texts among many are found with
MinHash signatures in bands, then decided by the rule of `signature`.
"""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from memos.errors import InvalidInput
from memos.memory.forgetting import THRESHOLD, retention
from memos.memory.item import ItemStatus, MemoryItem
from memos.memory.merge import why_not
from memos.memory.quarantine import Finding, inspect
from memos.memory.sentences import sentences
from memos.memory.signature import difference, signature
from memos.memory.token_count import count_tokens
from memos.models.base import Vectors

TOKENS_MAX = 1_024
CONTAINMENT_MIN = 0.8
SHINGLE_WORDS = 3
ECHO_WORDS_MIN = 5  # a shorter sentence ("Sure, sounds good") is said by everybody
RECALLED_MAX = 200
HASHES = 16
BANDS = 8
BUCKET_MAX = 50  # alike texts that are compared with one another; more share one hash by chance or by spam
NEVER_RECALLED_AFTER = timedelta(days=7)


class Action(StrEnum):
    """What to do with an item that wants to be stored."""

    ACCEPT = "accept"
    TOO_LONG = "too_long"
    QUARANTINE = "quarantine"
    DUPLICATE = "duplicate"
    ECHO = "echo"
    NEAR_DUPLICATE = "near_duplicate"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The action, why, and of which stored items it is a repeat (touch those instead of storing this)."""

    action: Action
    reason: str = ""
    of_ids: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def check(
    item: MemoryItem,
    *,
    known: Mapping[str, str] | None = None,
    recalled: Sequence[MemoryItem] = (),
    similar: Sequence[MemoryItem] = (),
    vectors: Mapping[str, Vectors] | None = None,
    tokens_max: int = TOKENS_MAX,
) -> Verdict:
    """The verdict on one item before it is stored.

    known: content hash -> item id among what is stored and counts as the same place (the caller decides
    whether that is the session or the cube). recalled: what recall returned lately, newest last. similar:
    stored items near to it, with `vectors` of them and of the item itself, for the near-duplicate rule.
    """
    if tokens_max < 1:
        raise InvalidInput(f"tokens_max={tokens_max!r} must be at least 1")
    tokens = count_tokens(item.memory)
    if tokens > tokens_max:
        return Verdict(Action.TOO_LONG, f"about {tokens} tokens, at most {tokens_max} are kept in one item")
    findings = inspect(item.memory, role=item.role)
    if findings:
        return Verdict(Action.QUARANTINE, "; ".join(one.reason for one in findings[:3]), findings=findings)
    twin = (known or {}).get(item.content_hash)
    if twin is not None and twin != item.id:
        return Verdict(Action.DUPLICATE, "the same text is stored already", (twin,))
    if not (item.raw and item.role == "user"):
        of_ids = echo_of(item.memory, [one for one in recalled if one.id != item.id])
        if of_ids:
            return Verdict(Action.ECHO, "its sentences came out of recall just before", of_ids)
    for other in similar:
        if other.id != item.id and other.live and not why_not(item, other, vectors or {}):
            return Verdict(Action.NEAR_DUPLICATE, "the same fact is stored in other words", (other.id,))
    return Verdict(Action.ACCEPT)


# -- echoes -----------------------------------------------------------------------------------------

_PERSONS = frozenset(
    ["i", "you", "your", "my", "me", "mine", "yours", "we", "our", "us", "he", "she", "they", "user"]
)


def echo_of(text: str, recalled: Sequence[MemoryItem]) -> tuple[str, ...]:
    """The recalled items that `text` repeats; () unless it says nothing else.

    Each sentence of some length must be contained in one recalled item and agree with it in numbers and
    negation; at least one must be long enough to be nobody's phrase. A short sentence with a number is news.
    """
    sources = [(item.id, item.memory) for item in recalled[-RECALLED_MAX:]]
    if not sources:
        return ()
    found: list[str] = []
    for sentence in sentences(text):
        words = _words(sentence.text)
        if len(words) < ECHO_WORDS_MIN:
            if signature(sentence.text).numbers:
                return ()
            continue
        source = next((item_id for item_id, memory in sources if _contained(sentence.text, memory)), None)
        if source is None:
            return ()
        found.append(source)
    return tuple(dict.fromkeys(found))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in signature(text).sequence if word not in _PERSONS)


def _contained(text: str, memory: str) -> bool:
    ours, theirs = signature(text), signature(memory)
    if not set(ours.numbers) <= set(theirs.numbers) or ours.denials != theirs.denials:
        return False
    shingles = _shingles(_words(text))
    return len(shingles & _shingles(_words(memory))) >= CONTAINMENT_MIN * len(shingles)


def _shingles(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    if len(words) < SHINGLE_WORDS:
        return frozenset({tuple(words)}) if words else frozenset()
    return frozenset(tuple(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1))


# -- alike texts among many -------------------------------------------------------------------------


def alike_pairs(items: Sequence[MemoryItem]) -> Iterator[tuple[MemoryItem, MemoryItem]]:
    """Pairs of items of one cube that say the same in almost the same words, (earlier, later), each once.

    Identical texts are pairs too. Linear in the items but for buckets of at most `BUCKET_MAX`.
    """
    buckets: defaultdict[tuple[str, int, bytes], list[int]] = defaultdict(list)
    ordered = sorted(items, key=lambda item: (item.created_at, item.position, item.id))
    for place, item in enumerate(ordered):
        for band, part in enumerate(_bands(_words(item.memory))):
            bucket = buckets[(item.cube_id, band, part)]
            if len(bucket) < BUCKET_MAX:
                bucket.append(place)
    seen: set[tuple[int, int]] = set()
    for bucket in buckets.values():
        for number, later in enumerate(bucket):
            for earlier in bucket[:number]:
                if (earlier, later) in seen:
                    continue
                seen.add((earlier, later))
                one, other = ordered[earlier], ordered[later]
                if one.content_hash == other.content_hash or not difference(one.memory, other.memory):
                    yield one, other


def _bands(words: Sequence[str]) -> list[bytes]:
    """The MinHash of a text's shingles in bands; texts that share a band are compared."""
    least = [0xFFFFFFFF] * HASHES
    for shingle in _shingles(words):
        digest = hashlib.blake2b("\x1f".join(shingle).encode(), digest_size=4 * HASHES).digest()
        least = [min(pair) for pair in zip(least, struct.unpack(f"{HASHES}I", digest), strict=True)]
    if not words:
        return []
    rows = HASHES // BANDS
    return [struct.pack(f"{rows}I", *least[at : at + rows]) for at in range(0, HASHES, rows)]


# -- audit ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AuditReport:
    """How clean a store is. Rates are shares of the live items, between 0 and 1; ids for looking closer."""

    live: int
    quarantined: int
    duplicates: tuple[str, ...] = ()  # the same text as an earlier item
    near_duplicates: tuple[str, ...] = ()  # the same words that count as an earlier item
    echoes: tuple[str, ...] = ()  # repeats of something recalled before, not said by a user
    stale: tuple[str, ...] = ()  # held no longer, or retained below the bar
    never_recalled: tuple[str, ...] = ()  # old enough to have been
    dangerous: tuple[str, ...] = ()  # live, though the gate would hold it today
    rates: Mapping[str, float] = field(default_factory=dict)


def audit(items: Iterable[MemoryItem], *, now: datetime, threshold: float = THRESHOLD) -> AuditReport:
    """The report on `items`: all of a store or of one cube."""
    everything = list(items)
    live = [item for item in everything if item.live]
    duplicates: set[str] = set()
    alike: set[str] = set()
    echoes: set[str] = set()
    for earlier, later in alike_pairs(live):
        (duplicates if earlier.content_hash == later.content_hash else alike).add(later.id)
        recalled_before = earlier.use_count > 0 and (
            earlier.used_at is None or earlier.used_at <= later.created_at
        )
        if recalled_before and later.role != "user":
            echoes.add(later.id)
    stale = [item.id for item in live if _held_no_longer(item, now) or retention(item, now) < threshold]
    unused = [
        item.id
        for item in live
        if item.use_count == 0 and item.used_at is None and now - item.created_at >= NEVER_RECALLED_AFTER
    ]
    counted = {
        "duplicates": _in_order(live, duplicates),
        "near_duplicates": _in_order(live, alike - duplicates),
        "echoes": _in_order(live, echoes),
        "stale": tuple(stale),
        "never_recalled": tuple(unused),
        "dangerous": tuple(item.id for item in live if inspect(item.memory, role=item.role)),
    }
    rates = {name: len(ids) / len(live) if live else 0.0 for name, ids in counted.items()}
    held = sum(1 for item in everything if item.status is ItemStatus.QUARANTINED)
    return AuditReport(len(live), held, **counted, rates=rates)


def _held_no_longer(item: MemoryItem, now: datetime) -> bool:
    return item.valid_until is not None and item.valid_until <= now


def _in_order(items: Sequence[MemoryItem], ids: set[str]) -> tuple[str, ...]:
    return tuple(item.id for item in items if item.id in ids)
