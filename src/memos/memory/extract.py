"""Derived facts read out of raw turns, by rules: what `mem_read` does without a model.

`derive` makes statements that stand for themselves: the speaker is named, relative dates are absolute, no
word points outside. Four readers look at each sentence: slots (home, job …), preferences, allergies that
are denied, events. Precision comes before recall: questions, suppositions, reports, small talk and
everything with an open reference give nothing, and each turn that gives nothing says why. The raw turn
stays the memory of record, so nothing is lost by silence here.

Pure: no store, no model. `as_item` makes the item of a derived fact; the caller brings ids and time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from memos.errors import InvalidInput
from memos.memory.item import MemoryItem, MemoryKind, ReadState, Source
from memos.memory.preference import Polarity, Preference, fold_object, preferences
from memos.memory.relative_dates import absolute
from memos.memory.sentences import Sentence, clauses, opened, sentences
from memos.memory.slots import Fact, Stated, fact_fields, fact_of_preference, facts
from memos.memory.voice import first_person, resolved
from memos.retrieval.dates import date_ranges

DERIVED_PER_ITEM_MAX = 20
PREFERENCE_KEY = "preference"  # in `extra` of a derived item: polarity, object, slot
EVENT_CONFIDENCE = 0.7
_PERIOD_DAYS_MAX = 366


@dataclass(frozen=True, slots=True)
class Derived:
    """One statement read out of turns. `sources` are the ids of the raw items that say it."""

    text: str
    kind: MemoryKind
    sources: tuple[str, ...]
    fact: Fact | None  # subject, slot and value, where the statement fills a slot
    happened_at: datetime | None
    confidence: float
    tags: tuple[str, ...] = ()
    preference: Preference | None = None  # where the statement is one
    key: str = ""  # a title of a few words, where the reader gives one
    told: Mapping[str, Any] = field(
        default_factory=dict
    )  # what the reader says of it, for the item's `extra`

    @property
    def slot(self) -> str | None:
        return None if self.fact is None else self.fact.slot

    @property
    def value(self) -> str | None:
        return None if self.fact is None else self.fact.value


@dataclass(frozen=True, slots=True)
class Skipped:
    """A raw item that gave no statement, and why."""

    item_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Derivation:
    """What was read, in the order of the turns, and which turns gave nothing."""

    derived: tuple[Derived, ...]
    skipped: tuple[Skipped, ...] = ()


_SMALL_TALK = re.compile(
    r"^(?:hi|hello|hey|thanks?(?: you)?(?: so much| a lot)?|thx|ok(?:ay)?|sure|yes|yeah|yep|no|nope|cool|great|nice|wow|awesome"
    r"|amazing|perfect|congrat(?:s|ulations)|bye|good (?:morning|night|evening|luck|point|idea)|see you.*|(?:nice|good|great|lovely) to (?:meet|see|hear).*|take care.*|sounds (?:good|great|fun|like a plan).*"
    r"|that(?:'s| is| sounds) \w+(?: \w+){0,3}|no (?:problem|worries)|you(?:'re| are) welcome|lol|haha+|hmm+|how are you.*|same here|me too|of course|absolutely|exactly"
    r"|还(?:不错|行|可以|好)|最近怎么样|你好|您好|嗨|谢谢.{0,3}|好的?|好吧|嗯+|哈哈+|再见|晚安|早上好|没事|不客气|是的?|对|太好了|真棒|真的|恭喜.{0,3})(?:[\s,，]+\w+){0,2}$",
    re.I,
)
_NOT_ALLERGIC = re.compile(
    r"^(?:i am|i'm) (?:not|no longer) (?:\w+ )?allergic to (?P<object>[\w' -]{2,60}?)(?: any ?more| after all| at all)?$", re.I
)  # fmt: skip
_NOT_ALLERGIC_HAN = re.compile(r"^我(?:已经|其实)?对(?P<object>.{1,20}?)(?:并|已经)?不(?:再|会)?过敏了?$")


# "我搬家了，现在住在里昂": the speaker who left something is who is somewhere else now.
_LEFT_HAN = re.compile(
    r"^我(?:已经|刚刚?|最近|上个?月|去年|上周)*(?:搬家|搬走|换了?工作|跳槽|辞职|离职|不再?[住在]|离开|毕业)"
)
_GOES_ON_HAN = re.compile(
    r"^(?:现在|目前|如今|已经|刚刚?)*(?:住|搬[到去来]|居住|定居|在.+(?:工作|上班|任职))"
)


def speaker_of(item: MemoryItem) -> str:
    """The name of who says a turn; "" when it has none ("the user")."""
    return item.participants[0] if item.participants else ""


def derive(items: Sequence[MemoryItem]) -> Derivation:
    """The statements that the raw, live items among `items` make; one said twice has both as sources."""
    kept: dict[tuple[str, str, str], Derived] = {}
    skipped: list[Skipped] = []
    for item in items:
        found, reason = _of_item(item)
        if not found:
            skipped.append(Skipped(item.id, reason))
        for one in found:
            # The same event on another day is another event; the same fact or taste is the same one.
            day = (
                one.happened_at.date().isoformat()
                if one.kind is MemoryKind.LONG_TERM and one.happened_at
                else ""
            )
            place = (item.cube_id, one.text.casefold(), day)
            before = kept.get(place)
            kept[place] = one if before is None else _confirmed(before, one)
    return Derivation(tuple(kept.values()), tuple(skipped))


def _confirmed(before: Derived, again: Derived) -> Derived:
    times = [at for at in (before.happened_at, again.happened_at) if at is not None]
    return Derived(
        before.text,
        before.kind,
        tuple(dict.fromkeys(before.sources + again.sources)),
        before.fact,
        min(times) if times else None,
        max(before.confidence, again.confidence),
        before.tags,
        before.preference,
        before.key or again.key,
        {**again.told, **before.told},
    )


def _of_item(item: MemoryItem) -> tuple[list[Derived], str]:
    speaker = speaker_of(item)
    if not item.raw:
        return [], "it is derived already"
    if not item.live:
        return [], f"it is {item.status.value}"
    if item.role == "document":  # its "I" is whoever wrote it
        return [], "a document states nothing about the user by itself"
    if item.role in ("system", "tool") or (item.role == "assistant" and not speaker):
        return [], f"a turn of the {item.role} states nothing about the user"
    read = sentences(item.memory)
    meant = [sentence for sentence in read if not is_small_talk(sentence)]
    if not meant:
        return [], "small talk"
    found: list[Derived] = []
    reasons: list[str] = []
    for sentence in meant:
        if not sentence.states:
            reasons.append(f"a {sentence.mood.value} states nothing")
            continue
        before = len(found)
        found.extend(_of_sentence(sentence, item, speaker))
        if len(found) == before:
            reasons.append(_event_reason(sentence, speaker))
    return found[:DERIVED_PER_ITEM_MAX], "; ".join(dict.fromkeys(reasons))


def _of_sentence(sentence: Sentence, item: MemoryItem, speaker: str) -> Iterator[Derived]:
    about_user = item.role != "assistant"
    stated: list[Stated] = []
    before = ""
    for clause in clauses(sentence):
        bare = opened(clause)
        if sentence.chinese and _LEFT_HAN.match(before) and _GOES_ON_HAN.match(bare):
            bare = f"我{bare}"
        before = bare
        stated.extend(facts(bare, speaker, chinese=sentence.chinese))
        stated.extend(denied_allergies(first_person(bare, speaker), speaker, chinese=sentence.chinese))
    happened_at = time_of(sentence, item.happened_at)
    for one in stated:
        kind = one.kind if about_user else MemoryKind.LONG_TERM
        yield Derived(one.text, kind, (item.id,), one.fact, happened_at, one.confidence)
    tastes = preferences(sentence.text, speaker, item.happened_at)
    for taste in tastes:
        yield _of_preference(taste, item, speaker, about_user=about_user)
    if not stated and not tastes and (event := _event(sentence, item, speaker)) is not None:
        yield event


def is_small_talk(sentence: Sentence) -> bool:
    """Whether a sentence is made of greetings, thanks and exclamations only."""
    return all(_SMALL_TALK.match(part) for part in clauses(sentence) or [sentence.text])


def denied_allergies(clause: str, speaker: str, *, chinese: bool) -> Iterator[Stated]:
    """ "I am not allergic to nuts": the fact that ends an allergy."""
    found = (_NOT_ALLERGIC_HAN if chinese else _NOT_ALLERGIC).match(clause)
    if found is None:
        return
    thing = found["object"].strip()
    if re.match(r"(?:it|that|this|them|anything|any)\b|[这那它]|什么", thing, re.I):
        return
    who = speaker or ("用户" if chinese else "The user")
    text = f"{who}对{thing}不过敏。" if chinese else f"{who} is not allergic to {thing}."
    yield Stated(Fact(who, f"allergy:{fold_object(thing)}", "no"), text, MemoryKind.USER, 0.9)


def is_lasting(one: Preference) -> bool:
    """Whether a preference is rather a fact of life (user memory): an allergy, a diet."""
    return one.polarity is Polarity.ALLERGY or one.key == "diet"


def _of_preference(one: Preference, item: MemoryItem, speaker: str, *, about_user: bool) -> Derived:
    kind = MemoryKind.PREFERENCE if about_user else MemoryKind.LONG_TERM
    # An allergy is a fact of health that nothing may push out; a taste may change with the week.
    if about_user and is_lasting(one):
        kind = MemoryKind.USER
    return Derived(
        one.text, kind, (item.id,), fact_of_preference(one, speaker), item.happened_at, one.confidence,
        tags=(one.polarity.value,), preference=one,
    )  # fmt: skip


def _event(sentence: Sentence, item: MemoryItem, speaker: str) -> Derived | None:
    statement = resolved(opened(sentence.text), speaker, chinese=sentence.chinese)
    if not statement.text:
        return None
    dated = absolute(statement.text, item.happened_at, chinese=sentence.chinese)
    if dated.unresolved:
        return None
    when = dated.happened_at or time_of(sentence, item.happened_at)
    text = dated.text[0].upper() + dated.text[1:]
    return Derived(text, MemoryKind.LONG_TERM, (item.id,), None, when, EVENT_CONFIDENCE)


def _event_reason(sentence: Sentence, speaker: str) -> str:
    statement = resolved(opened(sentence.text), speaker, chinese=sentence.chinese)
    return statement.reason or "its date cannot be told"


def time_of(sentence: Sentence, when: datetime | None) -> datetime | None:
    """When it is true from: the one time the sentence names, if that is not to come; else when it was said."""
    if when is None:
        return None
    ranges = [found for found in date_ranges(sentence.text, when) if not found.recurring]
    if (
        len(ranges) == 1
        and (ranges[0].end - ranges[0].start).days <= _PERIOD_DAYS_MAX
        and ranges[0].start <= when
    ):
        return ranges[0].start
    return when


def as_item(
    derived: Derived,
    *,
    item_id: str,
    now: datetime,
    raw: Iterable[MemoryItem],
) -> MemoryItem:
    """The item that holds `derived`; `raw` are the items it was read from, of which it takes its place.

    Raises InvalidInput when none of its sources is among `raw`.
    """
    wanted = set(derived.sources)
    origins = [item for item in raw if item.id in wanted]
    if not origins:
        raise InvalidInput(f"none of the sources {sorted(wanted)} of {derived.text!r} was given")
    first = origins[0]
    return MemoryItem(
        id=item_id,
        cube_id=first.cube_id,
        user_id=first.user_id,
        memory=derived.text,
        kind=derived.kind,
        raw=False,
        read=ReadState.NONE,
        key=derived.key,
        participants=first.participants,
        role=first.role,
        session_id=first.session_id,
        scenario=first.scenario,
        position=first.position,
        turn_id=first.turn_id,
        sources=tuple(
            Source(
                type="item",
                role=origin.role,
                message_id=next((source.message_id for source in origin.sources if source.message_id), ""),
                item_id=origin.id,
                at=origin.happened_at,
            )
            for origin in origins
        ),
        tags=derived.tags if derived.slot is None else (*derived.tags, slot_tag(derived.slot)),
        confidence=derived.confidence,
        created_at=now,
        updated_at=now,
        happened_at=derived.happened_at,
        extra=_extra(derived),
    )


def slot_tag(slot: str) -> str:
    """The tag of items that fill a slot, by which its other values are found."""
    return f"slot:{slot}"


def _extra(derived: Derived) -> dict[str, Any]:
    extra = {**derived.told, **({} if derived.fact is None else fact_fields(derived.fact))}
    if (one := derived.preference) is not None:
        extra[PREFERENCE_KEY] = {
            "polarity": one.polarity.value,
            "object": one.object,
            "slot": one.key,
            "explicit": one.explicit,
        }
    return extra
