"""The one way by which conversations become stored memories: read, screen, index, commit, announce.

When `write` returns, every item is committed and can be recalled, in all cubes or in none. Deeper reading
(facts, preferences) follows as a `mem_read` task, or is part of the same transaction, as the caller asks.
What holds a secret or tries to give orders is stored in quarantine: kept, never recalled, and said. A turn
that is sent again (the same message id, or text, speaker and time, in its session) is not stored twice, whichever
process it comes to: what such a turn is, is its id too, so that of two that store it at once one is refused.
Files that come with the messages are read first, and stored in the same transaction (`mem_chat.documents`).
If the queue refuses the task, the memories stay and `Written.task_error` says why; reading that is due is
queued again when a scheduler starts.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID, uuid4

from memos import context, log
from memos.clock import Clock, SystemClock
from memos.errors import DocumentUnsupported, InvalidInput, QueueError, VersionConflict
from memos.mem_chat.documents import DocumentDrafter, Prepared, Progress, Settled, StoredDocument
from memos.mem_scheduler.change_logs import tell_capacity
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import ADD_TASK_LABEL, MEM_READ_TASK_LABEL
from memos.mem_scheduler.unread import unread
from memos.mem_scheduler.web_log import LogSink
from memos.memory.document_items import ReadDocument
from memos.memory.extract import derive
from memos.memory.hygiene import TOKENS_MAX, Action, check
from memos.memory.intake import DocumentIntake
from memos.memory.item import ItemStatus, MemoryItem, ReadState
from memos.memory.learning import Extractor, Learned, Learner
from memos.memory.reader import MemReader, Reading
from memos.memory.store import AddItems, Cause, Change, IndexedItem, ItemFilter, MemoryStore
from memos.memory.turns import Conversation, Skipped, parse_conversation

if TYPE_CHECKING:
    from memos.documents.sandbox import Sandbox
    from memos.memory.indexer import Indexer

CONFLICT_TRIES = 3
_LOCKS = 64
logger = log.get_logger(__name__)

ReadWhen = Literal["never", "later", "now"]


class Submitter(Protocol):
    """What the writer and the chat need of a scheduler."""

    def submit_messages(self, messages: list[ScheduleMessageItem]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Held:
    """An item in quarantine, the place of its message, and why."""

    item: MemoryItem
    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """What one `write` stored, cube after cube in the order of the turns."""

    items: tuple[MemoryItem, ...]  # turns that can be recalled, those that were there already included
    skipped: tuple[Skipped, ...] = ()
    seqs: Mapping[str, int] = field(default_factory=dict)
    archived: tuple[str, ...] = ()  # what capacity pushed out
    task_error: str = ""  # why the task that follows is not queued
    quarantined: tuple[Held, ...] = ()
    derived: tuple[MemoryItem, ...] = ()  # what was read from the turns at once
    documents: tuple[StoredDocument, ...] = ()


@dataclass(slots=True)
class _Draft:
    """What is about to be stored."""

    items: list[MemoryItem] = field(default_factory=list)  # new ones that can be recalled
    answer: list[MemoryItem] = field(default_factory=list)  # those and the ones that were there already
    held: list[Held] = field(default_factory=list)
    skipped: dict[Skipped, None] = field(default_factory=dict)
    indexed: list[IndexedItem] = field(default_factory=list)
    learned: list[Learned] = field(default_factory=list)
    documents: list[Settled] = field(default_factory=list)
    named: bool = False  # whether an id is the turn's own


class ConversationWriter:
    """Stores conversations. Thread-safe; two writes to one cube take turns, so places in a session rise."""

    def __init__(
        self,
        *,
        store: MemoryStore,
        indexer: Indexer,
        reader: MemReader,
        scheduler: Submitter,
        new_id: Callable[[], str] = lambda: str(uuid4()),
        clock: Clock | None = None,
        extract: Extractor = derive,
        tokens_max: int = TOKENS_MAX,
        sink: LogSink | None = None,
        intake: DocumentIntake | None = None,
    ) -> None:
        self._store = store
        self._intake = intake
        self._drafter = DocumentDrafter(store, indexer, clock or SystemClock(), tokens_max=tokens_max)
        self._sink = sink
        self._indexer = indexer
        self._reader = reader
        self._scheduler = scheduler
        self._new_id = new_id
        self._tokens_max = tokens_max
        self._learner = Learner(
            store, indexer, clock or SystemClock(), extract=extract, new_id=new_id, tokens_max=tokens_max
        )
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def write(
        self,
        messages: str | Sequence[Mapping[str, Any]] | Conversation,
        *,
        user_id: str,
        cube_ids: Sequence[str],
        session_id: str = "",
        turn_id: str = "",
        task_id: str | None = None,
        user_name: str = "",
        source_type: str = "chat",
        info: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        reason: str = "added",
        read: ReadWhen = "never",
        sandbox: Sandbox | None = None,
        progress: Progress | None = None,
    ) -> Written:
        """Store `messages` and their files in each cube. Raises InvalidInput (DocumentError for a file),
        StoreError; then nothing is stored.

        read: whether facts and preferences are read from the turns: never, later by a `mem_read` task, or
        now, in the same transaction (what the extractor raises then comes out here). sandbox: where to
        read the files, for a caller who brings many.
        """
        conversation = messages if isinstance(messages, Conversation) else parse_conversation(messages)
        reads, passed = self._read_files(conversation, sandbox)
        prepared = self._drafter.prepare(
            reads,
            cube_ids=cube_ids,
            user_id=user_id,
            session_id=session_id,
            turn_id=turn_id,
            info=info,
            tags=tags,
            due=_STATE[read],
            progress=progress,
        )

        def reading_of(cube_id: str) -> Reading:
            if not conversation.turns and conversation.attachments:
                return Reading((), conversation.skipped)
            return self._reader.read_messages(
                conversation,
                user_id=user_id,
                cube_id=cube_id,
                session_id=session_id,
                turn_id=turn_id,
                user_name=user_name,
                first_position=self._next_position(cube_id, session_id),
                source_type=source_type,
                info=info,
                tags=tags,
            )

        cause = Cause(
            task_id=task_id or "", label=ADD_TASK_LABEL, trace_id=context.current_trace_id(), user_id=user_id
        )
        with ExitStack() as held:
            # In one order everywhere, so that two writes over the same cubes cannot wait for each other.
            for slot in sorted({hash(cube_id) % _LOCKS for cube_id in cube_ids}):
                held.enter_context(self._locks[slot])
            for left in reversed(range(CONFLICT_TRIES)):
                draft = _Draft(skipped=dict.fromkeys(passed))
                for cube_id in cube_ids:
                    # In the end under any id: the turn's own may be that of one that was deleted.
                    self._draft(
                        draft, conversation, reading_of(cube_id), cube_id, read, prepared, named=left > 0
                    )
                try:
                    applied = self._store.apply(_changes(draft, reason), cause=cause)
                    break
                except VersionConflict:  # a fact changed since it was looked at, or a turn was stored
                    if not left:
                        raise
                except InvalidInput:  # another process stored the same document or turn a moment ago
                    if not left or not (draft.named or any(one.indexed for one in draft.documents)):
                        raise
        tell_capacity(self._store, applied.archived, cause=cause, sink=self._sink)
        derived = tuple(item for one in draft.learned for item in one.added if item.live)
        tasks = self._tasks(draft, derived, cube_ids, user_id, session_id, task_id, user_name, read)
        return Written(
            items=tuple(draft.answer),
            skipped=tuple(draft.skipped),
            seqs=dict(applied.seqs) or {cube_id: self._store.seq(cube_id) for cube_id in cube_ids},
            archived=applied.archived,
            task_error=self._announce(tasks),
            quarantined=tuple(draft.held),
            derived=derived,
            documents=tuple(one.document for one in draft.documents),
        )

    def sandbox(self) -> Sandbox | None:
        """A process to read the files of several writes in; close it."""
        return None if self._intake is None else self._intake.sandbox()

    # -- what is stored --------------------------------------------------------------------------------

    def _read_files(
        self, conversation: Conversation, sandbox: Sandbox | None
    ) -> tuple[list[ReadDocument], list[Skipped]]:
        """The files of the conversation, read; and those that were passed over."""
        if self._intake is None:
            return [], [
                Skipped(one.index, f"{one.name}: no files are read here") for one in conversation.attachments
            ]
        reads, passed = self._intake.read(conversation.attachments, sandbox=sandbox)
        if passed and not reads and not conversation.turns:
            raise DocumentUnsupported("; ".join(reason for _, reason in passed))
        return reads, [Skipped(one.index, reason) for one, reason in passed]

    def _draft(
        self,
        draft: _Draft,
        conversation: Conversation,
        reading: Reading,
        cube_id: str,
        read: ReadWhen,
        prepared: Sequence[Prepared],
        *,
        named: bool,
    ) -> None:
        """Screen the turns of one cube, index the new ones and read them where that is wanted at once."""
        draft.skipped.update(dict.fromkeys(reading.skipped))
        ids_given = {turn.message_id for turn in conversation.turns if turn.message_id}
        known = self._known(ids_given, reading.items)
        fresh: list[MemoryItem] = []
        for item, index in zip(reading.items, reading.indexes, strict=True):
            twin = known.get(item.id)
            if twin is not None:
                if twin.status is ItemStatus.QUARANTINED:
                    draft.held.append(Held(twin, index, "it is in quarantine already"))
                else:
                    draft.answer.append(twin)
                draft.skipped[Skipped(index, f"it is stored already as {twin.id}")] = None
                continue
            if named and _is_told(item, ids_given):
                item = replace(item, id=_own_id(item, ids_given))
                draft.named = True
            verdict = check(item, tokens_max=self._tokens_max)
            if verdict.action is Action.QUARANTINE:
                due = ReadState.NONE if read == "never" else ReadState.DUE
                item = replace(item, status=ItemStatus.QUARANTINED, read=due)
                draft.held.append(Held(item, index, verdict.reason))
            else:
                item = replace(item, read=_STATE[read])
                draft.items.append(item)
                draft.answer.append(item)
            fresh.append(item)
        indexed = self._index(cube_id, fresh)
        for one in prepared:
            if one.cube_id == cube_id:
                settled = self._drafter.settle(one)
                draft.documents.append(settled)
                _take(draft, settled)
                indexed += settled.indexed
        draft.indexed += indexed
        if read == "now":
            raw = [one.item for one in indexed if one.item.live]
            draft.learned.append(self._learner.read(cube_id, raw, stored=False))

    def _known(self, named: Set[str], items: Sequence[MemoryItem]) -> dict[str, MemoryItem]:
        """New item -> the stored turn that it is once more: a call that was sent again. `named`: the message
        ids that the caller gave."""
        told = [item for item in items if _is_told(item, named)]
        if not told:
            return {}
        wanted = ItemFilter(
            cube_ids=(told[0].cube_id,),
            user_ids=(told[0].user_id,),
            session_ids=(told[0].session_id,),
            content_hashes=tuple({item.content_hash for item in told}),
            raw=True,
            statuses=_KEPT,
        )
        stored = self._store.find(wanted, limit=_REPEATS_MAX).items
        by_name = {_name_key(one): one for one in stored if one.sources}
        by_time = {_time_key(one): one for one in stored if one.happened_at}
        found: dict[str, MemoryItem] = {}
        for item in told:
            if item.sources[0].message_id in named:
                twin = by_name.get(_name_key(item))
            else:
                twin = by_time.get(_time_key(item))
            if twin is not None:
                found[item.id] = twin
        return found

    def _index(self, cube_id: str, items: Sequence[MemoryItem]) -> list[IndexedItem]:
        with self._store.read(cube_id) as view:
            known = view.participants()
        speakers = known.union(*(item.participants for item in items))
        return list(self._indexer.index(list(items), participants=speakers))

    def _next_position(self, cube_id: str, session_id: str) -> int:
        wanted = ItemFilter(cube_ids=(cube_id,), session_ids=(session_id,), statuses=_KEPT, raw=True)
        newest = self._store.find(wanted, limit=1).items
        return newest[0].position + 1 if newest else 0

    # -- what follows ----------------------------------------------------------------------------------

    def _tasks(
        self,
        draft: _Draft,
        derived: Sequence[MemoryItem],
        cube_ids: Sequence[str],
        user_id: str,
        session_id: str,
        task_id: str | None,
        user_name: str,
        read: ReadWhen,
    ) -> list[ScheduleMessageItem]:
        """The messages that follow: what to read, else what to tell."""

        def message(label: str, cube_id: str, content: str, item_id: str) -> ScheduleMessageItem:
            return ScheduleMessageItem(
                item_id=item_id,
                user_id=user_id,
                mem_cube_id=cube_id,
                session_id=session_id,
                label=label,
                content=content,
                user_name=user_name,
                task_id=task_id,
                api_path=context.api_path.get() or None,
            )

        if read == "later":
            return [
                message(MEM_READ_TASK_LABEL, one.cube_id, one.content, one.item_id)
                for one in unread(draft.items)
            ]
        stored = [*draft.items, *derived]
        ids = {cube_id: [item.id for item in stored if item.cube_id == cube_id] for cube_id in cube_ids}
        return [
            message(ADD_TASK_LABEL, cube_id, json.dumps(of_cube), self._new_id())
            for cube_id, of_cube in ids.items()
            if of_cube
        ]

    def _announce(self, tasks: list[ScheduleMessageItem]) -> str:
        if not tasks:
            return ""
        try:
            self._scheduler.submit_messages(tasks)
        except QueueError as error:  # the memories are stored: what is late is their reading, or their log
            logger.warning("writer.task_refused", error=str(error), cubes=len(tasks))
            return str(error)
        return ""


_KEPT = (ItemStatus.ACTIVATED, ItemStatus.RESOLVING, ItemStatus.ARCHIVED, ItemStatus.QUARANTINED)
_STATE: Mapping[ReadWhen, ReadState] = {
    "never": ReadState.NONE,
    "later": ReadState.DUE,
    "now": ReadState.DONE,
}
_REPEATS_MAX = 10_000


def _changes(draft: _Draft, reason: str) -> list[Change]:
    changes: list[Change] = []
    reasons = {one.item.id: one.reason for one in draft.held}
    live = tuple(one for one in draft.indexed if one.item.id not in reasons)
    if live:
        changes.append(AddItems(live, reason=reason))
    for one in draft.indexed:
        if one.item.id in reasons:
            changes.append(AddItems((one,), reason=f"quarantined: {reasons[one.item.id]}"))
    for learned in draft.learned:
        changes += learned.changes
    changes += [one.archive for one in draft.documents if one.archive is not None]
    return changes


def _take(draft: _Draft, settled: Settled) -> None:
    """What a document adds to what is told of the write."""
    held = {item.id for item, _ in settled.held}
    draft.held += [Held(item, settled.index, reason) for item, reason in settled.held]
    new = [one.item for one in settled.indexed if one.item.id not in held]
    draft.items += new
    draft.answer += [*settled.there, *new]
    if settled.there:
        document = settled.document
        reason = f"{document.name} is stored already as {document.file_id}"
        draft.skipped[Skipped(settled.index, reason)] = None


def _is_told(item: MemoryItem, named: Set[str]) -> bool:
    """Whether a turn can be told from another one that says the same: by its message id, or by its time."""
    return bool(item.happened_at) or item.sources[0].message_id in named


def _own_id(item: MemoryItem, named: Set[str]) -> str:
    """The id that every process gives to this turn."""
    key = _name_key(item) if item.sources[0].message_id in named else _time_key(item)
    where = (item.cube_id, item.user_id, item.session_id)
    text = json.dumps([*where, *key, item.extra.get("part")], default=str, ensure_ascii=False)
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
    return str(UUID(bytes=digest, version=5))


def _name_key(item: MemoryItem) -> tuple[object, ...]:
    return item.sources[0].message_id, item.content_hash, item.role, item.turn_id


def _time_key(item: MemoryItem) -> tuple[object, ...]:
    return item.happened_at, item.content_hash, item.role, item.participants, item.turn_id
