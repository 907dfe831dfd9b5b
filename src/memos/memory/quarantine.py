"""What must not become memory unseen: secrets, and text that tries to give the assistant orders.

`inspect` finds API keys, tokens, private keys, card numbers (by the Luhn sum), passwords in context, and
the forms of prompt injection that are told by their wording, in English and Chinese. A finding holds an item
for review; it deletes nothing, so a false alarm costs a look. A user's own standing instruction ("always
answer in French") is a preference, not an attack: orders that only differ by who gives them are flagged
for other roles only. An excerpt never shows a secret. Rules find forms, not intentions: this is a sieve,
no proof of innocence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

FINDINGS_MAX = 20
CHARACTERS_MAX = 200_000
EXCERPT_CHARS_MAX = 80


class Danger(StrEnum):
    """Why an item is held."""

    SECRET = "secret"
    INSTRUCTION = "instruction"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: what it is, and an excerpt that is safe to show."""

    danger: Danger
    name: str  # "AWS access key", "card number", "overrides instructions" …
    excerpt: str

    @property
    def reason(self) -> str:
        return f"{self.danger.value}: {self.name} ({self.excerpt})"


_KEYS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("private key", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----")),
    ("AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,100}|github_pat_[A-Za-z0-9_]{30,200})")),
    ("OpenAI or Anthropic key", re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{20,200}")),
    ("Slack token", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,200}")),
    ("Google key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    ("Stripe key", re.compile(r"\b[sr]k_(?:live|test)_[0-9A-Za-z]{16,}")),
    ("Hugging Face or npm token", re.compile(r"\b(?:hf|npm)_[A-Za-z0-9]{30,100}")),
    ("GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,200}")),
    ("JSON web token", re.compile(r"\beyJ[A-Za-z0-9_-]{10,300}\.eyJ[A-Za-z0-9_-]{10,300}\.[A-Za-z0-9_-]{10,300}")),
    ("password in an address", re.compile(r"\b[a-z][a-z0-9+-]{0,20}://[^\s:/@]{1,64}:(?P<value>[^\s:/@]{3,64})@\S", re.I)),
    (
        "key or token in context",
        re.compile(
            r"\b(?:api[ _-]?key|secret[ _-]?key|access[ _-]?token|auth[ _-]?token|bearer|client[ _-]?secret|token)\b"
            r"['\"]?\s*(?:is|=|:|：)?\s*['\"]?(?P<value>(?=[^\s'\"]{0,200}\d)(?=[^\s'\"]{0,200}[A-Za-z])[A-Za-z0-9_\-./+=]{12,200})",
            re.I,
        ),
    ),
)  # fmt: skip
_NO_PASSWORD = (
    "wrong|weak|strong|secure|expired|correct|safe|secret|incorrect|invalid|required|missing|lost|different|ok|okay|long|short"
    "|the|not|a|an|too|very|being|always|never|now|that|this|it|my|your|same|needed|changed|set|hidden|protected|important|hard"
    "|easy|gone|reset|stored|in|on|on file|out|case-sensitive|what|none|unknown"
)
_PASSWORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "password",
        re.compile(
            rf"\b(?:password|passcode|passphrase|passwd|pwd|pass word)\b(?: (?:for|to|of) [\w' -]{{1,30}}?)?"
            rf"(?:\s+(?:is|was)|\s*[:=：])\s*['\"“]?(?!(?:{_NO_PASSWORD})\b(?![!@#$%^&*\d]))(?P<value>[^\s'\"”,，。]{{4,}})(?=['\"”]?(?:[\s.,!?;。，]*$|[.,;]\s|\s+(?:and|but|for|so)\b))",
            re.I | re.M,
        ),
    ),
    ("PIN", re.compile(r"\b(?:pin|pin code|security code|cvv|cvc)\b(?:\s+(?:is|was)|\s*[:=：])\s*(?P<value>\d{3,8})\b", re.I)),
    ("password", re.compile(r"(?:密码|口令|密碼|暗号)(?:是|为|：|:|=)\s*(?P<value>[A-Za-z0-9!@#$%^&*_.+-]{4,})")),
    ("key or token in context", re.compile(r"(?:密钥|令牌|秘钥)(?:是|为|：|:|=)\s*(?P<value>[A-Za-z0-9_\-./+=]{8,})")),
)  # fmt: skip
_CARD = re.compile(r"(?<![\d.+-])(?:\d[ -]?){12,18}\d(?![\d-])")
_CARD_ISSUER = re.compile(r"^(?:4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}|35\d{14})$")  # fmt: skip

_EARLIER = r"(?:all |any |every |the |your |my |these |those |of |previous |prior |above |earlier |preceding |existing |former |original |system |safety |foregoing )*"
_RULES = r"(?:instructions?|prompts?|rules?|guidelines?|directions?|commands?|directives?|messages? above|constraints?|restrictions?|programming|policies)"
_ORDERS: tuple[tuple[str, re.Pattern[str], bool], ...] = (  # name, pattern, whether a user may say it
    ("overrides instructions", re.compile(rf"\b(?:ignore|disregard|override|bypass|forget|discard|skip|circumvent|do not follow|don't follow|stop following)\s+{_EARLIER}{_RULES}\b"), False),
    ("overrides instructions", re.compile(r"\b(?:ignore|disregard|forget)\s+(?:everything|all|anything)\s+(?:(?:you (?:were|have been|are) )?(?:told|said|taught|instructed)|above|before|prior|previously|you know)\b"), False),
    ("new role", re.compile(r"\byou are (?:now|no longer)\b[^.\n]{0,40}\b(?:dan|unrestricted|jailbroken|unfiltered|evil|uncensored|bound|restricted|an? ai|assistant|admin|root|developer mode)\b"), False),
    ("new role", re.compile(r"\b(?:act|pretend|behave|roleplay|respond)\b[^.\n]{0,30}\b(?:as|like|to be)\b[^.\n]{0,30}\b(?:unrestricted|jailbroken|unfiltered|uncensored|no (?:rules|restrictions|limits|filters)|without (?:rules|restrictions|limits|filters))"), False),
    ("jailbreak", re.compile(r"\b(?:developer mode (?:enabled|on|activated)|enable developer mode|jailbreak(?:ed)? mode|do anything now|god mode enabled)\b"), False),
    ("asks for the system prompt", re.compile(r"\b(?:reveal|print|show|repeat|output|display|leak|expose|tell me|give me|send|dump)\b[^.\n]{0,40}\b(?:system|initial|hidden|original|secret) (?:prompt|instructions?|message)s?\b"), False),
    ("forged markup", re.compile(r"<\|(?:im_start|im_end|system|endoftext|eot_id|start_header_id)\|>|\[/?INST\]|<</?SYS>>|^[ \t]*#{2,9}[ \t]*(?:system|instruction)s?[ \t]*:?[ \t]*$|</?(?:system|assistant)(?:_prompt)?>", re.I | re.M), False),
    ("forged role", re.compile(r"^[ \t]*(?:system|assistant|developer)[ \t]*(?:prompt|message|override)?[ \t]*[:：][ \t]*\S", re.I | re.M), False),
    ("hides from the user", re.compile(r"\b(?:do not|don't|never|without)\s+(?:tell|inform|mention|reveal|alert|notify|telling|informing|alerting|notifying)\b[^.\n]{0,30}\bthe user\b"), False),
    ("sends data away", re.compile(r"\b(?:send|forward|post|upload|exfiltrate|email|leak)\b[^.\n]{0,60}\b(?:memor(?:y|ies)|conversations?|chat history|secrets?|passwords?|credentials?|api keys?|personal data|user data)\b[^.\n]{0,40}\b(?:to|at)\b\s*(?:https?://|\S+@\S+|www\.|this (?:url|address|server))"), False),
    ("new instructions", re.compile(r"\b(?:new|updated|important|urgent|real) (?:system )?(?:instructions?|directive|prompt)\s*[:：]"), True),
    ("orders the assistant", re.compile(r"\bfrom now on,? you (?:must|will|shall|are|should|have to)\b"), True),
    ("orders the assistant", re.compile(r"\bwhen(?:ever)? (?:the |a )?users? (?:asks?|says?|mentions?|wants?)\b[^.\n]{0,80}\b(?:say|respond|reply|answer|recommend|tell|claim|send|call|run|execute)\b"), True),
    ("orders the assistant", re.compile(r"\b(?:you|the assistant|the ai|the model) must (?:always|never|now|immediately|comply|obey)\b"), True),
    ("overrides instructions", re.compile(r"(?:忽略|无视|忽視|(?<![我他她们])忘记|(?<![我他她们])忘掉|抛弃|绕过|违反|不要遵守|跳过)(?:掉|你|您|了|之前|以前|以上|上面|先前|此前|前面|所有|全部|一切|任何|的|系统|安全|原来|那些)*(?:指令|指示|提示词?|规则|要求|设定|限制|命令|约束)"), False),
    ("new role", re.compile(r"你现在(?:是|扮演)[^。\n]{0,12}(?:没有限制|不受限制|无限制|越狱|不受约束|dan)|扮演[^。\n]{0,10}(?:没有限制|不受限制|无限制)"), False),
    ("jailbreak", re.compile(r"(?:进入|开启|启用)(?:开发者|越狱|上帝)模式"), False),
    ("asks for the system prompt", re.compile(r"(?:输出|显示|泄露|告诉我|打印|重复|展示)[^。\n]{0,10}(?:系统提示|系统指令|初始指令|隐藏指令|系统消息)"), False),
    ("hides from the user", re.compile(r"(?:不要|别|不得|禁止)(?:告诉|告知|通知|提醒|透露给)(?:该)?用户"), False),
    ("sends data away", re.compile(r"把[^。\n]{0,20}(?:记忆|对话|密码|密钥|聊天记录|个人信息)[^。\n]{0,10}(?:发送|发给|上传|转发)"), False),
    ("orders the assistant", re.compile(r"从现在(?:开始|起)[，,]?你(?:必须|要|将|只能|应该)|当用户(?:问|说|提到)[^。\n]{0,30}(?:你|就|请)?(?:回答|回复|推荐|说)"), True),
)  # fmt: skip
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]")
_TAG_CHARACTERS = re.compile("[\U000e0020-\U000e007f]{4,}")


def inspect(text: str, *, role: str = "") -> tuple[Finding, ...]:
    """What is dangerous in `text`, secrets first; empty when nothing was found.

    role: who says it. A user may give lasting orders, a document, tool or assistant turn may not.
    """
    text = text[:CHARACTERS_MAX]
    found: dict[tuple[str, str], Finding] = {}
    for one in (*_secrets(text), *_instructions(text, role)):
        found.setdefault((one.name, one.excerpt), one)
        if len(found) == FINDINGS_MAX:
            break
    return tuple(found.values())


def _secrets(text: str) -> Iterator[Finding]:
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    for name, pattern in (*_KEYS, *_PASSWORDS):
        for match in pattern.finditer(plain):
            yield Finding(Danger.SECRET, name, _masked(match.groupdict().get("value") or match[0]))
    for match in _CARD.finditer(plain):
        digits = re.sub(r"\D", "", match[0])
        if _CARD_ISSUER.match(digits) and luhn(digits):
            yield Finding(Danger.SECRET, "card number", f"…{digits[-4:]}")


def _masked(secret: str) -> str:
    """Enough to recognise it by, too little to use it."""
    shown = min(4, len(secret) // 5)
    return f"{secret[:shown]}… {len(secret)} characters"


def luhn(digits: str) -> bool:
    """Whether the digits pass the Luhn sum (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return bool(digits) and total % 10 == 0


def _instructions(text: str, role: str) -> Iterator[Finding]:
    if _TAG_CHARACTERS.search(text):
        yield Finding(Danger.INSTRUCTION, "invisible text", "characters that no reader sees")
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold().replace("’", "'")
    plain = re.sub(r"[ \t]+", " ", plain)
    for name, pattern, user_may in _ORDERS:
        if user_may and role == "user":
            continue
        for match in pattern.finditer(plain):
            yield Finding(Danger.INSTRUCTION, name, " ".join(match[0].split())[:EXCERPT_CHARS_MAX])
