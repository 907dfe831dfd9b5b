"""Standing instructions to the assistant, read by rules: "always answer in French", "call me Bo", "以后…".

An instruction is read only where its form leaves no doubt that it is meant to last: a word that says so
("always", "from now on", "以后"), a form of address, a language or style of the answers. A request for
one answer ("answer that again", "call me tomorrow", "叫我起床") is none. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from memos.memory.sentences import HAN

RULE_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the assistant is asked to do. `topic` names what it settles: language, call_name, length or itself."""

    topic: str
    rule: str
    text: str  # a statement that stands for itself
    confidence: float


_LANGUAGE = (
    r"(?P<language>English|French|German|Spanish|Italian|Portuguese|Chinese|Mandarin|Japanese|Korean|Russian|Arabic"
    r"|Dutch|Hindi|Turkish|Polish|Swedish|simplified Chinese|traditional Chinese)"
)
_ANSWER = r"(?:answer|reply|respond|write|speak|talk|explain|address)"
_LASTING = r"(?:from now on|in (?:the )?future|going forward|always|every time|each time|at all times)"
_ANSWER_LANGUAGE = re.compile(
    rf"^(?:(?:please|{_LASTING})[, ]*)*{_ANSWER}\s+(?:to me\s+|me\s+)?(?:only\s+|always\s+)?in\s+{_LANGUAGE}"
    rf"(?:\s+(?:only|please|{_LASTING}))*$",
    re.I,
)
_CALL_ME = re.compile(
    rf"^(?i:(?:(?:please|just|{_LASTING}|you can|you may|everyone|friends)[, ]*)*(?:i go by|call me|address me as|refer to me as))\s+(?P<name>[A-Z][\w'-]*(?:\s[A-Z][\w'-]*){{0,2}})"
    rf"(?i:[, ]+(?:please|instead|{_LASTING}))*$"
)
_CALL_LATER = re.compile(
    r"^(?:Tomorrow|Today|Tonight|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|Back|Later|Maybe|Crazy|When|If|On|At)\b"
)
_STANDING = re.compile(
    rf"^(?:please\s+)?(?:(?:{_LASTING}|never|do not ever|don't ever)[, ]+(?:please\s+)?)+(?P<rule>(?!be\s+(?:a|an)\b)[a-z]+\s+.+)$"
    rf"|^(?:please\s+)?(?P<late>(?:use|keep|give|avoid|don't|do not|stop|include|add|end|start|begin|format|show|answer|reply|respond|write|skip|be|make)\s+.+?)[, ]+{_LASTING}$",
    re.I,
)
_STYLE = re.compile(
    r"^(?:please\s+)?(?P<rule>(?:keep (?:your|the|all) (?:answers|replies|responses)|(?:don't|do not|never|avoid|stop) (?:use|using) (?:emojis?|bullet points|markdown|jargon|slang)"
    r"|make your (?:answers|replies|responses)|(?:give|write) (?:me )?(?:only )?short (?:answers|replies))\b.*)$",
    re.I,
)
# What may follow "always" as an order to the assistant; "always happy to help" or "never mind" is none.
_ORDER = re.compile(
    r"^(?:answer|reply|respond|write|speak|use|call|address|give (?!up|in)|keep (?!going|trying|it|up|fighting|pushing|believing|dreaming|smiling|on)|include|add|end|start|begin|format|show|ask|check"
    r"|mention|suggest|recommend|remind|tell|send|translate|explain|avoid|skip|convert|sign|quote|cite|list|put|assume|make sure|be (?:brief|concise|polite|formal|honest|direct))(?:\b|(?<=\s))",
    re.I,
)
_HAN_LASTING = r"(?:以后|从现在(?:开始|起)|今后|从今以后|总是|始终|一直|永远|每次)"
_HAN_LANGUAGE = re.compile(
    rf"^(?:请|{_HAN_LASTING}|你|都|要)*用(?P<language>中文|英文|英语|法语|法文|德语|日语|日文|韩语|西班牙语|俄语|粤语|繁体中文|简体中文)(?:来)?(?:回答|回复|答复|跟我说话|和我说话|写|交流)(?:我|我的问题)?$"
)
_HAN_CALL = re.compile(
    rf"^(?:请|你|您|可以|大家|都|就|{_HAN_LASTING})*(?:叫我|称呼我为?|管我叫)(?P<name>[{HAN}A-Za-z·]{{1,8}}?)(?:吧|就行|就好|就可以了?|好了)?$"
)
_HAN_CALL_LATER = re.compile(r"^(?:起床|去|来|吃|做|回|帮|怎么|一声|过|给|出|上|下|什么|干|写|起来)")
_HAN_STANDING = re.compile(
    rf"^(?:请)?{_HAN_LASTING}[，,]?(?:请)?(?P<rule>(?:不要|别|请|只|要|用|回答|回复|先|在|给我|称呼).+)$"
)


def instruction(text: str, speaker: str = "", *, chinese: bool = False) -> Instruction | None:
    """The standing instruction that one sentence, opening words taken off, gives; None where it gives none."""
    if chinese:
        return _han_instruction(re.sub(r"\s+", "", text), speaker or "用户")
    who = speaker or "The user"
    if (found := _ANSWER_LANGUAGE.match(text)) is not None:
        language = found["language"]
        lasting = re.search(_LASTING, text, re.I) is not None
        said = f"{who} wants answers in {language}."
        return Instruction("language", language, said, 0.95 if lasting else 0.7)
    if (found := _CALL_ME.match(text)) is not None and not _CALL_LATER.match(found["name"]):
        name = found["name"]
        return Instruction("call_name", name, f"{who} wants to be called {name}.", 0.9)
    found = _STANDING.match(text) or _STYLE.match(text)
    if found is None:
        return None
    rule = next(part for part in found.groups() if part is not None).strip()
    strict = _STANDING.match(text) is not None
    negative = re.match(r"(?:please\s+)?(?:never|don't ever|do not ever)\b", text, re.I) is not None
    if (
        strict
        and found.groupdict().get("rule")
        and not _ORDER.match(rule)
        and not rule.lower().startswith(("don't ", "do not "))
    ):
        return None
    if len(rule) > RULE_CHARS_MAX or re.search(r"\b(?:it|that|this|them|he|she|they)\b", rule, re.I):
        return None
    said = f"never {rule}" if negative else rule
    return Instruction(_rule_key(rule), said, f"{who}'s standing instruction: {said}.", 0.85)


def _rule_key(rule: str) -> str:
    if re.search(
        r"\b(?:short|brief|concise|long|detailed)\b.*\b(?:answers?|repl(?:y|ies)|responses?)\b|\b(?:answers?|repl(?:y|ies)|responses?)\b.*\b(?:short|brief|concise|long|detailed)\b",
        rule,
        re.I,
    ):
        return "length"
    return " ".join(rule.casefold().split())


def _han_instruction(text: str, who: str) -> Instruction | None:
    if (found := _HAN_LANGUAGE.match(text)) is not None:
        language = found["language"]
        lasting = re.search(_HAN_LASTING, text) is not None
        return Instruction("language", language, f"{who}希望用{language}回答。", 0.95 if lasting else 0.7)
    if (found := _HAN_CALL.match(text)) is not None and not _HAN_CALL_LATER.match(found["name"]):
        name = found["name"]
        return Instruction("call_name", name, f"{who}希望被称为{name}。", 0.9)
    found = _HAN_STANDING.match(text)
    if found is None or len(found["rule"]) > 60:
        return None
    rule = found["rule"]
    return Instruction(rule, rule, f"{who}的长期要求：{rule}。", 0.85)
