"""Terms, links and vectors of items, and what happens when there is no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from memos.errors import ModelUnavailable
from memos.memory.indexer import Indexer, without_names
from memos.memory.item import MemoryItem
from memos.retrieval.keywords import analyse


class RecordingEmbedder:
    """Encodes the length of a text and keeps what it was given."""

    dim = 2
    fingerprint = "lengths"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.calls.append(list(texts))
        return np.array([[len(text), 1] for text in texts], dtype=np.float32).reshape(len(texts), 2)


class BrokenEmbedder(RecordingEmbedder):
    def embed(self, texts: Sequence[str]) -> Any:
        raise ModelUnavailable("no weights")


def item(item_id: str, memory: str, *, cube_id: str = "c", participants: tuple[str, ...] = ()) -> MemoryItem:
    return MemoryItem(id=item_id, cube_id=cube_id, user_id="u", memory=memory, participants=participants)


def test_items_come_back_in_order_with_terms_links_and_vectors() -> None:
    """Each item keeps its place, and everything is encoded in one call."""
    embedder = RecordingEmbedder()
    first, second = Indexer(embedder).index(
        [item("a", "Rex chased the ball in Berlin"), item("b", "It rained")]
    )
    assert (first.item.id, second.item.id) == ("a", "b")
    assert first.terms == analyse("Rex chased the ball in Berlin")
    assert "berlin" in first.item.links
    assert second.item.links == ()
    assert len(embedder.calls) == 1
    assert first.vector is not None and first.vector[0] == len(embedder.calls[0][0])
    assert first.item.memory == "Rex chased the ball in Berlin"


def test_links_are_those_of_the_text() -> None:
    """An item whose text has changed loses the links of its old text."""
    (indexed,) = Indexer(None).index([MemoryItem("a", "c", "u", "It went to Paris", links=("berlin",))])
    assert indexed.item.links == ("paris",)


def test_names_are_encoded_in_no_text_of_their_cube() -> None:
    """Participants given, and those of any item of the same cube, are left out of what is encoded."""
    embedder = RecordingEmbedder()
    Indexer(embedder).index(
        [
            item("a", "Caroline: Mel likes Anna's pottery", participants=("Caroline",)),
            item("b", "Mel and Caroline went out", participants=("Mel",)),
            item("c", "Mel and Anna went out", cube_id="other"),
            item("d", "Mel!", participants=("Mel",)),
        ],
        participants=("Anna",),
    )
    assert embedder.calls == [["likes pottery", "and went out", "Mel and went out", "Mel!"]]


def test_without_a_model_items_have_no_vector() -> None:
    """No embedder: terms and links only."""
    (indexed,) = Indexer(None).index([item("a", "Rex is a dog")])
    assert indexed.vector is None
    assert indexed.terms
    assert Indexer(RecordingEmbedder()).index([]) == []


def test_a_failing_model_costs_no_write() -> None:
    """A model error gives items without vectors, and is counted."""
    indexer = Indexer(BrokenEmbedder())
    indexed = indexer.index([item("a", "Rex is a dog"), item("b", "so is Bello")])
    assert [one.vector for one in indexed] == [None, None]
    assert all(one.terms for one in indexed)
    assert indexer.items_not_encoded == 2


@pytest.mark.parametrize(
    ("text", "names", "left"),
    [
        ("Caroline: Hey Mel!", ("Caroline", "Mel"), "Hey!"),
        ("what did caroline say about MEL's dog?", ("Caroline", "Mel"), "what did say about dog?"),
        ("Caroline Smith and Mr Smith", ("Caroline Smith",), "and Mr"),
        ("Carolines and Melanie", ("Caroline", "Mel"), "Carolines and Melanie"),
        ("will Will go", ("Will",), "will go"),
        ("Mel’s, Mel, and Jo", ("Mel", "Jo"), "and"),
        ("小明：小明的狗很好", ("小明",), "的狗很好"),
        ("at 9:45, Mel", ("Mel",), "at 9:45,"),
        ("Mel", ("Mel",), ""),
        ("A dog", ("A",), "A dog"),
        ("  nothing to take ", (), "nothing to take"),
        ("", ("Mel",), ""),
        ("?!", ("Mel",), ""),
    ],
)
def test_names_are_taken_out(text: str, names: tuple[str, ...], left: str) -> None:
    """Full names, single words of them, possessives and other case go; other words stay."""
    assert without_names(text, names) == left
