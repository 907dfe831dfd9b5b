"""MemChat: one conversation turn out of memory, as a stream of typed events.

One path for every endpoint: recall, hand the question to the scheduler, answer (by the language model,
else by quoting memory, and the stream says which), hand over the answer, store the turn. What this turn
itself stores carries its `turn_id`, by which recall and the scheduler's tasks leave it out. A turn whose
reader goes away in the middle is not stored: nobody got its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from memos import context, log
from memos.clock import Clock, SystemClock, utc
from memos.errors import BadCompletion, MemosError, ModelError, QueueError
from memos.mem_chat.events import (
    ChatEvent,
    End,
    Failure,
    Preference,
    Reasoning,
    Reference,
    Reused,
    Status,
    Suggestion,
    Text,
    Time,
)
from memos.mem_chat.outdated import live_successors, still_holding, with_marks
from memos.mem_chat.prefixes import PrefixChat, Sampling
from memos.mem_chat.prompt import BLOCK_SHARE, language_of, preference_markdown, prompt_of, suggestions
from memos.mem_chat.prompt import TOKENS_MAX as PROMPT_TOKENS_MAX
from memos.mem_chat.thinking import split_thinking
from memos.mem_chat.writer import ConversationWriter, Submitter
from memos.mem_scheduler.handlers.answer import quoted
from memos.mem_scheduler.schemas.message_schemas import TURN_ID, ScheduleMessageItem
from memos.mem_scheduler.schemas.task_schemas import ANSWER_TASK_LABEL, QUERY_TASK_LABEL
from memos.mem_scheduler.web_log import CubeFacts, LogSink, activation_log
from memos.memory.activation.base import ActivationBackend
from memos.memory.activation.block import MemoryBlocks, Prepared
from memos.memory.activation.index import ChatReuse
from memos.memory.activation.promotion import TTL_S
from memos.memory.activation.volatile import index_of
from memos.memory.extract import derive
from memos.memory.hygiene import TOKENS_MAX
from memos.memory.intake import DocumentIntake
from memos.memory.item import MemoryKind
from memos.memory.learning import Extractor
from memos.memory.reader import MemReader
from memos.memory.store import ItemFilter, MemoryStore
from memos.memory.turns import Conversation, Turn
from memos.models.base import LLM, ChatMessage
from memos.models.extractive import MARK, Evidence, ExtractiveAnswerer
from memos.retrieval.corrected import corrections_of
from memos.retrieval.filters import ParsedFilter
from memos.retrieval.request import Hit, Recall, RecallRequest

if TYPE_CHECKING:
    from memos.memory.indexer import Indexer
    from memos.retrieval.hybrid import HybridRetriever

FIRST_REFERENCES_MAX = 5
REFERENCES_MAX = 50

logger = log.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChatQuery:
    """One question. `model` names a model the caller wants; None: the configured one."""

    user_id: str
    query: str
    readable_cube_ids: tuple[str, ...]
    writable_cube_ids: tuple[str, ...]
    session_id: str = ""
    history: tuple[ChatMessage, ...] = ()
    system_prompt: str = ""
    top_k: int = 10
    relativity: float = 0.0
    filter: ParsedFilter | None = None
    include_preference: bool = True
    pref_top_k: int = 6
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None  # of this answer; None: as the model is configured
    top_p: float | None = None
    remarks: tuple[str, ...] = ()  # what the caller has to be told before the answer
    add_message_on_answer: bool = True


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A turn answered in one piece."""

    response: str
    reasoning: str
    memory_ids: tuple[str, ...] = ()
    reused: Reused | None = None  # None: no model answered


@dataclass(slots=True)
class _Turn:
    """What one turn has gathered so far."""

    query: ChatQuery
    turn_id: str
    trace_id: str
    answered_by: str = MARK
    answer: str = ""
    used: tuple[str, ...] = ()
    reused: Reused | None = None


class MemChat:
    """Answers questions. Thread-safe; keeps nothing between turns."""

    def __init__(
        self,
        *,
        store: MemoryStore,
        indexer: Indexer,
        retriever: HybridRetriever,
        reader: MemReader,
        scheduler: Submitter,
        answerer: ExtractiveAnswerer,
        llm: LLM | None = None,
        llms: Mapping[str, LLM] | None = None,
        clock: Clock | None = None,
        new_id: Callable[[], str] = lambda: str(uuid4()),
        extract: Extractor = derive,
        item_tokens_max: int = TOKENS_MAX,
        sink: LogSink | None = None,
        prompt_tokens_max: int = PROMPT_TOKENS_MAX,
        intake: DocumentIntake | None = None,
        blocks: MemoryBlocks | None = None,
        backend_of: Callable[[LLM], ActivationBackend | None] = lambda llm: None,
        prefix_ttl_s: float = TTL_S,
    ) -> None:
        """`backend_of` gives what keeps prefixes for a model; None: nothing does. prefix_ttl_s: see `PrefixChat`."""
        self._prompt_tokens_max = prompt_tokens_max
        self._clock = clock or SystemClock()
        self._blocks = blocks or MemoryBlocks(
            index_of(store, self._clock), store, tokens_max=int(prompt_tokens_max * BLOCK_SHARE)
        )
        self._backend_of = backend_of
        self._prefixes = PrefixChat(self._blocks.index, store, clock=self._clock, ttl_s=prefix_ttl_s)
        self._sink = sink
        self._store = store
        self._retriever = retriever
        self._scheduler = scheduler
        self._answerer = answerer
        self._llm = llm
        self._llms = dict(llms or {})  # what a query may ask for by name
        self._new_id = new_id
        self.writer = ConversationWriter(
            store=store,
            indexer=indexer,
            reader=reader,
            scheduler=scheduler,
            new_id=new_id,
            clock=self._clock,
            extract=extract,
            tokens_max=item_tokens_max,
            sink=sink,
            intake=intake,
        )

    def stream(self, query: ChatQuery) -> Generator[ChatEvent]:
        """The events of one turn. Never raises: a failure is an event, and End is always last."""
        turn = _Turn(query, self._new_id(), context.current_trace_id())
        try:
            yield from self._run(turn)
        except MemosError as error:
            logger.warning("chat.failed", error=str(error), kind=type(error).__name__)
            yield Failure(str(error), turn.trace_id)
        except Exception as error:  # the stream has begun: a frame is the only way left to tell the reader
            logger.error("chat.failed", kind=type(error).__name__, exc_info=True)
            yield Failure("internal error; the log has the cause under this trace", turn.trace_id)
        yield End()

    def answer(self, query: ChatQuery) -> ChatAnswer:
        """The same turn in one piece. Raises what goes wrong, as MemosError where it is ours."""
        turn = _Turn(query, self._new_id(), context.current_trace_id())
        reasons = [event.text for event in self._run(turn) if isinstance(event, Reasoning)]
        return ChatAnswer(turn.answer, "".join(reasons), turn.used, turn.reused)

    # -- one turn ---------------------------------------------------------------------------------------

    def _run(self, turn: _Turn) -> Iterator[ChatEvent]:
        started = self._clock.monotonic()
        query = turn.query
        yield Status("0")
        yield Status("1")
        recall = self._recall(query, turn.turn_id)
        yield Reference(tuple(recall.hits[:FIRST_REFERENCES_MAX]))
        refused = self._submit(turn, QUERY_TASK_LABEL, query.query)
        preferences = self._preferences(query)
        yield Preference(preference_markdown(preferences, query.query))
        working = self._working(query, recall.hits)
        yield Reference((*recall.hits, *working)[:REFERENCES_MAX])
        remarks = [refused] if refused else []
        remarks += recall.degraded
        remarks += query.remarks
        hits = tuple(recall.hits[: query.top_k])
        yield from self._answer(turn, hits, working, preferences, remarks)
        self._finish(turn)
        if turn.reused is not None:
            yield turn.reused
        yield Time(self._clock.monotonic() - started)
        yield Suggestion(suggestions(query.query, recall.hits))

    def _recall(self, query: ChatQuery, turn_id: str) -> Recall:
        return self._retriever.search(
            RecallRequest(
                query=query.query,
                cube_ids=query.readable_cube_ids,
                user_id=query.user_id,
                top_k=max(query.top_k, REFERENCES_MAX),
                relativity=query.relativity,
                session_id=query.session_id,
                filter=query.filter.wanted if query.filter else None,
                predicate=query.filter.predicate if query.filter else None,
                exclude_turn_ids=frozenset({turn_id}),
            )
        )

    def _preferences(self, query: ChatQuery) -> tuple[Hit, ...]:
        if not query.include_preference or query.pref_top_k < 1:
            return ()
        cubes = tuple(c for c in query.readable_cube_ids if self._store.sizes(c).preference)
        if not cubes:
            return ()
        recall = self._retriever.search(
            RecallRequest(
                query=query.query,
                cube_ids=cubes,
                user_id=query.user_id,
                top_k=query.pref_top_k,
                kinds=(MemoryKind.PREFERENCE,),
                filter=ItemFilter().of_user(query.user_id),
            )
        )
        return tuple(recall.hits)

    def _working(self, query: ChatQuery, recalled: Sequence[Hit]) -> tuple[Hit, ...]:
        """What stands in working memory and was not recalled. A query with a filter gets only what passes it."""
        if query.filter is not None:
            return ()
        known = {hit.item.id for hit in recalled}
        sets = (self._store.working(cube_id) for cube_id in query.readable_cube_ids)
        return tuple(
            Hit(item, entry.score, 0.0)
            for working in sets
            for entry, item in zip(working.entries, working.items, strict=True)
            if item.id not in known
            and item.kind is not MemoryKind.PREFERENCE
            and not known.intersection(corrections_of(item))
        )

    def _answer(
        self,
        turn: _Turn,
        hits: tuple[Hit, ...],
        working: tuple[Hit, ...],
        preferences: tuple[Hit, ...],
        remarks: list[str],
    ) -> Iterator[ChatEvent]:
        wanted = turn.query.model
        llm = self._llms.get(wanted, self._llm) if wanted else self._llm
        if wanted and wanted not in self._llms and (llm is None or wanted != llm.name):
            remarks.append(f"the model {wanted!r} is not configured here")
        if llm is not None:
            try:
                yield from self._ask_model(llm, turn, hits, working, preferences, remarks)
                return
            except ModelError as error:
                logger.warning("chat.model_failed", model=llm.name, error=str(error))
                broken = "broke off in its answer" if turn.answer else "failed"
                then = "what follows is from memory" if turn.answer else "answering from memory instead"
                remarks = [f"the model {llm.name!r} {broken} ({error}); {then}"]
        yield from self._quote(turn, hits, remarks)

    def _ask_model(
        self,
        llm: LLM,
        turn: _Turn,
        hits: tuple[Hit, ...],
        working: tuple[Hit, ...],
        preferences: tuple[Hit, ...],
        remarks: list[str],
    ) -> Iterator[ChatEvent]:
        query = turn.query
        block = self._block(query)
        told = (*hits, *working)
        prompt = prompt_of(
            query,
            with_marks(told, live_successors(self._store, told)),
            preferences,
            today=utc(self._clock.now()),
            tokens_max=self._prompt_tokens_max,
            block=block,
        )
        remarks = [*remarks, *prompt.left_out]
        reasoning = bool(remarks)
        if remarks:
            yield Status("reasoning")
            yield Reasoning(_lines(remarks) + "\n")
        outcome: list[ChatReuse] = []
        pieces = self._prefixes.answer(
            llm,
            self._backend_of(llm),
            prompt.layout,
            prompt.messages[1:],
            block,
            Sampling(query.max_tokens, query.temperature, query.top_p),
            told=outcome.append,
            failed=lambda reason, detail: self._tell_failure(turn, reason, detail),
        )
        for is_reasoning, text in split_thinking(pieces):
            if is_reasoning and not turn.answer:
                if not reasoning:
                    yield Status("reasoning")
                    reasoning = True
                yield Reasoning(text)
                continue
            if reasoning and not turn.answer:
                yield Status("2")
            turn.answer += text
            yield Text(text)
        if not turn.answer.strip():
            raise BadCompletion("the model gave an empty answer", turn.answer)
        turn.answered_by = llm.name
        turn.used = tuple(item.id for item in quoted(turn.answer, prompt.memories))
        for one in outcome:
            turn.reused = Reused(one.predicted, one.reused, one.prompt, str(one.reason))
            if block is not None:
                self._note(block.layout.namespace, one)

    def _block(self, query: ChatQuery) -> Prepared | None:
        """What stands in working memory, as the block of this reader. A query with a filter gets none: what
        passes its filter is recalled for it."""
        if query.filter is not None:
            return None
        sets = [self._store.working(cube_id) for cube_id in query.readable_cube_ids]
        return self._blocks.prepare(
            query.user_id,
            query.readable_cube_ids,
            [item for working in sets for item in working.items],
            language=language_of(query.query),
            system_prompt=query.system_prompt,
        )

    def _note(self, namespace: str, outcome: ChatReuse) -> None:
        try:
            self._blocks.index.note_chat(namespace, outcome)
        except MemosError as error:  # a count: the answer does not depend on it
            logger.warning("activation.count_failed", error=str(error), kind=type(error).__name__)

    def _tell_failure(self, turn: _Turn, reason: str, detail: str) -> None:
        """A kept prefix could not be used: for people to see, beside metrics and the process's log."""
        query = turn.query
        told = ScheduleMessageItem(
            user_id=query.user_id,
            mem_cube_id=query.readable_cube_ids[0],
            label=QUERY_TASK_LABEL,
            content="",
            trace_id=turn.trace_id,
        )
        facts = CubeFacts(self._store.sizes(told.mem_cube_id), self._store.capacities)
        entry = activation_log(
            told, (), status="failed", text=f"a kept prefix was not used: {detail}", facts=facts
        )
        try:
            self._store.apply([], logs=[entry])
        except MemosError as error:
            logger.warning("activation.log_failed", error=str(error), kind=type(error).__name__)
        if self._sink is not None:
            self._sink.emit([entry])

    def _quote(self, turn: _Turn, hits: tuple[Hit, ...], remarks: list[str]) -> Iterator[ChatEvent]:
        shown = {hit.item.id for hit in hits}
        successors = live_successors(self._store, hits)
        evidence = [
            _evidence(hit, text, asker=turn.query.user_id)
            for hit in hits
            if not _is_quotation(hit)
            and not shown.intersection(corrections_of(hit.item))
            and (text := still_holding(hit.item, successors))
        ]
        answer = self._answerer.answer(turn.query.query, evidence)
        if self._llm is None:
            remarks = ["no language model is configured: the answer is quoted from memory", *remarks]
        remarks.append(f"{len(hits)} memories were recalled, {len(answer.used)} are quoted")
        yield Status("reasoning")
        yield Reasoning(_lines(remarks))
        yield Status("2")
        for number, line in enumerate(answer.lines):
            text = "\n" + line if number else line
            if turn.answer and not number:  # after what a model had begun to say
                text = "\n\n" + line
            turn.answer += text
            yield Text(text)
        turn.answered_by = MARK
        turn.used = answer.used

    # -- what a turn leaves behind ----------------------------------------------------------------------

    def _finish(self, turn: _Turn) -> None:
        query = turn.query
        self._submit(turn, ANSWER_TASK_LABEL, turn.answer)
        if not query.add_message_on_answer:
            return
        now = utc(self._clock.now())
        with context.bound(trace=turn.trace_id, user=query.user_id):
            self.writer.write(
                Conversation(
                    (Turn(0, "user", query.query, at=now), Turn(1, "assistant", turn.answer, at=now))
                ),
                user_id=query.user_id,
                cube_ids=query.writable_cube_ids,
                session_id=query.session_id,
                turn_id=turn.turn_id,
                info={"answered_by": turn.answered_by},
                reason="chat turn",
                read="later",
            )

    def _submit(self, turn: _Turn, label: str, content: str) -> str:
        """Hand one message a cube to the scheduler; "" or, if the queue refuses them, why."""
        query = turn.query
        details: dict[str, Any] = {TURN_ID: turn.turn_id}
        if label == ANSWER_TASK_LABEL:
            details |= {"memory_ids": list(turn.used), "answered_by": turn.answered_by, "query": query.query}
        messages = [
            ScheduleMessageItem(
                item_id=self._new_id(),
                user_id=query.user_id,
                mem_cube_id=cube_id,
                session_id=query.session_id,
                trace_id=turn.trace_id,
                label=label,
                content=content,
                info=dict(details),
                api_path=context.api_path.get() or None,
            )
            for cube_id in query.readable_cube_ids
        ]
        try:
            self._scheduler.submit_messages(messages)
        except QueueError as error:  # the answer does not depend on it
            logger.warning("chat.task_refused", label=label, error=str(error))
            return f"the {label} task was refused by the queue ({error})"
        return ""


def _lines(remarks: Sequence[str]) -> str:
    return "; ".join(remarks)


def _is_quotation(hit: Hit) -> bool:
    """Whether an item is an answer that was itself quoted from memory."""
    return hit.item.role == "assistant" and hit.item.extra.get("answered_by") == MARK


def _evidence(hit: Hit, text: str, *, asker: str) -> Evidence:
    item = hit.item
    # Told as "you said", unless it was another user of the cube who said it.
    other = item.user_id if item.role == "user" and item.user_id != asker else ""
    return Evidence(
        id=item.id,
        text=text,
        speaker=item.participants[0] if item.participants else other,
        role=item.role,
        said_at=item.happened_at or item.created_at,
        fit=hit.relativity,
    )
