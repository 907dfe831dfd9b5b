"""SuggestHandler: questions worth asking, made of what a cube knows. No model is asked."""

from __future__ import annotations

from memos.api import access
from memos.api.cube_models import SuggestionRequest, SuggestionResponse
from memos.mem_chat.prompt import SUGGESTIONS_MAX, as_written
from memos.memory.item import MemoryItem
from memos.memory.store import ItemFilter, MemoryStore
from memos.memory.turns import parse_conversation
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.request import QUERY_CHARS_MAX, RecallRequest

LOOKED_AT = 50  # memories whose entities are asked about
_FORMS = {"en": "What do you remember about {}?", "zh": "关于{}，你还记得什么？"}


class SuggestHandler:
    """Asks about the entities of the newest memories, or of those that fit a conversation."""

    def __init__(self, store: MemoryStore, retriever: HybridRetriever) -> None:
        self._store = store
        self._retriever = retriever

    def handle_suggestions(self, asked: SuggestionRequest) -> SuggestionResponse:
        """Up to a few questions, none twice. Raises AccessDenied."""
        access.may_read(users=[asked.user_id], cubes=[asked.mem_cube_id])
        said = _last_said(asked)
        items = self._fitting(asked, said) if said else []
        items = items or list(
            self._store.find(ItemFilter(cube_ids=(asked.mem_cube_id,)), limit=LOOKED_AT).items
        )
        folded = said.casefold()
        names: dict[str, None] = {}
        for item in items:
            for link in item.links:
                if link.casefold() not in folded:
                    names[as_written(link, item.memory)] = None
        questions = [_FORMS[asked.language].format(name) for name in list(names)[:SUGGESTIONS_MAX]]
        return SuggestionResponse(message="Suggestions retrieved successfully", data={"query": questions})

    def _fitting(self, asked: SuggestionRequest, said: str) -> list[MemoryItem]:
        request = RecallRequest(
            query=said[:QUERY_CHARS_MAX],
            cube_ids=(asked.mem_cube_id,),
            user_id=asked.user_id,
            top_k=LOOKED_AT,
        )
        return [hit.item for hit in self._retriever.search(request).hits]


def _last_said(asked: SuggestionRequest) -> str:
    """What the conversation ends with; "" where there is none."""
    if asked.message is None:
        return ""
    turns = parse_conversation(asked.message).turns
    return turns[-1].text if turns else ""
