"""The kind of a text: stable facts about the user, preferences, or everything else. English and Chinese.

Stable facts (who the user is, home, work, family, pets, health, allergies, diet, possessions, habits that
are facts of life) go to user memory, tastes and standing instructions to preference memory, events and
whatever is in doubt to long-term memory. The same rules that derive facts decide, so that a text and what
is derived from it never disagree. A text that mixes a fact with an event is an episode: long-term memory;
its facts are derived one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memos.memory.extract import denied_allergies, is_lasting, is_small_talk
from memos.memory.item import MemoryKind
from memos.memory.preference import Polarity, preferences
from memos.memory.sentences import Sentence, clauses, opened, sentences
from memos.memory.slots import facts
from memos.memory.voice import first_person

_SILENT_ROLES = frozenset({"assistant", "system", "tool"})


@dataclass(frozen=True, slots=True)
class Classification:
    """A kind and the words that decided it."""

    kind: MemoryKind
    reason: str


def kind_of(text: str, role: str = "user", participants: Sequence[str] = ()) -> MemoryKind:
    """The kind of `text`, said by the first of `participants` (by the user when there are none)."""
    return classify(text, role, participants).kind


def classify(text: str, role: str = "user", participants: Sequence[str] = ()) -> Classification:
    """`kind_of` with its reason. Only the user's own words can be facts about the user."""
    if role in _SILENT_ROLES:
        return Classification(MemoryKind.LONG_TERM, f"said by the {role}")
    speaker = participants[0] if participants else ""
    kinds: dict[MemoryKind, str] = {}
    for sentence in sentences(text):
        if is_small_talk(sentence):
            continue
        one = _of_sentence(sentence, speaker)
        kinds.setdefault(one.kind, one.reason)
    if not kinds:
        return Classification(MemoryKind.LONG_TERM, "it states nothing")
    if MemoryKind.LONG_TERM in kinds:
        return Classification(MemoryKind.LONG_TERM, kinds[MemoryKind.LONG_TERM])
    # A fact outlives a taste: a text of both is kept with the facts.
    kind = MemoryKind.USER if MemoryKind.USER in kinds else MemoryKind.PREFERENCE
    return Classification(kind, kinds[kind])


def _of_sentence(sentence: Sentence, speaker: str) -> Classification:
    if not sentence.states:
        return Classification(MemoryKind.LONG_TERM, f"a {sentence.mood.value}")
    tastes = preferences(sentence.text, speaker)
    if tastes and tastes[0].polarity is Polarity.INSTRUCTION:
        return Classification(MemoryKind.PREFERENCE, "instruction")
    kinds: dict[MemoryKind, str] = {}
    for clause in clauses(sentence):
        one = _of_clause(opened(clause), speaker, chinese=sentence.chinese)
        if one is not None:
            kinds.setdefault(one.kind, one.reason)
    for kind in (MemoryKind.LONG_TERM, MemoryKind.USER, MemoryKind.PREFERENCE):
        if kind in kinds:
            return Classification(kind, kinds[kind])
    return Classification(MemoryKind.LONG_TERM, "no stable fact")


def _of_clause(clause: str, speaker: str, *, chinese: bool) -> Classification | None:
    """What one clause says; None for one too short to say anything ("with my wife", "honestly")."""
    stated = facts(clause, speaker, chinese=chinese)
    if stated:
        return Classification(stated[0].kind, stated[0].fact.slot)
    if any(denied_allergies(first_person(clause, speaker), speaker, chinese=chinese)):
        return Classification(MemoryKind.USER, "allergy")
    tastes = preferences(clause, speaker)
    if tastes:
        return Classification(
            MemoryKind.USER if is_lasting(tastes[0]) else MemoryKind.PREFERENCE, tastes[0].polarity.value
        )
    said = len("".join(clause.split())) if chinese else len(clause.split())
    return Classification(MemoryKind.LONG_TERM, "no stable fact") if said > 3 else None
