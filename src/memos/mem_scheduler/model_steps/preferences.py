"""Preferences that turns show, also those that nobody says in so many words. The prompt is `preference_extraction`.

The model points to the turn and copies the words that show the preference; both are checked, and the
statement is made here, from polarity and object. What it says beyond the words of the turn is dropped: a
preference without its quote, an instruction that nobody gave, an order in the object. Where rules read a
preference about the same thing out of the same turn, theirs stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memos.mem_scheduler.model_steps.lines import gives_orders, is_grounded
from memos.memory.extract import Derivation, Derived, derive, speaker_of
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.preference import OBJECT_CHARS_MAX, Polarity, Preference, fold_object
from memos.memory.slots import fact_of_preference
from memos.models.ask import Answer, ask, language_of, numbered, quoted
from memos.models.base import LLM
from memos.models.extractive import is_chinese

STEP = "preference_extraction"
TURNS_MAX = 40  # of one question
KNOWN_MAX = 30  # stored preferences that are shown
KNOWN_CHARS_MAX = 120
FOUND_MAX = 20
QUOTE_CHARS_MIN = 3
EXPLICIT_CONFIDENCE = 0.8
IMPLICIT_CONFIDENCE = 0.6

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "preferences": {
            "type": "array",
            "maxItems": FOUND_MAX,
            "items": {
                "type": "object",
                "properties": {
                    "turn": {"type": "integer"},
                    "quote": {"type": "string"},
                    "polarity": {"type": "string", "enum": ["like", "dislike", "habit", "instruction"]},
                    "object": {"type": "string"},
                    "explicit": {"type": "boolean"},
                },
                "required": ["turn", "quote", "polarity", "object", "explicit"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["preferences"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class PreferencesRead:
    """What the model read out of the turns, and how much of it was dropped."""

    answer: Answer
    derived: tuple[Derived, ...] = ()
    dropped: int = 0

    def extract(self, items: Sequence[MemoryItem]) -> Derivation:
        """An extractor: what rules read out of the items, and what the model read beyond that."""
        by_rules = derive(items)
        ids = {item.id for item in items}
        known = {(one.preference.key, one.sources) for one in by_rules.derived if one.preference is not None}
        texts = {one.text.casefold() for one in by_rules.derived}
        more = tuple(
            one
            for one in self.derived
            if set(one.sources) <= ids
            and one.preference is not None
            and (one.preference.key, one.sources) not in known
            and one.text.casefold() not in texts
        )
        told = {source for one in more for source in one.sources}
        skipped = tuple(one for one in by_rules.skipped if one.item_id not in told)
        return Derivation((*by_rules.derived, *more), skipped)


def turns_to_read(items: Sequence[MemoryItem]) -> list[MemoryItem]:
    """Those of the items that can show a user's preference."""
    return [item for item in items if item.raw and item.live and item.role == "user"]


def read_preferences(
    llm: LLM, items: Sequence[MemoryItem], *, known: Sequence[MemoryItem] = ()
) -> PreferencesRead:
    """Ask about the user's turns among the items, the newest `TURNS_MAX`. Raises RateLimited.

    known: stored preferences, so that the same one is named in the same words and can be merged.
    """
    turns = turns_to_read(items)[-TURNS_MAX:]
    language = language_of(*(item.memory for item in turns))
    lines = [f"{f'{speaker_of(item)}: ' if speaker_of(item) else ''}{quoted(item.memory)}" for item in turns]
    held = [quoted(item.memory, chars_max=KNOWN_CHARS_MAX) for item in known[:KNOWN_MAX]]
    values = {"turns": numbered(lines, language), "known": "\n".join(f"- {one}" for one in held) or "-"}
    answer = ask(llm, STEP, values, SCHEMA, language=language)
    if not answer.usable:
        return PreferencesRead(answer)
    rows = answer.fields["preferences"]
    found: dict[tuple[str, str], Derived] = {}
    for row in rows:
        one = _derived(row, turns)
        if one is not None and one.preference is not None and len(found) < FOUND_MAX:
            found.setdefault((one.preference.key, one.sources[0]), one)
    return PreferencesRead(answer, tuple(found.values()), len(rows) - len(found))


def _derived(row: Mapping[str, Any], turns: Sequence[MemoryItem]) -> Derived | None:
    place, polarity = int(row["turn"]), Polarity(row["polarity"])
    if not 0 <= place < len(turns):
        return None
    turn = turns[place]
    quote, thing = _flat(row["quote"]), " ".join(str(row["object"]).split()).strip(" .。,，!！\"'")
    explicit = bool(row["explicit"])
    if len(quote) < QUOTE_CHARS_MIN or quote not in _flat(turn.memory):
        return None
    if not thing or len(thing) > OBJECT_CHARS_MAX or gives_orders(thing):
        return None
    if polarity is Polarity.INSTRUCTION and not explicit:  # nobody gives an order without giving it
        return None
    if explicit and not is_grounded(thing, [turn.memory], share_min=0.5):
        return None
    if not is_grounded(f"x {thing}", ["x", turn.memory], share_min=0.0):  # a number that nobody said
        return None
    speaker = speaker_of(turn)
    stated = Preference(
        polarity,
        thing,
        _statement(polarity, thing, speaker, explicit=explicit),
        explicit,
        EXPLICIT_CONFIDENCE if explicit else IMPLICIT_CONFIDENCE,
        _key(polarity, thing),
        speaker,
        turn.happened_at,
    )
    return Derived(
        stated.text,
        MemoryKind.PREFERENCE,
        (turn.id,),
        fact_of_preference(stated, speaker),
        turn.happened_at,
        stated.confidence,
        tags=(polarity.value,),
        preference=stated,
    )


def _flat(text: Any) -> str:
    return " ".join(str(text).casefold().split()).strip(" .。,，!！\"'“”…")


def _key(polarity: Polarity, thing: str) -> str:
    if polarity in (Polarity.LIKE, Polarity.DISLIKE):
        return f"taste:{fold_object(thing)}"
    return f"{polarity.value}:{fold_object(thing)}"


_ENGLISH = {
    Polarity.LIKE: ("{who} likes {thing}.", "{who} seems to like {thing}."),
    Polarity.DISLIKE: ("{who} does not like {thing}.", "{who} seems not to like {thing}."),
    Polarity.HABIT: ("{who}'s habit: {thing}.", "{who}'s habit, as it seems: {thing}."),
    Polarity.INSTRUCTION: ("{who}'s standing instruction: {thing}.",) * 2,
}
_CHINESE = {
    Polarity.LIKE: ("{who}喜欢{thing}。", "{who}似乎喜欢{thing}。"),
    Polarity.DISLIKE: ("{who}不喜欢{thing}。", "{who}似乎不喜欢{thing}。"),
    Polarity.HABIT: ("{who}的习惯：{thing}。", "{who}似乎有这个习惯：{thing}。"),
    Polarity.INSTRUCTION: ("{who}的长期要求：{thing}。",) * 2,
}


def _statement(polarity: Polarity, thing: str, speaker: str, *, explicit: bool) -> str:
    chinese = is_chinese(thing)
    form = (_CHINESE if chinese else _ENGLISH)[polarity][0 if explicit else 1]
    return form.format(who=speaker or ("用户" if chinese else "The user"), thing=thing)
