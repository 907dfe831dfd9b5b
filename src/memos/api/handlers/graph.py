"""GraphHandler: what a cube holds as nodes and edges, and as a tree, for `/product/get_all`.

Nodes are memories; an edge `DERIVED_FROM` leads from a derived memory to what it was read from, `FOLLOWS`
from a turn to the one before it in its session. The tree groups by kind, then by session; a derived memory
hangs below its source where that is shown too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from memos.api import access
from memos.api.cube_models import GraphResponse
from memos.api.product_models import GetMemoryPlaygroundRequest
from memos.api.shapes import memory_shape
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.store import ItemFilter, MemoryStore
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.request import RecallRequest

SCAN_SIZE = 500
FITTING_MAX = 200
NAME_CHARS = 40


class GraphHandler:
    """Reads only."""

    def __init__(self, store: MemoryStore, retriever: HybridRetriever) -> None:
        self._store = store
        self._retriever = retriever

    def handle_get_all(self, asked: GetMemoryPlaygroundRequest) -> GraphResponse:
        """One graph a cube. Activation and parameter memory hold no nodes. Raises AccessDenied."""
        cubes = tuple(asked.mem_cube_ids or [asked.user_id])
        access.may_read(users=[asked.user_id], cubes=cubes)
        if asked.memory_type != "text_mem":
            message = f"{asked.memory_type} holds no memories that could be shown as a graph"
            return GraphResponse(message=message, data=[])
        graphs = []
        warnings: dict[str, None] = {}
        for cube_id in cubes:
            items = self._fitting(asked, cube_id, warnings) if asked.search_query else self._all(cube_id)
            graphs.append(
                {
                    "cube_id": cube_id,
                    "memories": [_graph(items)],
                    "memory_statistics": dict(Counter(item.kind.value for item in items)),
                }
            )
        return GraphResponse(message="Memories retrieved successfully", data=graphs, warnings=list(warnings))

    def _all(self, cube_id: str) -> list[MemoryItem]:
        found: list[MemoryItem] = []
        cursor: str | None = None
        while True:
            page = self._store.find(ItemFilter(cube_ids=(cube_id,)), limit=SCAN_SIZE, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found

    def _fitting(
        self, asked: GetMemoryPlaygroundRequest, cube_id: str, warnings: dict[str, None]
    ) -> list[MemoryItem]:
        by_words = RecallRequest(
            query=asked.search_query or "",
            cube_ids=(cube_id,),
            user_id=asked.user_id,
            top_k=FITTING_MAX,
            dedup="no",
            stages=("lexical",),
        )
        by_meaning = replace(by_words, stages=("dense",))
        recall = self._retriever.search(by_meaning if asked.search_type == "embedding" else by_words)
        if recall.degraded:  # without vectors nothing is found by meaning
            recall = replace(self._retriever.search(by_words), degraded=recall.degraded)
        warnings.update(dict.fromkeys(recall.degraded))
        return [hit.item for hit in recall.hits]


def _graph(items: Sequence[MemoryItem]) -> dict[str, Any]:
    shown = {item.id: item for item in items}
    parents = {item.id: _sources(item, shown) for item in items}
    edges = [
        {"source": child, "target": parent, "type": "DERIVED_FROM"}
        for child, found in parents.items()
        for parent in found
    ]
    edges += [
        {"source": later.id, "target": earlier.id, "type": "FOLLOWS"} for earlier, later in _in_order(items)
    ]
    return {
        "nodes": [memory_shape(item) for item in items],
        "edges": edges,
        "tree_structure": _tree(items, parents),
    }


def _sources(item: MemoryItem, shown: dict[str, MemoryItem]) -> list[str]:
    ids = dict.fromkeys(source.item_id for source in item.sources)
    return [one for one in ids if one in shown and one != item.id]


def _in_order(items: Sequence[MemoryItem]) -> list[tuple[MemoryItem, MemoryItem]]:
    """Neighbours in one session, the earlier one first."""
    sessions: dict[str, list[MemoryItem]] = {}
    for item in items:
        if item.raw and item.session_id:
            sessions.setdefault(item.session_id, []).append(item)
    pairs = []
    for turns in sessions.values():
        turns.sort(key=lambda item: item.position)
        pairs += list(pairwise(turns))
    return pairs


def _tree(items: Sequence[MemoryItem], parents: dict[str, list[str]]) -> dict[str, Any]:
    nodes = {
        item.id: _node(item.id, _name(item), item.memory, item.kind.value, item.use_count) for item in items
    }
    groups: dict[str, dict[str, Any]] = {}
    sessions: dict[tuple[str, str], dict[str, Any]] = {}
    for item in items:
        kind = item.kind.value
        group = groups.setdefault(kind, _node(kind, kind, kind, kind, 0))
        if parents[item.id]:
            nodes[parents[item.id][0]]["children"].append(nodes[item.id])
        elif item.session_id:
            key = (kind, item.session_id)
            if key not in sessions:
                sessions[key] = _node(f"{kind}:{item.session_id}", item.session_id, item.session_id, kind, 0)
                group["children"].append(sessions[key])
            sessions[key]["children"].append(nodes[item.id])
        else:
            group["children"].append(nodes[item.id])
    root = _node("root", "root", "root", "Root", 0)
    root["children"] = [groups[kind.value] for kind in MemoryKind if kind.value in groups]
    return root


def _node(node_id: str, name: str, value: str, kind: str, frequency: int) -> dict[str, Any]:
    return {
        "id": node_id,
        "node_name": name,
        "value": value,
        "memory_type": kind,
        "frequency": frequency,
        "children": [],
    }


def _name(item: MemoryItem) -> str:
    text = item.key or " ".join(item.memory.split())
    return text if len(text) <= NAME_CHARS else text[: NAME_CHARS - 1] + "…"
