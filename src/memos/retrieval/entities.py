"""Names in a text, as links between memories: people, places, titles, handles, tags, hosts.

Rules only, so that every item gets them at once and without a model: a capital that no sentence start
explains, quotation marks and book-title marks around a title, `@` and `#`, addresses. A name is returned
in canonical form (NFKC, case-folded, without possessive and leading "the"), each once, in the order of
appearance, at most `ENTITIES_MAX`.

Guarantees: pure and total on any `str`; work is bounded by `CHARACTERS_MAX`. What it does not do: it does
not tell kinds of names apart and does not know that "Mel" is "Melanie". Dates are not names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from memos.retrieval import stopwords
from memos.retrieval.keywords import language_of

ENTITIES_MAX = 16
CHARACTERS_MAX = 20_000
NAME_CHARACTERS_MAX = 80
_NAME_WORDS_MAX = 6
_TITLE_WORDS_MAX = 8

_URL = re.compile(r"\bhttps?://([^\s/?#<>\"']+)[^\s<>\"']*|\bwww\.([^\s/?#<>\"']+)[^\s<>\"']*", re.IGNORECASE)
_EMAIL = re.compile(r"\b[\w.+-]{1,64}@([\w-]{1,63}(?:\.[\w-]{1,63}){1,8})\b")
_SIGNED = re.compile(r"(?<![\w@#])[@#][^\W_][\w-]{0,62}")
_BOOK_TITLE = re.compile(r"[《〈『]([^《》〈〉『』\n]{1,60})[》〉』]|「([^「」。！？\n]{1,20})」")
_QUOTED = re.compile(r"[\"“„«]\s?([^\"“”„«»\n]{2,80}?)\s?[\"”«»]")
_WORD = re.compile(r"[^\W_]+(?:[-'’&.][^\W_]+)*(?:(?<=\b[A-Z])\.(?=\s[A-Z]))?")
_CONNECTORS = frozenset(
    ["of", "the", "de", "la", "le", "del", "der", "den", "van", "von", "da", "di", "do", "dos", "du"]
)

_NO_NAMES = stopwords.ENGLISH | stopwords.CALENDAR | stopwords.FORMULAS
_SENTENCE_ENDS = frozenset('.!?:;\n…。！？：；(•*—–"“”')


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    start: int
    end: int
    starts_sentence: bool

    @property
    def bare(self) -> str:
        return re.sub(r"['’]s$", "", self.text)

    @property
    def possessive(self) -> bool:
        return self.bare != self.text


def entities(text: str, participants: Iterable[str] = ()) -> tuple[str, ...]:
    """The canonical names in `text`, at most `ENTITIES_MAX`, in the order of appearance.

    `participants` are recognised wherever they are mentioned, by full or first name and in any case, and
    come out under their full name. Being a participant is not being mentioned.
    """
    plain = unicodedata.normalize("NFKC", text[:CHARACTERS_MAX])
    found: list[tuple[int, str]] = []
    plain = _take_out(plain, _addresses(plain), found)
    plain = _take_out(plain, _titles(plain), found)
    full_names = _full_names(tuple(participants))
    found += _mentions(plain, full_names)
    found += [pair for pair in _capitalised(plain, known=frozenset(full_names)) if pair[1] not in full_names]
    ordered = dict.fromkeys(name for _, name in sorted(found, key=lambda pair: pair[0]) if name)
    return tuple(ordered)[:ENTITIES_MAX]


def canonical(name: str) -> str:
    """The form in which a name is stored and compared."""
    folded = unicodedata.normalize("NFKC", name).casefold().replace("’", "'")
    folded = re.sub(r"^the (?=.)|'s$", "", " ".join(folded.split()).strip(" .,;:!?'\"()[]"))
    return folded[:NAME_CHARACTERS_MAX].rstrip()


def _take_out(plain: str, spans: Iterable[tuple[int, int, list[str]]], found: list[tuple[int, str]]) -> str:
    """Note the names of the spans and blank the spans, so that no other rule reads them again."""
    characters = list(plain)
    for start, end, names in spans:
        if any(characters[index] == "\x00" for index in range(start, end)):
            continue
        found.extend((start, canonical(name)) for name in names)
        characters[start:end] = "\x00" * (end - start)
    return "".join(characters)


def _addresses(plain: str) -> Iterator[tuple[int, int, list[str]]]:
    for match in _URL.finditer(plain):
        host = (match[1] or match[2]).rpartition("@")[2].partition(":")[0]
        yield match.start(), match.end(), [re.sub(r"^www\.", "", host, flags=re.IGNORECASE)]
    for match in _EMAIL.finditer(plain):
        yield match.start(), match.end(), [match[0], match[1]]
    for match in _SIGNED.finditer(plain):
        yield match.start(), match.end(), [match[0]]


def _titles(plain: str) -> Iterator[tuple[int, int, list[str]]]:
    for match in _BOOK_TITLE.finditer(plain):
        yield match.start(), match.end(), [match[1] or match[2]]
    for match in _QUOTED.finditer(plain):
        if _is_title(match[1]):
            yield match.start(), match.end(), [match[1]]


def _is_title(quoted: str) -> bool:
    """A few words, capitalised as titles are; everything else in quotation marks is speech."""
    words = [word.group() for word in _WORD.finditer(quoted)]
    if not words or len(words) > _TITLE_WORDS_MAX or quoted.rstrip()[-1] in ".?,;:":
        return False
    content = [word for word in words if word.casefold() not in stopwords.ENGLISH]
    capitals = [word for word in content if word[0].isupper() or word[0].isdigit()]
    return len(content) > 0 and len(capitals) * 2 > len(content) and not words[0][0].islower()


@lru_cache(maxsize=64)
def _full_names(participants: tuple[str, ...]) -> Mapping[str, str]:
    """Full and first name -> full name. A first name that two of them share says neither.

    Cached: one cube's participants are asked for with every query and every text.
    """
    forms: dict[str, set[str]] = {}
    for participant in participants:
        full = canonical(participant)
        if full:
            forms.setdefault(full, set()).add(full)
            forms.setdefault(full.split()[0], set()).add(full)
    return {form: min(names) for form, names in forms.items() if len(names) == 1 and len(form) > 1}


def _mentions(plain: str, full_names: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Where the participants are named, in any case."""
    folded = plain.casefold()
    for form, full in full_names.items():
        if form not in folded:  # far cheaper than the search that follows
            continue
        edge = r"\b" if form.isascii() else ""
        match = re.search(f"{edge}{re.escape(form)}{edge}", folded)
        if match is not None:
            yield match.start(), full


def _capitalised(plain: str, *, known: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Runs of capitalised words.

    The first word of a sentence is capitalised anyhow, so it counts only if it is written so elsewhere or
    has a capital inside; a run that begins with it is given with it and without it.
    """
    words = list(_words(plain))
    if sum(word.text.isupper() and len(word.text) > 1 for word in words) * 2 > len(words) > 3:
        return  # shouting: capitals say nothing
    elsewhere = {word.bare for word in words if not word.starts_sentence and _is_name(word)}
    singles = language_of(plain) != "german"  # German nouns all have capitals
    for run in _runs(plain, words):
        first = run[0]
        sure = not first.starts_sentence or first.bare in elsewhere or _has_inner_capital(first.bare)
        if len(run) > 1:
            yield first.start, _joined(run)
        if not sure:
            run = _without_first(run)
            if not run or (len(run) == 1 and not singles):
                continue
            yield run[0].start, _joined(run)
        elif len(run) == 1 and (singles or _has_inner_capital(first.bare)):
            yield first.start, _joined(run)


def _words(plain: str) -> Iterator[_Word]:
    for match in _WORD.finditer(plain):
        before = plain[max(0, match.start() - 3) : match.start()]
        stripped = before.rstrip(" \t")
        starts = match.start() == 0 or (not stripped and "\n" in before) or stripped[-1:] in _SENTENCE_ENDS
        yield _Word(match.group(), match.start(), match.end(), starts)


def _runs(plain: str, words: list[_Word]) -> Iterator[list[_Word]]:
    """Maximal runs of name words with single spaces between them; inner connectors belong to the run."""
    index = 0
    while index < len(words):
        if not _is_name(words[index]):
            index += 1
            continue
        run = [words[index]]
        index += 1
        while index < len(words) and len(run) < _NAME_WORDS_MAX and not run[-1].possessive:
            step = _next_of_run(plain, words, index)
            if not step or plain[run[-1].end : step[0].start] != " ":
                break
            run += step
            index += len(step)
        yield run


def _next_of_run(plain: str, words: list[_Word], index: int) -> list[_Word]:
    """What goes on with a run from `index`: a name word, a number, or up to two connectors and a name word."""
    if _is_name(words[index]) or (words[index].text.isdigit() and len(words[index].text) <= 2):
        return [words[index]]
    step: list[_Word] = []
    for word in words[index : index + 3]:
        if step and plain[step[-1].end : word.start] != " ":
            return []
        step.append(word)
        if _is_name(word):
            return step
        if word.text not in _CONNECTORS:
            return []
    return []


def _without_first(run: list[_Word]) -> list[_Word]:
    rest = run[1:]
    while rest and not _is_name(rest[0]):
        rest = rest[1:]
    return rest


def _joined(run: list[_Word]) -> str:
    return canonical(" ".join(word.text for word in run))


def _is_name(word: _Word) -> bool:
    bare = word.bare
    if (len(bare) < 2 and not (bare.isupper() and word.text.endswith("."))) or bare.isdigit():
        return False
    if not (bare[0].isupper() or _has_inner_capital(bare)):
        return False
    folded = re.sub(r"['’.]", "", bare.casefold())
    contraction = re.split(r"['’]", bare.casefold())[0]
    if folded in _NO_NAMES or (contraction != folded and contraction in _NO_NAMES):
        return bare.isupper() and folded in {"us", "it", "who"} and not word.starts_sentence
    return True


def _has_inner_capital(word: str) -> bool:
    """NASA, iPhone, McDonald: capitals that no rule of spelling puts there."""
    return len(word) > 1 and any(character.isupper() for character in word[1:] if character.isalpha())
