"""Who speaks in a clause: names put into the first person, and the first person resolved to a name.

`first_person` lets one set of patterns read "I live in Rome", "Anna lives in Rome" and "the user lives in
Rome" alike. `resolved` goes the other way: it makes a statement about the speaker stand for itself, or
says why it cannot. Neither guesses: where a pronoun has no certain referent there is no result. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from memos.memory.sentences import HAN


def first_person(clause: str, speaker: str) -> str:
    """A clause about the speaker by name, or about "the user", said in the first person."""
    for name in filter(None, (speaker, "The user", "User", "用户")):
        if clause.casefold().startswith(name.casefold()):
            rest = clause[len(name) :]
            if _HAN_START.match(rest) or name == "用户":
                return "我" + rest
            if rest.startswith(" "):
                return _base_form("I" + rest)
            if rest.startswith("'s "):
                return "My " + rest[3:]
    return clause


_HAN_START = re.compile(f"[{HAN}]")
_THIRD = {"is": "am", "has": "have", "does": "do", "doesn't": "don't", "isn't": "am not", "hasn't": "haven't"}
ADVERB_WORDS = (
    "really|absolutely|truly|just|also|still|always|especially|particularly|quite|so|very|totally|definitely"
    "|certainly|honestly|actually|simply|do|both|kind of|sort of|usually|normally|often|generally|typically"
    "|currently|never|rarely|seldom"
)
_THIRD_VERB = re.compile(rf"^I ((?:(?:{ADVERB_WORDS}|no longer|now|recently|finally|already)\s+)*)([a-z']+)")


def _base_form(clause: str) -> str:
    """ "I loves" -> "I love": enough for the verbs of the patterns below."""

    def base(found: re.Match[str]) -> str:
        verb = found[2]
        if verb in _THIRD:
            return f"I {found[1]}{_THIRD[verb]}"
        if verb.endswith(("ches", "shes", "sses", "xes")):
            verb = verb[:-2]
        elif verb.endswith("ies"):
            verb = verb[:-3] + "y"
        elif verb.endswith("s") and not verb.endswith("ss"):
            verb = verb[:-1]
        return f"I {found[1]}{verb}"

    return _THIRD_VERB.sub(base, clause)


# -- relatives of whom one has one ------------------------------------------------------------------

_RELATIVE = re.compile(
    r"^my (?P<who>wife|husband|partner|spouse|girlfriend|boyfriend|fianc[eé]e?|mother|mom|mum|father|dad)(?P<rest>'s name is .+|'s birthday is .+| .+)$",
    re.I,
)
_RELATIVE_HAN = re.compile(
    r"^我的?(?P<who>妻子|老婆|太太|丈夫|老公|男朋友|女朋友|妈妈|母亲|爸爸|父亲)(?P<rest>.+)$"
)
_SAME = {"mom": "mother", "mum": "mother", "dad": "father"}


def relative(clause: str, speaker: str, *, chinese: bool) -> tuple[str, str]:
    """("Anna's wife", the clause as if she spoke) for a clause about such a relative, else ("", "")."""
    found = (_RELATIVE_HAN if chinese else _RELATIVE).match(clause)
    if found is None:
        return "", ""
    who, rest = found["who"], found["rest"]
    if chinese:
        return f"{speaker}的{who}", "我" + rest
    owner = f"{speaker}'s {_SAME.get(who.lower(), who.lower())}"
    if rest.startswith("'s "):
        return owner, "My" + rest[2:]
    return owner, _base_form("I" + rest)


# -- statements that stand for themselves -----------------------------------------------------------

_POINTING = re.compile(
    r"\b(?:he|she|it|its|they|him|her|hers|his|them|their|theirs|this|that|these|those|there|here|we|us|our|ours|you|your"
    r"|yours|myself|mine|one|ones|someone|somebody|something|such|everyone|lol|haha|who|which|what|how|why|where|another|more)\b",
    re.I,
)
_BORDER = re.compile(
    r"(?:,\s*|\s+)(?:but|so|because|since|when|while|which|who|though|although|where|then)\s+|,\s*(?:and\s+)?"
    r"|\s+and\s+(?=(?:I|it|he|she|they|we|you|that|this|there|my)\b)|\s*[;:~—]\s*|\s+-+\s+"
)
_ASIDE = re.compile(r"\s+-+\s.*$|,\s*\w+(?:\s\w+){0,2}$|\s+too$")
_FILLER = re.compile(r"\b(?:just|even|actually|also|only)\s+")
_IRREGULAR = frozenset(
    [
        "went",
        "got",
        "bought",
        "brought",
        "met",
        "saw",
        "took",
        "made",
        "gave",
        "had",
        "ate",
        "drank",
        "ran",
        "swam",
        "flew",
        "drove",
        "rode",
        "wrote",
        "read",
        "sold",
        "won",
        "lost",
        "left",
        "came",
        "became",
        "began",
        "broke",
        "built",
        "caught",
        "chose",
        "did",
        "drew",
        "fell",
        "found",
        "flew",
        "forgot",
        "grew",
        "held",
        "hit",
        "hurt",
        "kept",
        "laid",
        "led",
        "lent",
        "lit",
        "paid",
        "put",
        "quit",
        "rang",
        "sang",
        "sat",
        "sent",
        "set",
        "shot",
        "slept",
        "spent",
        "spoke",
        "stood",
        "stole",
        "struck",
        "swept",
        "taught",
        "tore",
        "told",
        "threw",
        "woke",
        "wore",
        "signed",
        "started",
        "finished",
    ]
)
# The past of verbs that say how one feels or thinks: true for a moment, and seldom worth a statement.
_FEELING = frozenset(
    ["liked", "loved", "hated", "enjoyed", "wanted", "needed", "hoped", "wished", "tried", "seemed", "looked", "guessed", "wondered", "figured", "realized", "realised", "believed", "supposed", "assumed", "considered", "missed", "cared", "worried", "imagined", "agreed", "appreciated", "laughed", "smiled", "cried", "used", "asked", "mentioned", "talked", "chatted", "noticed", "remembered", "promised"]
)  # fmt: skip
_DONE = r"(?:was|got) (?:born|promoted|hired|fired|diagnosed|accepted|invited|elected|awarded|selected|chosen|admitted)"
_AUXILIARY = {"'ve": "has", "have": "has", "am": "is", "'m": "is"}
_I = re.compile(
    r"\bI(?:('ve|'m|'ll|'d)\b)?(?:\s+((?:(?:just|finally|recently|also|even|actually|already|then|never|once|both|only)\s+)*)([A-Za-z']+))?"
)
_LEAD = re.compile(r"^(?:(?:yesterday|today|tonight|last (?:night|week|weekend|month|year|\w+day)|this (?:morning|week|weekend|month|year)|on \w+day|(?:in|on) [A-Z]\w+(?: \d{1,2})?(?:,? \d{4})?|(?:a|two|three|\d+) (?:days?|weeks?|months?|years?) ago),?\s+)?(?:I\b|my\b)", re.I)  # fmt: skip
WORDS_MIN = 4
_HAN_POINTING = re.compile(r"[你您他她它咱]|我们|这|那|自己|哪|某")
_HAN_BORDER = re.compile(r"[，,；;：:~]\s*")
_HAN_HAPPENED = re.compile(r"了|过(?!敏|分|期|时|去|来|年|节|于|程|度|不)")
_HAN_LEAD = re.compile(
    r"^(?:昨天|今天|前天|昨晚|今早|上周|上个?月|去年|前年|今年|上个?周末|周[一二三四五六日天]|星期[一二三四五六日天]|\d{1,2}月(?:\d{1,2}[日号])?|\d{4}年(?:\d{1,2}月)?(?:\d{1,2}[日号])?|[一二两三四五六七八九十\d]+(?:天|周|个月|年)前)*[，,]?\s*我"
)
_HAN_FEELING = re.compile(
    r"我(?:[昨今前]天|刚刚?|也|都|还|又|就|很|真的|已经)*(?:觉得|感到|感觉|认为|想|希望|喜欢|爱|知道|忘|累|饿|困|懂|明白|笑|哭|是|好)"
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A statement that names whoever it is about; or "" and the reason why there is none."""

    text: str
    reason: str = ""


def resolved(statement: str, speaker: str, *, chinese: bool = False) -> Resolved:
    """What the speaker says of an event in the first person, as a statement about `speaker`.

    The statement is cut before the first word that points outside of it ("she", "that", "你"). Only what
    happened (a past, a perfect, 了) is resolved: a feeling or a state of the moment is not worth keeping.
    """
    return (
        _resolved_han(statement, speaker or "用户")
        if chinese
        else _resolved(statement, speaker or "The user")
    )


def _resolved(statement: str, speaker: str) -> Resolved:
    statement = re.sub(r"\bi\b(?=['\s])", "I", statement)
    if not _LEAD.match(statement):
        return Resolved("", "it is not about the speaker")
    kept = _ASIDE.sub("", _before_pointing(statement, _POINTING, _BORDER))
    if len(kept.split()) < WORDS_MIN:
        return Resolved("", "it points to something outside of it")
    problems: list[str] = []
    events = 0

    def name(found: re.Match[str]) -> str:
        nonlocal events
        contraction, adverbs, verb = (found[1] or "").lower(), found[2] or "", (found[3] or "").lower()
        phrase = _verb(contraction, verb, kept[found.start(3) :] if found[3] else "")
        if phrase is None:
            problems.append(f"{found[0]!r} tells no event")
            return found[0]
        events += 1
        adverbs = _FILLER.sub("", adverbs)
        return f"{speaker} {phrase[0]}{adverbs}{phrase[1]}" if phrase[0] or phrase[1] else speaker

    text = _I.sub(name, kept)
    if problems or not events:
        return Resolved("", problems[0] if problems else "it tells no event")
    text = re.sub(r"\bmy\b", f"{speaker}'s", text, flags=re.I)
    text = re.sub(r"\bme\b", speaker, text)
    return Resolved(text[0].upper() + text[1:] + ".")


def _verb(contraction: str, verb: str, rest: str) -> tuple[str, str] | None:
    """(what stands before the adverbs, what after them) in the third person; None for what is no event."""
    if contraction in ("'ll", "'d") or not verb:
        return None
    if contraction == "'ve" or verb == "have":
        follower = verb if contraction else [*rest.split(), "", ""][1].lower()
        if not _participle(follower):
            return None
        return ("has ", verb) if contraction else ("", "has")
    if contraction == "'m" or verb == "am":
        return None
    if verb in ("was", "got") and re.match(_DONE, rest, re.I):
        return "", verb
    if verb in ("was", "were", "had"):
        return (
            None
            if verb != "had"
            or re.match(
                r"had (?:to|been|(?:an? |some |such )?(?:great|good|bad|nice|fun|lovely|blast|feeling|awesome|amazing|tough|rough|hard|wonderful|fantastic|major))\b",
                rest,
            )
            else ("", verb)
        )
    if verb in ("didn't", "did"):
        return (
            ("", verb)
            if re.match(
                r"(?:didn't|did not) (?!know|think|want|like|feel|mean|realize|understand|care|see)\w+", rest
            )
            else None
        )
    return ("", verb) if _past(verb) else None


def _past(verb: str) -> bool:
    return verb not in _FEELING and (
        verb in _IRREGULAR or (len(verb) > 4 and verb.endswith("ed") and not verb.endswith("eed"))
    )


def _participle(verb: str) -> bool:
    return _past(verb) or verb in {
        "gone",
        "seen",
        "taken",
        "given",
        "written",
        "eaten",
        "driven",
        "chosen",
        "bought",
        "become",
        "begun",
        "run",
        "done",
    }


def _before_pointing(text: str, pointing: re.Pattern[str], border: re.Pattern[str]) -> str:
    """The text up to the last border before the first pointing word; all of it where there is none."""
    found = pointing.search(text)
    if found is None:
        return text.strip(" ,，~")
    ends = [end.start() for end in border.finditer(text) if end.start() > 0 and end.end() <= found.start()]
    return text[: ends[-1]].strip(" ,，~") if ends else ""


def _resolved_han(statement: str, speaker: str) -> Resolved:
    if not _HAN_LEAD.match(statement):
        return Resolved("", "it is not about the speaker")
    kept = _before_pointing(statement, _HAN_POINTING, _HAN_BORDER)
    if len(re.sub(r"\s", "", kept)) < WORDS_MIN + 1:
        return Resolved("", "it points to something outside of it")
    if not _HAN_HAPPENED.search(kept) or _HAN_FEELING.search(kept):
        return Resolved("", "it tells no event")
    return Resolved(kept.replace("我", speaker) + "。")
