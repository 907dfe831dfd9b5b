"""What the indexes need to know of an item: its terms, its links and its vector.

Items of one call are encoded in one batch. The names of participants are taken out of what is encoded
(in short turns they drown everything else a sentence vector could say) and stay in the lexical index.
A model that fails costs no write: the items come without vectors, which `MemoryStore.without_vector`
finds later (`memos reembed`), and are recallable by text and links meanwhile.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache

from memos import log
from memos.errors import ModelError
from memos.memory.item import MemoryItem
from memos.memory.store import IndexedItem
from memos.models.base import Embedder, Vectors
from memos.retrieval.entities import entities
from memos.retrieval.keywords import analyse
from memos.retrieval.stopwords import ENGLISH

NAMES_MAX = 1_000  # of one text; a cube with more participants keeps the rest in its vectors

_WORD = re.compile(r"\w+(?:['’]s\b)?")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_LOOSE_START = re.compile(r"^[\s:,;.!?…–—：，；。！？-]+")
_LOOSE_COMMA = re.compile(r"(?:\s|[,;:](?=\s*[,;:.!?]))+(?=[,;:.!?])")

logger = log.get_logger(__name__)


class Indexer:
    """Makes `IndexedItem`s. Thread-safe, as the embedder is."""

    def __init__(self, embedder: Embedder | None) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._items_not_encoded = 0

    @property
    def items_not_encoded(self) -> int:
        """Items that got no vector because the model failed, since this process started."""
        return self._items_not_encoded

    def index(self, items: Sequence[MemoryItem], *, participants: Collection[str] = ()) -> list[IndexedItem]:
        """The items in their order, `links` set to the entities of their text.

        `participants` are the names known in the cube besides those of the items themselves.
        """
        names: defaultdict[str, set[str]] = defaultdict(lambda: set(participants))
        for item in items:
            names[item.cube_id].update(item.participants)
        vectors = self._encode([_dense_text(item, names[item.cube_id]) for item in items])
        return [
            IndexedItem(
                item=replace(item, links=entities(item.memory, sorted(names[item.cube_id]))),
                terms=analyse(item.memory),
                vector=None if vectors is None else vectors[place],
            )
            for place, item in enumerate(items)
        ]

    def _encode(self, texts: Sequence[str]) -> Vectors | None:
        if self._embedder is None or not texts:
            return None
        try:
            return self._embedder.embed(texts)
        except ModelError as error:
            with self._lock:
                self._items_not_encoded += len(texts)
            logger.warning("indexer.not_encoded", items=len(texts), error=str(error))
            return None


def _dense_text(item: MemoryItem, names: Collection[str]) -> str:
    return without_names(item.memory, names) or item.memory


def without_names(text: str, names: Collection[str]) -> str:
    """`text` without the words of the given names ("Caroline Smith", "Caroline", "caroline's").

    A name that is also a function word ("Will") goes only as it is written. "" when nothing is left. For
    texts to be encoded, of memories and of queries alike.
    """
    written, folded, unspaced = _words_of(frozenset(names)) if names else (frozenset(), frozenset(), ())
    if not (written or folded or unspaced):
        return text.strip()
    for name in unspaced:
        text = text.replace(name, " ")

    def keep(match: re.Match[str]) -> str:
        word = re.sub(r"['’]s$", "", match[0])
        return "" if word in written or word.casefold() in folded else match[0]

    left = " ".join(_WORD.sub(keep, text).split())
    left = _LOOSE_COMMA.sub("", _LOOSE_START.sub("", left))
    return left if _WORD.search(left) else ""


@lru_cache(maxsize=256)
def _words_of(names: frozenset[str]) -> tuple[frozenset[str], frozenset[str], tuple[str, ...]]:
    """(words as written, words in any case, names of scripts without spaces, longest first)."""
    known = sorted(names)[:NAMES_MAX]
    unspaced = tuple(sorted((name for name in known if _UNSPACED.search(name)), key=len, reverse=True))
    words = {word for name in known if not _UNSPACED.search(name) for word in re.findall(r"\w+", name)}
    written = frozenset(word for word in words if len(word) > 1)
    return written, frozenset(word.casefold() for word in written) - ENGLISH, unspaced
