"""What a user's feedback on an answer does to the memories behind it: correct, supplement, retract, reinforce.

`interpret` reads feedback by rules, in English and Chinese, against the memories that the answer was made
of. A target is named only when it is certain: the fact's slot, the very words that are replaced, the only
memory there is, or clearly the nearest one. Taking something away asks for the most: "that's wrong" among
five memories targets none and says so. Corrections of raw turns are meant for what is derived from them;
the turn itself stays what was said.

Pure. Without retrieved memories the corrections carry no targets; `about` is then what to search for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from memos.memory.extract import Derived, derive, is_small_talk
from memos.memory.item import MemoryItem
from memos.memory.sentences import Mood, Sentence, opened, plain, sentences
from memos.memory.signature import signature
from memos.memory.slots import Fact, fact_of, is_single
from memos.models.base import ChatMessage
from memos.retrieval.keywords import analyse
from memos.retrieval.stopwords import ENGLISH

FEEDBACK_CHARS_MAX = 8_000
RETRIEVED_MAX = 200
CORRECTIONS_MAX = 20
OVERLAP_MIN = 0.5
OVERLAP_MARGIN = 0.15
CONTRADICTED = "contradicted"


class CorrectionKind(StrEnum):
    """What to do with the targets."""

    CORRECT = "correct"  # the targets hold no longer as they are; `new_text` does
    SUPPLEMENT = "supplement"  # `new_text` is new beside them
    RETRACT = "retract"  # the targets are not to be used any more
    REINFORCE = "reinforce"  # the targets were right


@dataclass(frozen=True, slots=True)
class Correction:
    """One change that feedback asks for. Without targets, search for `about` or ask."""

    kind: CorrectionKind
    target_ids: tuple[str, ...]
    new_text: str
    reason: str
    about: str = ""
    derived: Derived | None = None  # new_text as a fact, where it was understood as one


# "No, …" and "no it is" open; "no more sushi" and "right now" do not.
_OPENS = r"(?=\s*[,.;:!-]|\s*$|\s+(?:and|but|i|i'm|i've|it|it's|my|that|that's|the|we|he|she|you|actually)\b)"
_NO = re.compile(
    r"^(?:(?:no+|nope|nah|wrong|incorrect|false|not (?:quite|exactly|really|true|right|correct)|(?:that|this|it|you)(?:'s| is| are|'re| was)? (?:all |completely |totally |just |also )?(?:wrong|incorrect|false|mistaken|not (?:quite )?(?:right|true|correct|so|accurate))"
    r"|that isn't (?:right|true|correct)|you got (?:that|it|this) wrong|that(?:'s| is) a mistake)"
    + _OPENS
    + r"[\s,.;:!-]*)+",
    re.I,
)
_NO_HAN = re.compile(r"^(?:(?:不对|不是这样的?|不是的|错了|你错了|说错了|不正确|不准确|搞错了|记错了|你记错了|这是错的|这不对|不,|不，)[\s，,。!！:：]*)+")  # fmt: skip
_FALSE = re.compile(
    r"wrong|incorrect|false|mistake|not (?:quite )?(?:right|true|correct|so|accurate)|isn't|不对|错|不正确|不准确",
    re.I,
)
_ACTUALLY = re.compile(
    r"^(?:(?:(?:actually|in fact|well|correction|sorry|i meant|i mean|to be precise)\b|其实|实际上|更正|应该是|准确地说)[\s,，:：]*)+",
    re.I,
)
_YES = re.compile(
    r"^(?:(?:yes|yep|yeah|right|correct|exactly|precisely|absolutely|indeed|true|perfect|spot on|(?:that|this|it|you)(?:'s| is| are|'re) (?:absolutely |exactly |totally |completely |all |quite )?(?:right|correct|true|it|accurate|perfect|spot on)"
    r"|you got (?:it|that) right|well remembered|good (?:memory|job)|great (?:memory|job)|thumbs up|👍)"
    + _OPENS
    + r"[\s,.;:!-]*)+",
    re.I,
)
_YES_HAN = re.compile(
    r"^(?:(?:对的?|没错|是的|正确|完全正确|说得对|你说得对|记得没错|准确|很好)[\s，,。!！:：]*)+"
)
_ALSO = re.compile(r"^(?:(?:and )?(?:also|additionally|in addition|plus|besides|moreover|one more thing|you (?:forgot|missed)(?: to mention)?(?: that)?|另外|还有|此外|补充一下|再补充)[\s,，:：]*)+", re.I)  # fmt: skip
_FORGET = re.compile(
    r"^(?:please |can you |could you |kindly )*(?:forget|delete|remove|erase|unlearn|discard|drop|don't remember|do not remember|stop remembering|don't store|do not store)"
    r"(?:\s+(?:(?:this|that|the) (?:memory|fact|note|one|thing)(?: (?:about|that|of))?|about|that|what i said about|the (?:memory|fact|note|thing) (?:about|that|of)|everything about|the memory|it|this))*\s*(?P<about>.*)$",
    re.I,
)
_FORGOT_ONE = re.compile(
    r"^(?:please )?(?:don't|do not|never) forget(?: that)?\b\s*|^(?:请)?(?:别|不要)忘(?:了|记)?[，,]?\s*",
    re.I,
)
_FORGET_HAN = re.compile(
    r"^(?:请|你|帮我|可以)*(?:忘了|忘掉|忘记|删除|删掉|清除|去掉|别再?记|不要再?记住?|不用记)(?:掉|住|它|这个|那个|这条|那条|这件事|那件事|关于|有关|的|记忆|了|吧)*(?P<about>.*?)(?:的?(?:记忆|事情?|信息))?[吧了。]*$"
)
_EVERYTHING = re.compile(
    r"^(?:everything|all(?: of (?:it|that|them|this))?|them(?: all)?|these|those|both|全部|所有|一切|都)\b",
    re.I,
)
_LEAD_IN = re.compile(r"^.*\b(?:is|are|was|were|be|at|in|on|to|from|by|for|of|meant|said|called|named|like|likes|love|prefer|it|that)\s+|^.*?'s\s+(?=\S+$)", re.I)  # fmt: skip
_LEAD_IN_HAN = re.compile(r"^.*(?:应该)?(?:是|在|叫|到|为|于)")
_REPLACEMENTS = (
    re.compile(r"^not\s+(?P<old>[^,]+?)(?:,\s*(?:but\s+)?|\s+but\s+)(?P<new>.+)$", re.I),
    re.compile(
        r"^(?:please )?(?:change|correct|replace|update)\s+(?P<old>.+?)\s+(?:to|with|into)\s+(?P<new>.+)$",
        re.I,
    ),
    re.compile(
        r"^(?P<new>.+?)(?:,\s*(?:and |but )?|\s+and\s+|\s+but\s+)not\s+(?:at |in |on |to |from )?(?P<old>[^,]+)$",
        re.I,
    ),
    re.compile(r"^(?:it's|it is|that's|i said|i meant|make it)\s+(?P<new>\S+)\s+not\s+(?P<old>\S+)$", re.I),
    re.compile(
        r"^(?P<new>(?:.*\s)?(?-i:[A-Z])\w+)\s+not\s+(?:at |in |on |to |from )?(?P<old>(?-i:[A-Z])[\w ]*)$",
        re.I,
    ),
    re.compile(r"^(?P<new>.+?),?\s+(?:instead of|rather than)\s+(?P<old>.+)$", re.I),
    re.compile(r"^把(?P<old>.+?)(?:改成|改为|换成)(?P<new>.+)$"),
    re.compile(r"^.*?不(?:是|在|叫)(?P<old>[^，,]+)[，,]\s*(?:而)?(?P<new>[^，,]*(?:是|在|叫).+)$"),
    re.compile(r"^(?P<new>[^，,]*(?:是|在|叫)[^，,]+)[，,]\s*(?:而)?不(?:是|在|叫)(?P<old>.+)$"),
    re.compile(r"^(?P<new>[^，,]{1,20})[，,]\s*(?:而)?不(?:是|在|叫)(?P<old>.+)$"),
)
# What is left of "no, it's Lyon" or "不对，是里昂": a value and nothing else.
_BARE = re.compile(
    r"^(?:(?:it|that|this)(?:'s| is| should be)|i (?:meant|said)|make it|should be)?\s*(?P<value>[\w.+@' -]{1,60}?)"
    r"(?:\s+(?:now|actually|these days|nowadays|instead))?$",
    re.I,
)
_BARE_HAN = re.compile(r"^(?:应该|我说的|我)?(?P<is>是|在)?(?P<value>[\w·]{1,12}?)了?$")
_FRAGMENT_CHARS_MAX = 6
_HAN = re.compile("[\u4e00-\u9fff]")
_NOW = re.compile(r"\s+(?:now|nowadays|these days)$", re.I)
_PERSONS = frozenset(["i", "you", "user", "我", "你", "他", "她"])
_POINTING = re.compile(r"\b(?:it|that|this|he|she|they|him|her|them|there)\b|[他她它这那]", re.I)


def interpret(
    feedback_text: str,
    retrieved: Sequence[MemoryItem] = (),
    history: Sequence[ChatMessage] = (),
    *,
    corrected_answer: str = "",
    speaker: str = "",
    when: datetime | None = None,
) -> list[Correction]:
    """The corrections that feedback asks for, in the order of its sentences; none when it asks for none.

    retrieved: the memories behind the answer. history: the turns before, oldest first; the last answer
    tells which of several memories is meant. corrected_answer: the right answer, when the user gave it.
    speaker, when: who gives the feedback, and when.
    """
    items = [item for item in retrieved[:RETRIEVED_MAX] if item.live]
    name = speaker or next((item.participants[0] for item in items if item.participants), "")
    reader = _Reader(items, _last_answer(history), name, when)
    found: list[Correction] = []
    if corrected_answer.strip():
        found.append(reader.corrected(corrected_answer.strip()[:FEEDBACK_CHARS_MAX]))
    for sentence in sentences(feedback_text[:FEEDBACK_CHARS_MAX]):
        for one in reader.read(sentence):
            # With the right answer at hand, "that's wrong" says nothing more.
            if not (
                found and corrected_answer.strip() and one.kind is CorrectionKind.RETRACT and not one.about
            ):
                found.append(one)
    return _distinct(found)[:CORRECTIONS_MAX]


def _last_answer(history: Sequence[ChatMessage]) -> str:
    return next((turn.content for turn in reversed(history) if turn.role == "assistant"), "")


def _distinct(found: Sequence[Correction]) -> list[Correction]:
    """Each change once; "wrong" followed by what is right is one correction, not a retraction as well."""
    kept = {(one.kind, one.target_ids, one.new_text): one for one in found}
    corrects = any(one.kind is CorrectionKind.CORRECT for one in kept.values())
    denied = {
        target for one in kept.values() if one.kind is CorrectionKind.CORRECT for target in one.target_ids
    }
    return [
        one
        for one in kept.values()
        if not (
            one.kind is CorrectionKind.RETRACT
            and not one.about
            and (denied.issuperset(one.target_ids) and corrects)
        )
    ]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the sentences of one feedback against the memories it is about."""

    items: Sequence[MemoryItem]
    answer: str
    speaker: str
    when: datetime | None

    def read(self, sentence: Sentence) -> Iterator[Correction]:
        judged = any(lead.match(sentence.text) for lead in (_YES, _YES_HAN, _NO, _NO_HAN))
        if is_small_talk(sentence) and not judged:
            return
        text = _FORGOT_ONE.sub("", sentence.text)
        if (forgotten := self._forget(text, chinese=sentence.chinese)) is not None:
            yield forgotten
            return
        denied = _NO_HAN.match(text) or _NO.match(text)
        affirmed = None if denied else _YES_HAN.match(text) or _YES.match(text)
        lead = denied or affirmed
        rest = (text[lead.end() :] if lead else text).strip(" ,，.")
        if affirmed:
            yield self._reinforce(affirmed.group())
            rest = re.sub(r"^(?:and|but)\s+", "", rest, flags=re.I)
        if not rest:
            if denied and _FALSE.search(denied.group()):
                yield self._doubt(denied.group())
            return
        if sentence.mood in (Mood.QUESTION, Mood.SUPPOSITION):
            return
        actually = _ACTUALLY.match(rest)
        rest = (rest[actually.end() :] if actually else rest).strip(" ,，")
        yield from self._statement(rest, denies=denied is not None, corrects=bool(denied or actually))

    def corrected(self, answer: str) -> Correction:
        """The correction by a right answer that was given in full."""
        derived = self._derived(answer)
        targets = self._by_fact(derived[0].fact) if derived else ()
        targets = targets or self._nearest(answer) or self._only()
        text = " ".join(one.text for one in derived) if derived else answer
        kind = CorrectionKind.CORRECT if targets else CorrectionKind.SUPPLEMENT
        return Correction(
            kind, targets, text, "the right answer was given", answer, derived[0] if derived else None
        )

    # -- what a sentence asks for --

    def _forget(self, text: str, *, chinese: bool) -> Correction | None:
        bare = opened(text)
        found = (_FORGET_HAN if chinese else _FORGET).match(bare)
        if found is None:
            return None
        about = found["about"].strip(" ,.!，。")
        if about and _EVERYTHING.match(about):
            targets = tuple(item.id for item in self.items)
        elif about:
            targets = self._nearest(about)
        else:
            targets = self._meant()
        reason = "asked to forget it" if targets else "asked to forget, but not certain which memory"
        return Correction(CorrectionKind.RETRACT, targets, "", reason, about)

    def _reinforce(self, words: str) -> Correction:
        meant = self._meant() or tuple(item.id for item in self.items)
        return Correction(CorrectionKind.REINFORCE, meant, "", f"confirmed: {words.strip(' ,.!')}")

    def _doubt(self, words: str) -> Correction:
        targets = self._meant()
        said = words.strip(" ,.!，。")
        reason = f"denied: {said}" if targets else f"denied, but not certain which memory: {said}"
        return Correction(CorrectionKind.RETRACT, targets, "", reason)

    def _statement(self, rest: str, *, denies: bool, corrects: bool) -> Iterator[Correction]:
        also = _ALSO.match(rest)
        rest = (rest[also.end() :] if also else rest).strip(" ,，")
        derived = self._derived(rest)
        if not any(self._by_fact(one.fact) for one in derived):
            replaced = self._replacement(rest)
            if replaced is not None:
                yield replaced
                return
        if derived:
            yield from self._facts(derived, corrects=corrects and not also)
            return
        if corrects and not also and (bare := (_BARE_HAN if _HAN.search(rest) else _BARE).match(rest)):
            revalued = self._revalued(bare["value"])
            if revalued is not None:
                yield revalued
                return
            if denies and bare.re is _BARE_HAN and (bare["is"] or len(rest) <= _FRAGMENT_CHARS_MAX):
                yield self._doubt(rest)  # a fragment is no memory
                return
        if _is_phrase(rest) and not (denies and _POINTING.search(rest) and _words(rest)):
            if denies:
                yield self._doubt(rest)
            return
        targets = (
            ()
            if also or not corrects
            else self._nearest(rest) or (self._only() if denies and _POINTING.search(rest) else ())
        )
        if targets:
            yield Correction(
                CorrectionKind.CORRECT, targets, self._reworded(rest, targets), CONTRADICTED, rest
            )
        elif not _POINTING.search(rest):
            yield Correction(
                CorrectionKind.SUPPLEMENT, (), self._said(rest), "stated beside what is known", rest
            )

    def _facts(self, derived: Sequence[Derived], *, corrects: bool) -> Iterator[Correction]:
        begun = {one.fact.identity for one in derived if one.fact is not None and not one.fact.ended}
        for one in derived:
            if one.fact is not None and one.fact.ended and one.fact.identity in begun:
                continue  # "I don't live in Paris, I live in Lyon" is one change
            targets = self._by_fact(one.fact)
            if not targets and corrects and one.fact is None:
                targets = self._nearest(one.text)
            if targets:
                reason = f"another value of {one.slot}" if one.slot else CONTRADICTED
                yield Correction(CorrectionKind.CORRECT, targets, one.text, reason, one.text, one)
            elif (same := self._same_fact(one.fact)) or (one.fact is not None and one.fact.ended):
                if same:
                    yield Correction(CorrectionKind.REINFORCE, same, "", "said again", one.text, one)
                else:
                    yield Correction(
                        CorrectionKind.SUPPLEMENT,
                        (),
                        one.text,
                        "an end of something not known",
                        one.text,
                        one,
                    )
            else:
                yield Correction(
                    CorrectionKind.SUPPLEMENT, (), one.text, "stated beside what is known", one.text, one
                )

    def _replacement(self, rest: str) -> Correction | None:
        """ "It's 9:45, not 9:40": the memory that holds the old words, with the new ones in their place."""
        for pattern in _REPLACEMENTS:
            found = pattern.match(rest)
            if found is None:
                continue
            old = _value(found["old"])
            new = _NOW.sub("", found["new"].strip())
            new = _value(_LEAD_IN_HAN.sub("", _LEAD_IN.sub("", new)))
            holding = [(item, _replaced(item.memory, old, new)) for item in self.items if old and new]
            changed = [(item, text) for item, text in holding if text]
            if len(changed) == 1:
                item, text = changed[0]
                return self._replaced_by(item, text, old, new)
            meant = self._meant() if changed else ()
            for item, text in changed:
                if (item.id,) == meant:
                    return self._replaced_by(item, text, old, new)
        return None

    def _revalued(self, value: str) -> Correction | None:
        """The fact that is meant with another value, if rules then read the same slot out of it."""
        meant = self._meant()
        if value.split()[0].casefold() in ENGLISH or all(map(is_small_talk, sentences(value))):
            return None
        for item, fact in self._held():
            if (item.id,) != meant or not is_single(fact.slot) or fact.ended or not fact.value:
                continue
            said = (
                [one.text for one in derive([item]).derived if one.fact == fact]
                if item.raw
                else [item.memory]
            )
            text = _replaced(said[0], fact.value, _value(value)) if said else ""
            for one in self._derived(text) if text else ():
                if one.fact is not None and one.fact.slot == fact.slot and one.fact.value == _value(value):
                    reason = f"another value of {fact.slot}"
                    return Correction(CorrectionKind.CORRECT, meant, one.text, reason, value, one)
        return None

    def _replaced_by(self, item: MemoryItem, text: str, old: str, new: str) -> Correction:
        """`text` in the place of the item's, with its fact if rules read one out of it."""
        one = next((one for one in self._derived(text) if one.text == text), None)
        return Correction(CorrectionKind.CORRECT, (item.id,), text, f"{old!r} is {new!r}", new, one)

    # -- which memory is meant --

    def _derived(self, statement: str) -> tuple[Derived, ...]:
        item = MemoryItem(
            "feedback", "", "", statement, role="user", participants=(self.speaker,) if self.speaker else (),
            happened_at=self.when,
        )  # fmt: skip
        return derive([item]).derived

    def _held(self) -> Iterator[tuple[MemoryItem, Fact]]:
        for item in self.items:
            own = fact_of(item)
            facts = [own] if own else [one.fact for one in derive([item]).derived if one.fact is not None]
            for fact in facts:
                yield item, fact

    def _by_fact(self, fact: Fact | None) -> tuple[str, ...]:
        """The memories that hold another value of the slot (for an end: that value)."""
        if fact is None:
            return ()
        return _ids(
            item
            for item, held in self._held()
            if _same_slot(held, fact)
            and not held.ended
            and (
                (held.folded_value == fact.folded_value or not fact.value)
                if fact.ended
                else held.folded_value != fact.folded_value
            )
            and (is_single(fact.slot) or fact.ended)
        )

    def _same_fact(self, fact: Fact | None) -> tuple[str, ...]:
        if fact is None or fact.ended:
            return ()
        return _ids(
            item
            for item, held in self._held()
            if _same_slot(held, fact) and held.folded_value == fact.folded_value
        )

    def _only(self) -> tuple[str, ...]:
        return (self.items[0].id,) if len(self.items) == 1 else ()

    def _meant(self) -> tuple[str, ...]:
        """The only memory, or the one that the last answer clearly used."""
        return self._only() or (self._nearest(self.answer, of_item=True) if self.answer else ())

    def _nearest(self, text: str, *, of_item: bool = False) -> tuple[str, ...]:
        """The memory that shares clearly the most words with `text`; () when none or several do."""
        words = _words(text)
        if not words:
            return ()
        scores = []
        for item in self.items:
            theirs = _words(item.memory)
            scores.append((len(words & theirs) / max(1, len(theirs if of_item else words)), item.id))
        scores.sort(reverse=True)
        if not scores or scores[0][0] < OVERLAP_MIN:
            return ()
        if len(scores) > 1 and scores[0][0] - scores[1][0] < OVERLAP_MARGIN:
            return ()
        return (scores[0][1],)

    def _reworded(self, rest: str, targets: Sequence[str]) -> str:
        """`rest` as a memory; where it points to the memory it corrects, together with that."""
        item = next(item for item in self.items if item.id == targets[0])
        ours, theirs = signature(rest).numbers, signature(item.memory).numbers
        if len(ours) == len(theirs) == 1 and _POINTING.search(rest):
            changed = _replaced(item.memory, _as_written(item.memory, theirs[0]), _as_written(rest, ours[0]))
            if changed:
                return changed
        if not _POINTING.search(rest):
            return self._said(rest)
        return f"{_sentence(item.memory)} Corrected: {_sentence(rest)}"

    def _said(self, rest: str) -> str:
        """The statement with "my" resolved where that makes it stand for itself; else in the user's words."""
        named = re.sub(r"^my\b", f"{self.speaker}'s", rest, flags=re.I) if self.speaker else rest
        return _sentence(rest if re.search(r"\b(?:i|me|my|mine|we|our)\b", named, re.I) else named)


def _same_slot(held: Fact, fact: Fact) -> bool:
    return held.slot == fact.slot and (_anonymous(held) or _anonymous(fact) or held.identity == fact.identity)


def _anonymous(fact: Fact) -> bool:
    return fact.subject.casefold() in ("the user", "用户")


def _ids(items: Iterator[MemoryItem]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.id for item in items))


def _words(text: str) -> frozenset[str]:
    """What a text is about: its terms without function words."""
    return frozenset(term for term in analyse(text) if len(term) > 1 or not term.isascii()) - _PERSONS


def _is_phrase(text: str) -> bool:
    """Too little to be a statement: "not really", "thanks"."""
    return len(_words(text)) < 2


def _value(text: str) -> str:
    return text.strip(" .,!?;:'\"。，！“”的了").strip()


def _replaced(memory: str, old: str, new: str) -> str:
    """`memory` with `old` replaced, "" when it does not hold it as whole words."""
    if not old:
        return ""
    left = r"(?<![\w.:])" if re.match(r"[A-Za-z0-9]", old) else ""
    right = r"(?![\w]|[.:]\d)" if re.search(r"[A-Za-z0-9]$", old) else ""
    changed, count = re.subn(f"{left}{re.escape(old)}{right}", lambda _: new, plain(memory), flags=re.I)
    return changed if count else ""


def _as_written(text: str, number: str) -> str:
    """The number as the text writes it: "1,000" for the token 1000."""
    bare = plain(text)
    if number in bare:
        return number
    return next((found for found in re.findall(r"[\d.,:]*\d", bare) if found.replace(",", "") == number), "")


def _sentence(text: str) -> str:
    text = text.strip(" ,，")
    ended = (
        text
        if text.endswith((".", "!", "?", "。", "！", "？"))
        else text + ("。" if re.search("[\u4e00-\u9fff]$", text) else ".")
    )
    return ended[:1].upper() + ended[1:]
