"""WordPiece: the ids of the model's own tokenizer, on any text."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from memos.errors import ModelUnavailable
from memos.models import wordpiece
from memos.models.weights import require_weights
from memos.models.wordpiece import SPECIAL, WordPiece

VOCABULARY = require_weights().vocabulary


def _original() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(VOCABULARY.with_name("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer


ORIGINAL = _original()
OURS = WordPiece.load(VOCABULARY)

ANY_CHARACTER = st.characters(exclude_categories=["Cs"])
SCRIPTS = st.sampled_from(
    [
        st.text(ANY_CHARACTER),
        st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'-0123456789 .,:$", max_size=80),
        st.text(st.characters(min_codepoint=0xC0, max_codepoint=0x370), max_size=40),
        st.text(st.characters(min_codepoint=0x370, max_codepoint=0x780), max_size=40),
        st.text(st.characters(min_codepoint=0x3000, max_codepoint=0x9FFF), max_size=40),
        st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=40),
        st.text(st.characters(min_codepoint=0x1F300, max_codepoint=0x1FAFF), max_size=20),
        st.text(st.characters(max_codepoint=0x20), max_size=20),
        st.text("aéß", min_size=90, max_size=120),
        st.sampled_from([*SPECIAL, "[sep]", "ΟΔΟΣ", "İstanbul", "e\u0301te\u0301", "\u200d", "a\u0300" * 60]),
    ]
).flatmap(lambda script: script)
TEXTS = st.lists(SCRIPTS, max_size=6).map("".join)


@given(TEXTS)
@settings(max_examples=600, deadline=None)
def test_ids_equal_those_of_the_original(text: str) -> None:
    """Any text of any scripts, with special tokens and long words in it, gets the original's ids."""
    assert OURS.encode(text, tokens_max=256) == ORIGINAL.encode(text).ids


def test_every_code_point_is_treated_as_the_original_treats_it() -> None:
    """Each character, between two letters, splits or vanishes as in the original.

    All of the planes that hold scripts; of the vast unassigned and private ones every 97th.
    """
    scripts = itertools.chain(range(0xD800), range(0xF900, 0x20000), range(0xE0000, 0xE0200))
    scalars = itertools.chain(scripts, range(0xE000, 0xF900, 97), range(0x20000, 0x110000, 97))
    texts = [f"a{chr(code)}b" for code in scalars]
    wrong = []
    for start in range(0, len(texts), 20_000):
        batch = texts[start : start + 20_000]
        wanted = ORIGINAL.encode_batch_fast(batch)
        wrong += [
            ascii(text)
            for text, encoding in zip(batch, wanted, strict=True)
            if OURS.encode(text, tokens_max=256) != encoding.ids
        ]
    assert wrong == []


def test_long_texts_are_cut_as_the_original_cuts_them() -> None:
    """A text of more than 256 tokens keeps its first 254 and the two special ones."""
    text = "unbelievably long stories " * 4_000
    ids = OURS.encode(text, tokens_max=256)
    assert len(ids) == 256
    assert ids == ORIGINAL.encode(text).ids


@given(st.text(st.characters(), max_size=50))
@settings(deadline=None)
def test_lone_surrogates_are_left_out(text: str) -> None:
    """A string that is no valid Unicode is encoded as if its surrogates were not there."""
    without = "".join(character for character in text if not "\ud800" <= character <= "\udfff")
    assert OURS.encode(text, tokens_max=256) == OURS.encode(without, tokens_max=256)


def test_the_smallest_frame_is_the_two_special_tokens() -> None:
    """Neither an empty text nor a frame of two leaves out the special tokens."""
    assert OURS.encode("", tokens_max=256) == [101, 102]
    assert OURS.encode("many words here", tokens_max=2) == [101, 102]


def test_the_word_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More distinct words than the cache holds give the same ids and never more entries than its bound."""
    monkeypatch.setattr(wordpiece, "WORDS_CACHED_MAX", 10)
    small = WordPiece.load(VOCABULARY)
    text = " ".join(f"w{number}" for number in range(60))
    assert small.encode(text, tokens_max=256) == OURS.encode(text, tokens_max=256)
    assert len(small._words) <= 10


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path: Path) -> None:
    """A file that is no BERT vocabulary is named with what it lacks."""
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\nhello\n", encoding="utf-8")
    with pytest.raises(ModelUnavailable, match=r"\[CLS\]"):
        WordPiece.load(path)


def test_an_unreadable_vocabulary_is_a_typed_error(tmp_path: Path) -> None:
    """Missing files and bytes that are no UTF-8 come out as ModelUnavailable naming the path."""
    broken = tmp_path / "vocab.txt"
    broken.write_bytes(b"\xff\xfe\xff")
    for path in (broken, tmp_path / "absent.txt"):
        with pytest.raises(ModelUnavailable, match=path.name):
            WordPiece.load(path)
