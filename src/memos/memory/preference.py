"""Preferences that a speaker states: likes, dislikes, allergies, habits, standing instructions. EN and ZH.

`preferences` reads one text of one speaker by rules. A pattern must begin its clause with the speaker
("I", "我", the speaker's name, "the user"), so that other people's tastes, reports, questions,
suppositions, polite wishes ("I'd like a coffee") and the past ("I liked it") give nothing. Negation turns a
like into a dislike; "not allergic" and a double negation give nothing. What is found is meant to be
complete in itself: an object that is a pronoun is no object.

Pure, bounded, no model: the place where a language model may later read more stands in the handler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from memos.memory.instruction import instruction
from memos.memory.sentences import Sentence, clauses, opened, sentences
from memos.memory.voice import ADVERB_WORDS, first_person

PREFERENCES_MAX = 50
OBJECT_CHARS_MAX = 80


class Polarity(StrEnum):
    """What kind of preference it is."""

    LIKE = "like"
    DISLIKE = "dislike"
    ALLERGY = "allergy"
    HABIT = "habit"
    INSTRUCTION = "instruction"


@dataclass(frozen=True, slots=True)
class Preference:
    """One preference. `key` names what it is about: of one key only one holds at a time."""

    polarity: Polarity
    object: str
    text: str  # a statement that stands for itself, e.g. "Anna likes sushi."
    explicit: bool  # said in so many words; False: read out of another way to put it
    confidence: float
    key: str
    speaker: str = ""
    when: datetime | None = None


# Keys of which a second value replaces the first; of the others ("taste:sushi") only the polarity can turn.
_SINGLE = ("favourite:", "instruction:", "diet")


def contradicts(a: Preference, b: Preference) -> bool:
    """Whether both cannot hold at once. Symmetric. What is said in other words is no contradiction."""
    if a.key != b.key or a.speaker.casefold() != b.speaker.casefold():
        return False
    if a.key.startswith("taste:"):
        return a.polarity is not b.polarity
    return a.key.startswith(_SINGLE) and fold_object(a.object) != fold_object(b.object)


_ARTICLE = re.compile(r"^(?:the|a|an|some|any|my|to|all|most|more|really|very)\s+")
_GERUND = re.compile(
    r"^(?:eat|drink|have|hav|watch|play|listen(?:ing)? to|read|do|go|us|eating|drinking)(?:ing)?\s+(?=\w)"
)
_HAN_VERB = re.compile(r"^(?:吃|喝|看|听|玩|打|做|去|用)(?=.{2})")


def fold_object(text: str) -> str:
    """The object in a form that is equal for "the sushi", "Sushi" and "eating sushi"."""
    folded = " ".join(text.casefold().split()).strip(" .,!。，！'\"")
    for pattern in (_ARTICLE, _GERUND, _ARTICLE):
        folded = pattern.sub("", folded, count=1)
    folded = _HAN_VERB.sub("", folded)
    return " ".join(_singular(word) for word in folded.split())


def _singular(word: str) -> str:
    for ending in ("ies", "ie"):  # "movies" and "movie" need one form, not a right one
        if len(word) > 4 and word.endswith(ending):
            return word[: -len(ending)] + "y"
    if len(word) > 4 and word.endswith(("oes", "ches", "shes", "xes")):
        return word[:-2]
    return (
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
    )


def preferences(text: str, speaker: str = "", when: datetime | None = None) -> list[Preference]:
    """The preferences that `speaker` states in `text`, in order, each key once per polarity.

    speaker: a name for the statements made; "" makes them about "the user". when: when it was said.
    """
    found: dict[tuple[str, str], Preference] = {}
    for sentence in sentences(text):
        if not sentence.states:
            continue
        for one in _of_sentence(sentence, speaker):
            if len(found) < PREFERENCES_MAX:
                found.setdefault((one.key, one.polarity), _stamped(one, speaker, when))
    return list(found.values())


def _stamped(one: Preference, speaker: str, when: datetime | None) -> Preference:
    return Preference(
        one.polarity, one.object, one.text, one.explicit, one.confidence, one.key, speaker, when
    )  # fmt: skip


def _of_sentence(sentence: Sentence, speaker: str) -> Iterator[Preference]:
    read = _chinese if sentence.chinese else _english
    whole = opened(sentence.text)
    order = instruction(whole, speaker, chinese=sentence.chinese)
    if order is not None:
        yield _made(
            Polarity.INSTRUCTION, order.rule, order.text, key=f"instruction:{order.topic}", confidence=order.confidence
        )  # fmt: skip
        return
    liked = False
    for clause in clauses(sentence):
        bare = opened(clause)
        if liked and (rest := _BUT_NOT.match(bare)) is not None:  # "I like tea, but not coffee"
            bare = ("我不喜欢" if sentence.chinese else "I don't like ") + rest["object"]
        read_now = list(read(first_person(bare, speaker), speaker))
        if f"{clause}," in sentence.text:  # "a safe, open place" is cut inside of its object
            read_now = [one for one in read_now if not _CUT.search(one.object)]
        liked = any(one.polarity is Polarity.LIKE for one in read_now)
        yield from read_now


_CUT = re.compile(r"\b(?:a|an|the|very|really|so) \w+$", re.I)
_BUT_NOT = re.compile(r"^(?:not|never)\s+(?!only\b|just\b|so\b|as\b|when\b|if\b)(?P<object>.+)$", re.I)


# -- English ----------------------------------------------------------------------------------------

_ADVERBS = rf"(?:(?:{ADVERB_WORDS})\s+)*"
_AM = r"(?:i am|i'm|im)"
_NOT = r"(?:don't|do not|dont|never|didn't use to|no longer|don't really|do not really)"
_LIKE = re.compile(
    rf"^(?:i\s+{_ADVERBS}(?:like|love|enjoy|adore|prefer)"
    rf"|{_AM}\s+{_ADVERBS}(?:fond of|into|keen on|crazy about|mad about|obsessed with|passionate about"
    rf"|(?:a\s+)?(?:big|huge|great|massive)?\s*(?:fan|lover) of)"
    rf"|i\s+(?:can't|cannot)\s+get enough of)\s+(?P<object>.+)$",
    re.I,
)
_DISLIKE = re.compile(
    rf"^(?:i\s+{_ADVERBS}{_NOT}\s+{_ADVERBS}(?:(?:like|love|enjoy)|care for)"
    rf"|i\s+{_ADVERBS}(?:hate|dislike|detest|despise|loathe)"
    rf"|i\s+(?:really\s+)?(?:can't|cannot|can not)\s+(?:stand|bear|tolerate)"
    rf"|{_AM}\s+(?:really\s+)?(?:not|no longer)\s+{_ADVERBS}(?:fond of|into|keen on|crazy about|a\s+(?:big|huge)?\s*fan of)"
    rf")\s+(?!nor\b)(?P<object>.+)$",
    re.I,
)
_FAVOURITE = re.compile(
    r"^my\s+(?:all[- ]time\s+)?favou?rite\s+(?P<what>[a-z][a-z ]{1,30}?)(?:\s+(?:ever|of all time|right now))?"
    r"\s+(?:is|are)\s+(?P<object>.+)$",
    re.I,
)
_IS_FAVOURITE = re.compile(
    r"^(?P<object>[A-Za-z][\w' ]{1,40}?)\s+(?:is|are)\s+my\s+(?:all[- ]time\s+)?favou?rite(?:\s+(?P<what>[a-z][a-z ]{1,30}))?$",
    re.I,
)
_ALLERGY = re.compile(
    rf"^(?:{_AM}\s+{_ADVERBS}(?:(?:severely|deathly|highly|badly|mildly|slightly|terribly|extremely)\s+)?allergic\s+to"
    r"|i\s+have\s+(?:a|an)\s+(?:(?:severe|bad|mild|serious|strong)\s+)?allergy\s+to)\s+(?P<object>.+)$",
    re.I,
)
_HAS_ALLERGY = re.compile(
    r"^i\s+have\s+(?:a|an)?\s*(?:(?:severe|bad|mild|serious|strong)\s+)?(?P<object>[a-z]+(?:\s[a-z]+)?)\s+(?:allergy|allergies|intolerance)$",
    re.I,
)
_INTOLERANT = re.compile(rf"^{_AM}\s+(?P<object>lactose|gluten|histamine|fructose)[- ]intolerant$", re.I)
_DIET = re.compile(
    rf"^{_AM}\s+(?:now\s+)?(?:a\s+)?(?:strict\s+)?(?P<object>vegan|vegetarian|pescatarian|pescetarian)$", re.I
)
_DAY = r"(?:(?:single\s+)?(?:day|morning|evening|night|afternoon|week|weekend|month|year|summer|winter|(?:mon|tues|wednes|thurs|fri|satur|sun)day))"
_HABIT = re.compile(
    rf"^(?:(?:every|each)\s+{_DAY}\s+i\s+(?P<front>.+)"
    rf"|i\s+(?:usually|normally|typically|generally|tend to|always|never|rarely|seldom|often)\s+(?P<adverb>.+)"
    rf"|i\s+(?P<back>[a-z].*\s(?:every|each)\s+{_DAY}(?:\s.*)?)"
    rf"|i\s+(?P<times>[a-z].*\s(?:once|twice|(?:three|four|five|\d+) times)\s+(?:a|per)\s+(?:day|week|month))"
    rf"|i\s+(?P<days>[a-z].*\son\s+(?:mon|tues|wednes|thurs|fri|satur|sun)days))$",
    re.I,
)
_NO_HABIT = re.compile(
    r"^(?:want|know|knew|think|feel|felt|get|be|been|was|were|had|have been|have to|need|say|said|thought|wanted"
    r"|wonder|forget|remember|hope|believe|look forward|like|love|enjoy|hate|prefer|dislike|mean|care|mind|understand"
    r"|see|saw|hear|find|found|went|did|took|made|got|came|ran|ate|drank|wrote|used to|liked|\w+ed)\b"
    r"|\b(?:yesterday|last|ago|tomorrow|next|this)\b",
    re.I,
)
_OBJECT_END = re.compile(
    r"\s+(?:(?:and|or)\s+(?:i|my|he|she|it|they|we|you)\b|because\b|since\b|when\b|whenever\b|as\s+(?:a|it|they|i)\b"
    r"|which\b|but\b|so\b|though\b|although\b|while\b|if\b|too$|as well$|very much$|a lot$|so much$|the most$"
    r"|too\b|itself$|sometimes$|and (?:also )?(?:love|like|enjoy|hate|prefer)\b"
    r"|these days|right now|at the moment|lately|anymore|any more|either$|at all$|more than\b|less than\b"
    r"|better than\b|rather than\b|over\s+\w+$|lol\b|haha\b|[:;]-?[)(DP])"
    r"|\s*[(~].*$|\s*[,，].*$",
    re.I,
)
_NO_OBJECT = re.compile(
    r"^(?:all )?the (?-i:(?![A-Z]))(?!(?:ocean|sea|beach|outdoors|mountains?|countryside|rain|snow|sun|cold|heat|gym|theatre|theater|opera|piano|guitar|violin|winter|summer)\b)"
    r"|^(?:neither|nor|no|not|none|it|its|that|this|these|those|them|him|her|his|hers|their|theirs|you|your|yours|us|our|one|ones|what|how|when|where|who"
    r"|the way|the idea|the fact|the sound of|the look of|to (?:think|say|know|see|hear|meet|be)\b|being|everything"
    r"|anything|nothing|something|somebody|someone|anyone|both|doing (?:that|it|this)|seeing|hearing|so|too|myself|life)\b",
    re.I,
)
_POINTING = re.compile(
    r"\b(?:i|me|it|you|your|him|her|them|his|their|that|this|those|these|our|we|he|she|they|there|here)\b",
    re.I,
)


# "My favourite part / one / thing is …" says nothing without what stood before it.
_NAMED = re.compile(r"^(?!(?:one|part|thing|bit|time|moment|way)\b)\w+(?: \w+){0,2}$")


def _english(clause: str, speaker: str) -> Iterator[Preference]:
    who = speaker or "The user"
    if (found := _FAVOURITE.match(clause) or _IS_FAVOURITE.match(clause)) is not None:
        thing = _object(found["object"])
        what = " ".join((found["what"] or "thing").lower().split())
        if thing and not thing.lower().startswith(("not ", "when ", "to ")) and _NAMED.match(what):
            text = f"{who}'s favourite {what} is {thing}."
            yield _made(Polarity.LIKE, thing, text, key=f"favourite:{what}", confidence=0.95)
        return
    for pattern in (_ALLERGY, _HAS_ALLERGY, _INTOLERANT):
        if (found := pattern.match(clause)) is not None:
            sure = 0.95 if pattern is not _INTOLERANT else 0.85
            for thing in _several(_object(found["object"])):
                text = (
                    f"{who} is allergic to {thing}."
                    if pattern is not _INTOLERANT
                    else f"{who} is {thing} intolerant."
                )
                yield _made(
                    Polarity.ALLERGY, thing, text, key=f"allergy:{fold_object(thing)}", confidence=sure
                )
            return
    if (found := _DIET.match(clause)) is not None:
        thing = found["object"].lower().replace("pescetarian", "pescatarian")
        yield _made(Polarity.HABIT, thing, f"{who} is {thing}.", key="diet", confidence=0.95)
        return
    yield from _english_taste(clause, who)


def _english_taste(clause: str, who: str) -> Iterator[Preference]:
    for polarity, pattern, verb in (
        (Polarity.DISLIKE, _DISLIKE, "does not like"),
        (Polarity.LIKE, _LIKE, "likes"),
    ):
        if (found := pattern.match(clause)) is not None:
            thing = _object(found["object"])
            if thing:
                text = f"{who} {verb} {thing}."
                yield _made(polarity, thing, text, key=f"taste:{fold_object(thing)}", confidence=0.9)
            return
    found = _HABIT.match(clause)
    if found is None:
        return
    action = next(part for part in found.groups() if part is not None).strip()
    if (
        _NO_HABIT.search(action)
        or _POINTING.search(action)
        or len(action.split()) < 2
        or len(action) > OBJECT_CHARS_MAX
    ):
        return
    clause = (
        f"{found['front']} {clause[: found.start('front')].strip()[:-2].lower()}"
        if found["front"]
        else clause
    )
    said = re.sub(
        r"\bmy\b", "their", re.sub(r"^i\s+|(?<=\s)i\s+", "", clause, count=1, flags=re.I), flags=re.I
    )
    yield _made(
        Polarity.HABIT, said, f"{who}'s habit: {said}.", key=f"habit:{fold_object(action)}",
        confidence=0.75, explicit=False,
    )  # fmt: skip


def _object(text: str) -> str:
    """The object alone, or "" where there is none that stands for itself."""
    thing = _OBJECT_END.split(text, maxsplit=1)[0].strip(" .,!;:'\"~-")
    thing = re.sub(r"^(?:also|too|just|only|mostly|mainly)\s+", "", thing)
    if not thing or len(thing) > OBJECT_CHARS_MAX or _NO_OBJECT.match(thing) or _POINTING.search(thing):
        return ""
    return re.sub(r"\bmy\b", "their own", thing)


def _several(thing: str) -> list[str]:
    parts = re.split(r"\s*,\s*|\s+(?:and|or)\s+|、|和|以及", thing)
    return [part.strip() for part in parts if part.strip()]


# -- Chinese ----------------------------------------------------------------------------------------

_HAN_ADVERBS = "(?:真的|真|特别|非常|超级|超|很|最|挺|比较|一直|一向|从小|从小就|就|都|也|还|尤其|十分|更|可|实在|完全|一点也|一点都|根本|其实|现在|有点|太)*+"
_HAN_DISLIKE = re.compile(
    rf"^我{_HAN_ADVERBS}(?:不(?:再|太|怎么|是很|是特别)?(?:喜欢|爱|喜爱)|讨厌|厌恶|痛恨|恨|反感|受不了|吃不惯|喝不惯)(?P<object>.+)$"
)
_HAN_LIKE = re.compile(rf"^我{_HAN_ADVERBS}(?:喜欢|热爱|喜爱|酷爱|偏爱|钟爱|爱)(?P<object>.+)$")
_HAN_FAVOURITE = re.compile(
    r"^我最(?:喜欢|爱)(?:吃|喝|看|听|玩)?的(?P<what>.{1,10}?)(?:就)?是(?P<object>.+)$"
)
_HAN_ALLERGY = re.compile(
    rf"^我{_HAN_ADVERBS}对(?P<object>.{{1,20}}?)(?:严重|非常|特别|有点|会|很|也|都)*过敏"
)
_HAN_DIET = re.compile(
    r"^我(?:现在)?(?:是(?:一个|个)?(?P<object>素食主义者|素食者|纯素食者)|(?P<eats>吃素|吃全素))$"
)
_HAN_HABIT = re.compile(
    r"^(?:我(?:通常|一般|总是|经常|常常|从不|从来不|习惯|每天|每周|每晚|每个周末|周末都|每年)(?P<a>.+)"
    r"|(?:每天|每周|每晚|每个周末|每年|每天早上|每天晚上)(?:早上|晚上|下午|睡前)?我(?:都|都会|会)?(?P<b>.+))$"
)
_HAN_NO_OBJECT = re.compile(
    r"^(?:的|你|您|他|她|它|这|那|此|谁|什么|我|过|上了|了|得|一切|所有)|(?:他|她|它)们?$"
)
_HAN_END = re.compile(r"(?:了|啊|呀|哦|呢|的|啦|哈|吧)+$")


def _chinese(clause: str, speaker: str) -> Iterator[Preference]:
    who = speaker or "用户"
    clause = re.sub(r"\s+", "", clause)
    if (found := _HAN_FAVOURITE.match(clause)) is not None:
        thing, what = _han_object(found["object"]), found["what"]
        if thing and not thing.startswith("不是"):
            yield _made(
                Polarity.LIKE, thing, f"{who}最喜欢的{what}是{thing}。", key=f"favourite:{what}", confidence=0.95
            )  # fmt: skip
        return
    if (found := _HAN_ALLERGY.match(clause)) is not None:
        named = found["object"]
        if not re.search(r"(?:不|没有|没|并不|不会)$", named):
            for thing in _several(named.removesuffix("都").removesuffix("也")):
                if not _HAN_NO_OBJECT.match(thing):
                    yield _made(
                        Polarity.ALLERGY, thing, f"{who}对{thing}过敏。",
                        key=f"allergy:{fold_object(thing)}", confidence=0.95,
                    )  # fmt: skip
        return
    if _HAN_DIET.match(clause) is not None:
        yield _made(Polarity.HABIT, "素食", f"{who}吃素。", key="diet", confidence=0.9)
        return
    for polarity, pattern, verb in (
        (Polarity.DISLIKE, _HAN_DISLIKE, "不喜欢"),
        (Polarity.LIKE, _HAN_LIKE, "喜欢"),
    ):
        if (found := pattern.match(clause)) is not None:
            thing = _han_object(found["object"])
            if thing and not (polarity is Polarity.LIKE and re.match(r"我.*不(?:是)?不", clause)):
                yield _made(
                    polarity, thing, f"{who}{verb}{thing}。", key=f"taste:{fold_object(thing)}", confidence=0.9
                )  # fmt: skip
            return
    if (found := _HAN_HABIT.match(clause)) is not None:
        action = found["a"] or found["b"]
        if 2 <= len(action) <= 30 and not re.search(
            r"[你您他她它这那]|昨天|明天|觉得|想|知道|忘|喜欢|[了过]$", action
        ):
            said = clause.replace("我", "", 1)
            yield _made(
                Polarity.HABIT, said, f"{who}的习惯：{said}。", key=f"habit:{action}", confidence=0.75, explicit=False
            )  # fmt: skip


def _han_object(text: str) -> str:
    thing = _HAN_END.sub("", re.split(r"[,，;；~]|多过|胜过|超过", text)[0]).strip()
    return "" if len(thing) > 30 or not thing or _HAN_NO_OBJECT.search(thing) else thing


def _made(
    polarity: Polarity, thing: str, text: str, *, key: str, confidence: float, explicit: bool = True
) -> Preference:
    return Preference(polarity, thing, text, explicit, confidence, key)
