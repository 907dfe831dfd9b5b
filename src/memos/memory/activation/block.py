"""The memory block of a chat: what stands in working memory, in the order that keeps its beginning.

Each chat plans the block anew from what the store holds now, on top of what stood there last (`memos.memory.
activation.layout`), and stores it when it changed. No text is kept: lines are written from live items, read
after the block, so that what is deleted or corrected by then is not among them. Whoever stores first wins;
the other reads again. A store that fails costs the block its stability, never the chat its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from memos import log
from memos.errors import StoreError, VersionConflict
from memos.memory.activation.base import Entry, Layout
from memos.memory.activation.index import Block, BlockIndex
from memos.memory.activation.layout import SLACK, Plan, Wanted, digest_of, namespace_of, plan
from memos.memory.activation.lines import line_of, marked
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.store import ItemFilter, MemoryStore
from memos.memory.token_count import count_tokens
from memos.prompts import Language, load
from memos.retrieval.corrected import corrections_of, outdated_clauses

CONFLICT_TRIES = 4
MARK_TOKENS = 4  # "- m7 " before a line, and its end

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A block as one chat shows it. `items[i]` is what entry i of the layout says.

    rank: marks, most relevant first. kept: tokens (estimated) at the beginning of the layout with which the
    newest chat before this one began as well; 0 for the first one.
    """

    block: Block
    layout: Layout
    items: tuple[MemoryItem, ...]
    rank: tuple[int, ...]
    marks: Mapping[str, int]
    kept: int

    @property
    def tokens(self) -> int:
        """Of the whole layout, estimated."""
        return count_tokens(self.layout.header) + sum(one.tokens for one in self.block.state.residents)


class MemoryBlocks:
    """Blocks of all readers. Thread-safe.

    tokens_max: of the lines of a block together. slack: see `layout.plan`.
    """

    def __init__(
        self, index: BlockIndex, store: MemoryStore, *, tokens_max: int, slack: float = SLACK
    ) -> None:
        self._index = index
        self._store = store
        self._tokens_max = tokens_max
        self._slack = slack

    @property
    def index(self) -> BlockIndex:
        """Where blocks are kept."""
        return self._index

    def namespace(self, reader: str, cube_ids: Sequence[str]) -> str:
        """Of the block that this reader has of these cubes."""
        return namespace_of(reader, cube_ids, salt=self._store.store_id)

    def prepare(
        self,
        reader: str,
        cube_ids: Sequence[str],
        working: Sequence[MemoryItem],
        *,
        language: Language,
        system_prompt: str | None,
    ) -> Prepared:
        """The block with all of `working` (most relevant first), stored where it changed.

        language: of a block that is made now; one that is there keeps its own. system_prompt None: the one of
        the newest chat.
        """
        namespace = self.namespace(reader, cube_ids)
        for left in reversed(range(CONFLICT_TRIES)):
            block = self._read(namespace) or Block(namespace, reader, tuple(cube_ids), language)
            planned = self._planned(block, working, system_prompt)
            if block.version and planned.block == block:
                return planned
            try:
                stored = self._index.put_block(planned.block)
            except VersionConflict:
                if left:
                    continue
                logger.warning("activation.block_contended", namespace=namespace)
                return planned
            except StoreError as error:
                logger.warning("activation.block_not_stored", error=str(error), kind=type(error).__name__)
                return planned
            if len(stored.state.residents) == len(planned.items):
                return replace(planned, block=stored)
            # A memory went or changed between reading and storing: plan the block with what stands there now.
            live = self._live([one.id for one in working], cube_ids)
            working = [live[one.id] for one in working if one.id in live]
        return planned

    def _read(self, namespace: str) -> Block | None:
        try:
            return self._index.block(namespace)
        except StoreError as error:
            logger.warning("activation.block_not_read", error=str(error), kind=type(error).__name__)
            return None

    def _planned(self, block: Block, working: Sequence[MemoryItem], system_prompt: str | None) -> Prepared:
        language: Language = "zh" if block.language == "zh" else "en"
        header = (
            block.header
            if system_prompt is None and block.header
            else header_of(system_prompt or "", language)
        )
        items = {one.id: one for one in working if shown(one)}
        absent = [one.item_id for one in block.state.residents if one.item_id not in items]
        rest = self._live(absent, block.cube_ids)
        lines = {item_id: line_of(item) for item_id, item in (items | rest).items()}
        wanted = [
            Wanted(one.id, one.version, count_tokens(lines[one.id]) + MARK_TOKENS, digest_of(lines[one.id]))
            for one in items.values()
        ]
        done: Plan = plan(
            block.state,
            wanted,
            standing={item_id: digest_of(lines[item_id]) for item_id in rest},
            slack=self._slack,
            tokens_max=self._tokens_max,
        )
        residents = done.state.residents
        entries = tuple(
            Entry(one.item_id, one.version, marked(one.mark, lines[one.item_id])) for one in residents
        )
        kept = residents[: min(done.kept, block.unbroken)]
        same = bool(block.chats) and block.header == header
        following = replace(block, header=header, state=done.state, unbroken=len(residents))
        if following != block and block.version:
            before = sum(one.tokens for one in kept)
            share = before / done.tokens if done.tokens else 1.0
            following = replace(following, counts=replace(block.counts, update_reuse=round(share, 4)))
        everything = items | rest
        return Prepared(
            block=following,
            layout=Layout(block.namespace, header, entries),
            items=tuple(everything[one.item_id] for one in residents),
            rank=done.rank,
            marks={one.item_id: one.mark for one in residents},
            kept=count_tokens(header) + sum(one.tokens for one in kept) if same else 0,
        )

    def _live(self, item_ids: Sequence[str], cube_ids: Sequence[str]) -> dict[str, MemoryItem]:
        """Those of the residents without a place in working memory that may still be shown."""
        if not item_ids:
            return {}
        page = self._store.find(
            ItemFilter(cube_ids=tuple(cube_ids), ids=tuple(item_ids)), limit=len(item_ids)
        )
        return {one.id: one for one in page.items if shown(one)}


def shown(item: MemoryItem) -> bool:
    """Whether an item may stand in a block: live, not contradicted; preferences stand with the question."""
    return (
        item.live
        and item.kind is not MemoryKind.PREFERENCE
        and not corrections_of(item)
        and not outdated_clauses(item)
    )


def header_of(system_prompt: str, language: Language) -> str:
    """What stands before the memories: the caller's text and the rules, line-ended."""
    rules = load("chat_answer", language).template.strip()
    return (f"{system_prompt.strip()}\n\n{rules}" if system_prompt.strip() else rules) + "\n"
