"""The single-valued fact in a model's statement, so that it takes the place of an older value as rules would.

The patterns of the rules read the statement; a model gets no slot that they do not see. Because a fact displaces
another, more is asked than of a statement beside the rules: one speaker alone is cited and speaks of themselves, the
statement says nothing else, and the value stands in a clause of theirs that states it, unasked, not denied, not of the
past. What fails one of these is a statement like any other. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from memos.memory.document_items import document_of
from memos.memory.extract import speaker_of, time_of
from memos.memory.item import MemoryItem
from memos.memory.sentences import Sentence, clauses, opened, sentences
from memos.memory.slots import Fact, facts, is_single

_SELF = re.compile(r"\b(?:i|i'm|i've|im|my|me|we|we're|we've|our)\b|[我咱]", re.I)
_DENIED = re.compile(r"\b(?:not|never|no longer|cannot|without|nor|neither)\b|n't\b|[不没未]", re.I)
_PAST = re.compile(
    r"\b(?:used to|as a (?:child|kid|teenager|student)|when i was|formerly|previously|back then|once|visit(?:ed|ing)?)\b"
    r"|以前|曾|小时候|当时|过去|从前|去过",
    re.I,
)


def fact_in(text: str, cited: Sequence[MemoryItem]) -> tuple[Fact, datetime | None] | None:
    """The fact that `text` states of the speaker of the cited turns, with the time it is true from."""
    speakers = {speaker_of(item) for item in cited}
    if len(speakers) != 1 or any(item.role != "user" or document_of(item) for item in cited):
        return None
    speaker = speakers.pop()
    fact = _only_fact(text, speaker)
    if fact is None or not is_single(fact.slot) or not fact.value:
        return None
    for item, sentence, clause in _clauses(cited):
        if fact.folded_value in clause.casefold() and _states(fact, clause, sentence, speaker):
            return fact, time_of(sentence, item.happened_at)
    return None


def _only_fact(text: str, speaker: str) -> Fact | None:
    """The fact of a text that says nothing else."""
    said = sentences(text)
    if len(said) != 1 or not said[0].states:
        return None
    parts = clauses(said[0])
    if len(parts) != 1:
        return None
    found = facts(opened(parts[0]), speaker, chinese=said[0].chinese)
    own = speaker or ("用户" if said[0].chinese else "The user")
    return found[0].fact if len(found) == 1 and found[0].fact.subject == own else None


def _clauses(cited: Sequence[MemoryItem]) -> Iterator[tuple[MemoryItem, Sentence, str]]:
    for item in cited:
        for sentence in sentences(item.memory):
            if sentence.states:
                for clause in clauses(sentence):
                    yield item, sentence, opened(clause)


def _states(fact: Fact, clause: str, sentence: Sentence, speaker: str) -> bool:
    """Whether the clause can be what the fact was read from."""
    of_self = _SELF.search(sentence.text) or (speaker and speaker.casefold() in sentence.text.casefold())
    if fact.ended:
        return bool(of_self)
    return bool(of_self) and not _DENIED.search(clause) and not _PAST.search(clause)
