"""One memory as one line of a prompt. Pure.

Whatever a memory says, it stays one line between the marks that we set: line ends of every kind are folded,
and the signs by which chat templates tell who speaks are broken with a space, so that no text of a memory
can end the block, begin a turn or open a line of its own.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

from memos.memory.item import MemoryItem

LINE = "- "

# Of ChatML, Llama 2 and 3, Gemma, Mistral, Phi, DeepSeek, Command R, Harmony, Hermes, Qwen, GLM.
_FRAMING = re.compile(
    r"<(?=[|｜])|(?<=[|｜])>"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|gMASK|sMASK)\])"
    r"|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|im_start|im_end|think|system|user|assistant)>)"
    r"|<(?=/?(?:tools?|tool_calls?|tool_responses?|function_calls?|sop|eop|eot|end_of_text|end_of_utterance)>)"
    r"|<(?=</?SYS>>)",
    re.IGNORECASE,
)


def quoted(text: str) -> str:
    """`text` on one line, with nothing in it that frames a prompt."""
    shown = "".join(" " if unicodedata.category(sign) in _UNSEEN else sign for sign in text)
    return _FRAMING.sub(
        lambda found: found[0] + " " if found[0] in "<[" else " " + found[0], " ".join(shown.split())
    )


_UNSEEN = frozenset({"Cc", "Zl", "Zp", "Cs"})  # controls, line and paragraph separators, lone surrogates


def said_at(item: MemoryItem) -> datetime:
    """When it was said, else learned."""
    return item.happened_at or item.created_at


def line_of(item: MemoryItem) -> str:
    """`[date] who: text`, without the mark before it and the line end after it."""
    who = quoted(", ".join(item.participants) or item.role)
    return f"[{said_at(item).astimezone():%Y-%m-%d}]{f' {who}:' if who else ''} {quoted(item.memory)}"


def marked(mark: int, line: str) -> str:
    """The line of a block, ended."""
    return f"{LINE}m{mark} {line}\n"
