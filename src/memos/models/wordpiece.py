"""WordPiece with BERT's uncased rules: text -> token ids, the same ids as the model's own tokenizer.

Steps, as in BERT (Devlin et al. 2019; Wu et al. 2016, section 4.1 for WordPiece): drop control
characters, set CJK characters apart, decompose and drop accents, lower each character on its own, split
at white space and punctuation, then take the longest known piece from the left; a word that cannot be
covered, or is longer than 100 characters, becomes `[UNK]`. The five special tokens, where a text
contains them verbatim, keep their own ids.

Guarantees: never fails on any `str` (lone surrogates are dropped like control characters), work is
bounded by `CHARACTERS_MAX` characters and the asked number of tokens, and instances are thread-safe.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from memos.errors import ModelUnavailable
from memos.models import wordpiece_table

CHARACTERS_MAX = 65_536  # of one text; 256 tokens rarely need 2,000
WORD_CHARACTERS_MAX = 100
WORDS_CACHED_MAX = 50_000

PAD, UNKNOWN, CLASSIFY, SEPARATE, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# BERT's idea of "Chinese characters": each becomes a word of its own. Hangul and kana do not.
_CJK_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_SPECIAL_PATTERN = re.compile("(" + "|".join(re.escape(token) for token in SPECIAL) + ")")


class _CharacterTable(dict[int, str]):
    """A table for `str.translate` that computes an entry at first use. At most one entry a code point."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code_point: int) -> str:
        value = self._rule(chr(code_point))
        self[code_point] = value
        return value


def _category(character: str) -> str:
    """The Unicode category as the model's tokenizer knows it."""
    if character in wordpiece_table.LETTERS:
        return "Lo"
    if character in wordpiece_table.MARKS:
        return "Mn"
    if character in wordpiece_table.PUNCTUATION:
        return "Po"
    return unicodedata.category(character)


def _cleaned(character: str) -> str:
    """Before decomposition: control characters vanish, white space becomes a space, CJK stands apart."""
    if character in "\t\n\r":
        return " "
    if character == "\ufffd" or _category(character) in {"Cc", "Cf", "Co", "Cs"}:
        return ""
    if character.isspace():
        return " "
    code_point = ord(character)
    if any(low <= code_point <= high for low, high in _CJK_RANGES):
        return f" {character} "
    return character


def _folded(character: str) -> str:
    """After decomposition: accents vanish, letters are lowered one by one, punctuation stands apart.

    One by one, because a whole-word `lower` turns a final capital sigma into another letter.
    """
    category = _category(character)
    if category == "Mn":
        return ""
    if category.startswith("P") or (character.isascii() and category.startswith("S")):
        return f" {character} "
    return character.lower()


class WordPiece:
    """A vocabulary and its rules. `vocabulary[i]` is the token with id `i`."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._ids = {token: number for number, token in enumerate(vocabulary)}
        missing = [token for token in SPECIAL if token not in self._ids]
        if missing:
            raise ModelUnavailable(f"the vocabulary lacks the tokens {', '.join(missing)}")
        self._special = {token: self._ids[token] for token in SPECIAL}
        self._unknown = (self._ids[UNKNOWN],)
        self._clean = _CharacterTable(_cleaned)
        self._fold = _CharacterTable(_folded)
        self._words: dict[str, tuple[int, ...]] = {}

    @classmethod
    def load(cls, path: Path) -> WordPiece:
        """Read a `vocab.txt`: one token a line, the line number is the id."""
        try:
            return cls(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise ModelUnavailable(f"cannot read the vocabulary {path}: {error}") from error

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(self._ids)

    @property
    def pad_id(self) -> int:
        return self._special[PAD]

    def encode(self, text: str, *, tokens_max: int) -> list[int]:
        """`[CLS]`, the ids of the text, `[SEP]`: at most `tokens_max` (at least 2) in all."""
        ids = [self._special[CLASSIFY]]
        for piece_ids in self._pieces(text[:CHARACTERS_MAX]):
            ids.extend(piece_ids)
            if len(ids) >= tokens_max:
                break
        del ids[tokens_max - 1 :]
        ids.append(self._special[SEPARATE])
        return ids

    def _pieces(self, text: str) -> Iterator[tuple[int, ...]]:
        """The ids of each word or special token, in order."""
        for part in _SPECIAL_PATTERN.split(text):
            if part in self._special:
                yield (self._special[part],)
                continue
            plain = part.translate(self._clean)
            if not plain.isascii():
                plain = unicodedata.normalize("NFD", plain)
            for word in plain.translate(self._fold).split():
                yield self._word_ids(word)

    def _word_ids(self, word: str) -> tuple[int, ...]:
        """Longest match from the left; remembered, since few words make most of any text."""
        known = self._words.get(word)
        if known is None:
            known = self._split(word) if len(word) <= WORD_CHARACTERS_MAX else self._unknown
            if len(self._words) >= WORDS_CACHED_MAX:
                self._words.clear()
            self._words[word] = known
        return known

    def _split(self, word: str) -> tuple[int, ...]:
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                number = self._ids.get(prefix + word[start:end])
                if number is not None:
                    ids.append(number)
                    start = end
                    break
            else:
                return self._unknown
        return tuple(ids)
