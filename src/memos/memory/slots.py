"""Slots: what a person has of one kind (a home, a job, an age …), as a table, and the patterns that fill them.

A *fact* is (subject, slot, value). Of a single-valued slot the newest value is the true one and the others
are history (`supersede`); a slot of several values (pets, languages) only ever gains. A fact may also say
that a value holds no longer (`ended`). Subjects are the speaker and relatives of whom one has one ("my
wife", not "my sister"): a second sister must never overwrite the first.

Patterns read one clause in the first person (see `voice`) that begins with its subject. Names of places
and employers must begin with a capital: "I live in fear" fills no slot. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.preference import Polarity, Preference
from memos.memory.slot_patterns import RULES, Rule
from memos.memory.voice import first_person, relative

FACT_KEY = "fact"
VALUE_CHARS_MAX = 120


@dataclass(frozen=True, slots=True)
class Slot:
    """One line of the table. The statements are about `{subject}` and `{value}`."""

    single: bool
    english: str
    chinese: str
    english_ended: str = ""
    chinese_ended: str = ""
    kind: MemoryKind = MemoryKind.USER


SLOTS: Mapping[str, Slot] = {
    "lives_in": Slot(
        True, "{subject} lives in {value}.", "{subject}住在{value}。",
        "{subject} no longer lives in {value}.", "{subject}不再住在{value}。",
    ),
    "works_at": Slot(
        True, "{subject} works at {value}.", "{subject}在{value}工作。",
        "{subject} no longer works at {value}.", "{subject}不再在{value}工作。",
    ),
    "job": Slot(
        True, "{subject} works as {article} {value}.", "{subject}的职业是{value}。",
        "{subject} no longer works as {article} {value}.", "{subject}的职业不再是{value}。",
    ),
    "name": Slot(True, "{subject}'s name is {value}.", "{subject}的名字是{value}。"),
    "age": Slot(True, "{subject} is {value} years old.", "{subject}{value}岁。"),
    "birthday": Slot(True, "{subject}'s birthday is {value}.", "{subject}的生日是{value}。"),
    "phone": Slot(True, "{subject}'s phone number is {value}.", "{subject}的电话是{value}。"),
    "email": Slot(True, "{subject}'s email address is {value}.", "{subject}的邮箱是{value}。"),
    "address": Slot(True, "{subject}'s address is {value}.", "{subject}的地址是{value}。"),
    "from": Slot(True, "{subject} is from {value}.", "{subject}来自{value}。"),
    "born_in": Slot(True, "{subject} was born in {value}.", "{subject}出生在{value}。"),
    "grew_up_in": Slot(True, "{subject} grew up in {value}.", "{subject}在{value}长大。"),
    "studies_at": Slot(True, "{subject} studies at {value}.", "{subject}在{value}上学。"),
    "relationship_status": Slot(True, "{subject} is {value}.", "{subject}{value}。"),
    "blood_type": Slot(True, "{subject}'s blood type is {value}.", "{subject}的血型是{value}。"),
    "pronouns": Slot(True, "{subject}'s pronouns are {value}.", "{subject}的代词是{value}。"),
    "time_zone": Slot(True, "{subject}'s time zone is {value}.", "{subject}的时区是{value}。"),
    "height": Slot(True, "{subject} is {value} tall.", "{subject}身高{value}。"),
    "health": Slot(False, "{subject} has {value}.", "{subject}有{value}。"),
    "language": Slot(False, "{subject} speaks {value}.", "{subject}会说{value}。"),
    "pet": Slot(False, "{subject} has {value}.", "{subject}有{value}。"),
    "family": Slot(False, "{subject} has {value}.", "{subject}有{value}。"),
    "possession": Slot(False, "{subject} owns {value}.", "{subject}有{value}。"),
}  # fmt: skip

# Slots that are made as they are met: favourite_colour, taste:sushi (like or dislike), allergy:nut (yes or no) …
_SINGLE_PREFIXES = ("favourite_", "taste:", "allergy:", "instruction:", "diet")


def is_single(slot: str) -> bool:
    """Whether a subject has at most one value of this slot at a time. Unknown slots have several."""
    known = SLOTS.get(slot)
    return known.single if known is not None else slot.startswith(_SINGLE_PREFIXES)


# Whoever changes the language is still the same user.
_SAME_SUBJECT = {"用户": "the user"}


@dataclass(frozen=True, slots=True)
class Fact:
    """That `subject` has `value` of `slot`, or (`ended`) has it no longer; "" then means any value."""

    subject: str
    slot: str
    value: str
    ended: bool = False

    @property
    def identity(self) -> tuple[str, str]:
        """Whose slot it is: equal for facts that may replace one another."""
        subject = " ".join(self.subject.casefold().split())
        return (_SAME_SUBJECT.get(subject, subject), self.slot)

    @property
    def folded_value(self) -> str:
        """The value as it is compared."""
        return " ".join(self.value.casefold().split()).strip(" .,!。，！").removeprefix("the ")


@dataclass(frozen=True, slots=True)
class Stated:
    """A fact as it was read, the statement that says it, and how sure the reading is."""

    fact: Fact
    text: str
    kind: MemoryKind
    confidence: float


def fact_of(item: MemoryItem) -> Fact | None:
    """The fact that a derived item holds; None for raw items and for statements without a slot."""
    kept = item.extra.get(FACT_KEY)
    if item.raw or not isinstance(kept, Mapping):
        return None
    subject, slot, value = kept.get("subject"), kept.get("slot"), kept.get("value")
    if not (isinstance(subject, str) and isinstance(slot, str) and isinstance(value, str)):
        return None
    return Fact(subject, slot, value, kept.get("ended") is True)


def fact_fields(fact: Fact) -> dict[str, Any]:
    """The fact as it is kept in `MemoryItem.extra` of a derived item. JSON."""
    return {
        FACT_KEY: {"subject": fact.subject, "slot": fact.slot, "value": fact.value, "ended": fact.ended}
    }  # fmt: skip


def facts(clause: str, speaker: str, *, chinese: bool) -> list[Stated]:
    """The facts that one clause of a statement by `speaker` states; mostly none, rarely two."""
    who = speaker or ("用户" if chinese else "The user")
    owner, own = relative(clause, who, chinese=chinese)
    bare = own if owner else first_person(clause, speaker)
    if chinese:
        bare = re.sub(r"\s+(?=[\u4e00-\u9fff])|(?<=[\u4e00-\u9fff])\s+", "", bare)
    found: list[Stated] = []
    for rule in RULES:
        if rule.chinese is not chinese:
            continue
        match = rule.pattern.match(bare)
        if match is not None and (stated := _stated(rule, match, owner or who)) is not None:
            found.append(stated)
            if not rule.goes_on:
                break
    return found


def _stated(rule: Rule, match: re.Match[str], subject: str) -> Stated | None:
    groups = {name: (text or "").strip() for name, text in match.groupdict().items()}
    value = rule.value.format(**groups) if rule.value else groups.get("value", "")
    value = " ".join(value.split()).strip(" .,!;:，。！")
    if len(value) > VALUE_CHARS_MAX or (not value and not rule.ended):
        return None
    if rule.refused is not None and rule.refused.search(value):
        return None
    slot = SLOTS[rule.slot]
    form = rule.text
    if not form:
        english, chinese = (
            (slot.english_ended, slot.chinese_ended) if rule.ended else (slot.english, slot.chinese)
        )
        form = chinese if rule.chinese else english
    article = "an" if value[:1].lower() in tuple("aeiou") else "a"
    text = form.format(subject=subject, value=value, article=article)
    return Stated(Fact(subject, rule.slot, value, rule.ended), text, slot.kind, rule.confidence)


def fact_of_preference(one: Preference, speaker: str) -> Fact | None:
    """The fact behind a preference, so that an opposite one supersedes it; None for habits."""
    subject = speaker or "The user"
    topic, _, about = one.key.partition(":")
    if topic == "favourite":
        return Fact(subject, f"favourite_{favourite(about)}", one.object)
    if topic in ("taste", "allergy"):
        value = "yes" if one.polarity is Polarity.ALLERGY else one.polarity.value
        return Fact(subject, one.key, value)
    if topic in ("instruction", "diet"):
        return Fact(subject, one.key, one.object)
    return None


def favourite(what: str) -> str:
    """ "Favorite color" and "favourite colours" are one slot."""
    folded = "_".join(what.casefold().split()).replace("color", "colour").replace("flavor", "flavour")
    return folded[:-1] if folded.endswith("s") and not folded.endswith("ss") else folded
