"""Chats as token ids, line by line, so that a chat and the beginning of it agree in their ids.

A tokenizer may join what stands on both sides of a boundary, so the ids of a beginning are not the beginning
of the ids. Lines are tokenised one by one here: what ends at a line's end is then a prefix in text and in ids.
Text that looks like one of the tokenizer's own signs (`<|im_end|>`) is broken, so that what somebody said,
or a memory of it, cannot end its own message.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from memos.errors import ActivationUnsupported, ModelRefused
from memos.models.base import ChatMessage

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_MARK = "(memos: the system message)"
_PROBE = ("A line, with  two spaces\n", "\n", "and another: 7.\n", "你好。\n", "  end")


@dataclass(frozen=True, slots=True)
class Beginning:
    """How every chat begins whose system message begins with some parts. ends: tokens up to the end of each
    part; what the template puts before the first one is counted to it."""

    ids: tuple[int, ...]
    ends: tuple[int, ...]


class ChatText:
    """A tokenizer with its chat template. Thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        longest_first = [re.escape(sign) for sign in sorted(_signs_of(tokenizer), key=len, reverse=True)]
        self._signs = re.compile("|".join(longest_first)) if longest_first else None
        self.lines_agree = self._lines_agree()

    def ids(self, messages: Sequence[ChatMessage], *, opening: bool) -> tuple[int, ...]:
        """The chat as the template renders it; opening: with the beginning of an answer."""
        return self._encode(self._render(messages, opening=opening))

    def beginning(self, parts: Sequence[str]) -> Beginning:
        """Of every chat whose system message is these line-ended parts. Raises ActivationUnsupported."""
        if not self.lines_agree:
            raise ActivationUnsupported("this tokenizer gives a line other ids inside a text than alone")
        clean = [self._broken(part) for part in parts]
        text = "".join(clean)
        start = self._rendered_system(_MARK).find(_MARK)
        rendered = self._rendered_system(text)
        if rendered[start : start + len(text)] != text:  # many templates strip a message
            text = text.rstrip()
        if start < 0 or not text or rendered[start : start + len(text)] != text:
            raise ActivationUnsupported("the chat template changes the text of a system message")
        ids: list[int] = []
        ends: list[int] = []
        place = -start
        bounds = iter(_ends_of(clean))
        bound = next(bounds, None)
        lines = _lines(rendered[: start + len(text)])
        for line, found in zip(lines, self._ids_of(lines), strict=True):
            ids += found
            place += len(line)
            while bound is not None and place >= bound:
                ends.append(len(ids))
                bound = next(bounds, None)
        ends += [len(ids)] * (len(clean) - len(ends))  # the last line's end was stripped
        return Beginning(tuple(ids), tuple(ends))

    def pieces(self, ids: Iterator[int]) -> Iterator[str]:
        """The text of an answer as it comes; a character is given when all of its tokens are there."""
        seen: list[int] = []
        told = whole = 0  # tokens before `told` are given; the text of told..whole is given as well
        for one in ids:
            seen.append(one)
            given, text = self._decode(seen[told:whole]), self._decode(seen[told:])
            if len(text) > len(given) and not text.endswith("\ufffd"):
                yield text[len(given) :]
                told, whole = whole, len(seen)
        rest = self._decode(seen[told:])[len(self._decode(seen[told:whole])) :]
        if rest:
            yield rest

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of tokens, without the template's own signs."""
        return self._decode(ids)

    # -- inside -----------------------------------------------------------------------------------------

    def _render(self, messages: Sequence[ChatMessage], *, opening: bool) -> str:
        if any(message.images for message in messages):
            raise ModelRefused("this model sees no images", status=0)
        chat = [{"role": one.role, "content": self._broken(one.content)} for one in messages]
        try:
            with self._lock:
                text = self._tokenizer.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=opening
                )
        except Exception as error:  # a template is a program: it may raise what it likes
            raise ModelRefused(f"the chat template refuses these messages: {error}", status=0) from error
        return cast(str, text)

    def _rendered_system(self, text: str) -> str:
        return self._render((ChatMessage("system", text), ChatMessage("user", ".")), opening=False)

    def _broken(self, text: str) -> str:
        if self._signs is None:
            return text
        return self._signs.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _encode(self, text: str) -> tuple[int, ...]:
        lines = _lines(text) if self.lines_agree else [text]
        return tuple(one for found in self._ids_of(lines) for one in found)

    def _ids_of(self, lines: Sequence[str]) -> list[list[int]]:
        if not lines:
            return []
        with self._lock:
            return cast(
                "list[list[int]]", self._tokenizer(list(lines), add_special_tokens=False)["input_ids"]
            )

    def _decode(self, ids: Sequence[int]) -> str:
        with self._lock:
            return cast(
                str,
                self._tokenizer.decode(
                    list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
                ),
            )

    def _lines_agree(self) -> bool:
        """Whether lines that are tokenised one by one are, together, the text that they were."""
        apart = [one for found in self._ids_of(_PROBE) for one in found]
        return self._decode(apart) == self._decode(self._ids_of(["".join(_PROBE)])[0])


def _lines(text: str) -> list[str]:
    return _LINE.findall(text)


def _ends_of(parts: Sequence[str]) -> list[int]:
    ends, place = [], 0
    for part in parts:
        place += len(part)
        ends.append(place)
    return ends


def _signs_of(tokenizer: Any) -> set[str]:
    """The texts that the tokenizer reads as signs of its own."""
    added = tokenizer.added_tokens_decoder.values()
    signs = {str(sign) for sign in tokenizer.all_special_tokens} | {
        one.content for one in added if one.special
    }
    return {sign for sign in signs if sign.strip()}
