"""MemChat: the events of a turn, their order, and what a turn leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memos import context
from memos.clock import utc
from memos.errors import BadCompletion, ModelUnavailable, QueueFull, StoreUnavailable
from memos.mem_chat.chat import ChatQuery, MemChat
from memos.mem_chat.events import (
    ChatEvent,
    End,
    Failure,
    Preference,
    Reasoning,
    Reference,
    Status,
    Suggestion,
    Text,
    Time,
)
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.indexer import Indexer
from memos.memory.item import MemoryItem, MemoryKind, WorkingEntry
from memos.memory.reader import MemReader
from memos.memory.sqlite import SqliteStore
from memos.memory.store import AddItems, ItemFilter, ReplaceWorking
from memos.models.base import LLM, ChatMessage
from memos.models.extractive import MARK, ExtractiveAnswerer
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.keywords import analyse
from memos.testing import ManualClock, ScriptedLLM


class Submitted:
    """A scheduler that only keeps what it is given; `refuse` makes it refuse a label."""

    def __init__(self, refuse: str = "") -> None:
        self.messages: list[ScheduleMessageItem] = []
        self.refuse = refuse

    def submit_messages(self, messages: list[ScheduleMessageItem]) -> Any:
        if any(message.label == self.refuse for message in messages):
            raise QueueFull("the queue is full")
        self.messages += messages

    def labels(self) -> list[str]:
        return [message.label for message in self.messages]


class Wiring:
    """A chat over a real store, and everything a test wants to look at."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.store = SqliteStore(folder / "memory.db", clock=self.clock)
        self.scheduler = Submitted()
        self.indexer = Indexer(None)
        self.retriever = HybridRetriever(self.store, None, clock=self.clock)

    def chat(self, llm: LLM | None = None, **llms: LLM) -> MemChat:
        return MemChat(
            store=self.store,
            indexer=self.indexer,
            retriever=self.retriever,
            reader=MemReader(clock=self.clock),
            scheduler=self.scheduler,
            answerer=ExtractiveAnswerer(analyse),
            llm=llm,
            llms=llms,
            clock=self.clock,
        )

    def remember(self, *texts: str, kind: MemoryKind = MemoryKind.LONG_TERM, cube: str = "c") -> None:
        items = [
            MemoryItem(
                id=f"{cube}-{text}",
                cube_id=cube,
                user_id="u",
                memory=text,
                kind=kind,
                role="user",
                created_at=utc(self.clock.now()),
            )
            for text in texts
        ]
        self.store.apply([AddItems(tuple(self.indexer.index(items)))])

    def stored(self) -> list[MemoryItem]:
        return list(reversed(self.store.find(ItemFilter()).items))


@pytest.fixture
def wiring(tmp_path: Path) -> Iterator[Wiring]:
    wired = Wiring(tmp_path)
    wired.remember("My boat is called Petrel.", "Petrel lies in Harwich.")
    yield wired
    wired.store.close()


QUERY = ChatQuery(
    user_id="u", query="What is my boat called?", readable_cube_ids=("c",), writable_cube_ids=("c",)
)


NO_EMBEDDER = "no embedder: recalled by text and links\n"


def text_of(events: list[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def reasoning_of(events: list[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning))


def test_the_events_come_in_the_documented_order(wiring: Wiring) -> None:
    """Without a model: status 0, 1, references, preferences, references, the reason, text, time, end."""
    events = list(wiring.chat().stream(QUERY))
    assert [type(event) for event in events] == [
        *(Status, Status, Reference, Preference, Reference, Status, Reasoning, Status),
        *(Text, Time, Suggestion, End),
    ]
    assert [event.stage for event in events if isinstance(event, Status)] == ["0", "1", "reasoning", "2"]
    assert "Petrel" in text_of(events)
    assert "no language model is configured" in reasoning_of(events)
    [time] = [event for event in events if isinstance(event, Time)]
    assert time.speed_improvement is None and time.total_time >= 0


def test_the_first_references_are_the_best_of_all(wiring: Wiring) -> None:
    """The first reference holds at most five, the second at most fifty, in the same order."""
    wiring.remember(*(f"The boat needs repair number {n} on plank {n * 7}." for n in range(60)))
    first, second = (
        event.hits
        for event in wiring.chat().stream(replace(QUERY, query="boat repair plank"))
        if isinstance(event, Reference)
    )
    assert len(first) == 5 and first == second[:5]
    assert 5 < len(second) <= 50


def test_a_turn_hands_question_and_answer_to_the_scheduler(wiring: Wiring) -> None:
    """`query` goes out before the answer, `answer` after it; both carry the turn, the session, the trace."""
    with context.bound(trace="trace-1"):
        stream = wiring.chat().stream(replace(QUERY, session_id="s", readable_cube_ids=("c", "d")))
        for event in stream:
            if isinstance(event, Text):
                assert wiring.scheduler.labels() == ["query", "query"]
    assert wiring.scheduler.labels() == ["query", "query", "answer", "answer", "mem_read"]
    questions, answers = wiring.scheduler.messages[:2], wiring.scheduler.messages[2:4]
    assert {message.mem_cube_id for message in questions} == {"c", "d"}
    assert {message.content for message in questions} == {QUERY.query}
    assert "Petrel" in answers[0].content
    turn_ids = {(message.info or {})["turn_id"] for message in questions + answers}
    assert len(turn_ids) == 1
    assert (answers[0].info or {})["memory_ids"] == ["c-My boat is called Petrel."]
    assert {message.trace_id for message in wiring.scheduler.messages} == {"trace-1"}
    assert {message.session_id for message in wiring.scheduler.messages} == {"s"}


def test_a_turn_without_a_request_has_one_trace_of_its_own(wiring: Wiring) -> None:
    """Outside any request too, question, answer and the reading task share one fresh trace."""
    wiring.chat().answer(QUERY)
    assert wiring.scheduler.labels() == ["query", "answer", "mem_read"]
    assert len({message.trace_id for message in wiring.scheduler.messages}) == 1


def test_question_and_answer_are_stored_as_one_turn(wiring: Wiring) -> None:
    """The turn is two items in a row with one turn id, dated now, marked with who answered."""
    list(wiring.chat().stream(replace(QUERY, session_id="s")))
    question, answer = wiring.stored()[-2:]
    assert (question.memory, question.role) == (QUERY.query, "user")
    assert answer.role == "assistant" and "Petrel" in answer.memory
    assert question.turn_id == answer.turn_id != ""
    assert (question.position, answer.position) == (0, 1)
    assert question.happened_at is not None and question.happened_at.timestamp() == wiring.clock.now()
    assert answer.extra["answered_by"] == "extractive"


def test_a_turn_that_is_not_to_be_stored_is_not(wiring: Wiring) -> None:
    """With add_message_on_answer off the scheduler still hears of the turn, the store does not."""
    before = len(wiring.stored())
    list(wiring.chat().stream(replace(QUERY, add_message_on_answer=False)))
    assert len(wiring.stored()) == before
    assert wiring.scheduler.labels() == ["query", "answer"]


def test_quoted_answers_are_not_quoted_again(wiring: Wiring) -> None:
    """Asked again and again, the answer stays a quote of what was said, not of earlier answers."""
    chat = wiring.chat()
    answers = {chat.answer(QUERY).response for _ in range(4)}
    assert len(answers) == 1
    [answer] = answers
    assert answer.count("Petrel") == 1 and "“My boat is called Petrel.”" in answer


def test_an_empty_memory_admits_it(wiring: Wiring) -> None:
    """Where nothing is known the answer says so and no memory is used."""
    answer = wiring.chat().answer(replace(QUERY, readable_cube_ids=("empty",)))
    assert answer.response == "I have no memory about that."
    assert answer.memory_ids == ()


def test_a_model_answers_with_memories_dates_history_and_preferences(wiring: Wiring) -> None:
    """The prompt holds the system text, each memory with its date, preferences, history and the question."""
    wiring.remember("The user prefers short answers about the boat.", kind=MemoryKind.PREFERENCE)
    llm = ScriptedLLM(["It is called Petrel."])
    history = (ChatMessage("user", "Hello"), ChatMessage("assistant", "Hi"))
    query = replace(QUERY, history=history, system_prompt="You are a sailor.", max_tokens=50)
    events = list(wiring.chat(llm).stream(query))
    assert text_of(events) == "It is called Petrel."
    assert reasoning_of(events) == NO_EMBEDDER
    [preference] = [event for event in events if isinstance(event, Preference)]
    assert "prefers short answers" in preference.markdown
    [call] = llm.calls
    system, *middle, question = call.messages
    assert system.role == "system" and system.content.startswith("You are a sailor.")
    assert "My boat is called Petrel." in question.content and "- [20" in question.content
    assert "prefers short answers" in question.content
    assert tuple(middle) == history
    assert (question.role, call.max_tokens) == ("user", 50)
    assert question.content.endswith(f"\n{QUERY.query}")
    assert wiring.stored()[-1].extra["answered_by"] == "scripted"


def test_a_models_thinking_is_shown_as_reasoning(wiring: Wiring) -> None:
    """What a model thinks aloud is reasoning between its two statuses, never part of the stored answer."""
    events = list(wiring.chat(ScriptedLLM(["<think>look at the boat</think> Petrel it is."])).stream(QUERY))
    stages = [event.stage for event in events if isinstance(event, Status)]
    assert stages == ["0", "1", "reasoning", "2"]
    assert reasoning_of(events) == NO_EMBEDDER + "look at the boat"
    assert text_of(events) == "Petrel it is." == wiring.stored()[-1].memory


def test_a_model_that_fails_before_its_first_word_is_replaced_by_memory(wiring: Wiring) -> None:
    """The answer is then quoted, and the reasoning names the model and its error."""
    events = list(wiring.chat(ScriptedLLM([ModelUnavailable("connection refused")])).stream(QUERY))
    assert "Petrel" in text_of(events)
    assert "'scripted' failed (connection refused)" in reasoning_of(events)
    assert not any(isinstance(event, Failure) for event in events)


def test_a_query_says_how_its_answer_is_sampled(wiring: Wiring) -> None:
    """Temperature and top_p of a query reach the model."""
    llm = ScriptedLLM(["Petrel."])
    wiring.chat(llm).answer(replace(QUERY, temperature=0.1, top_p=0.5))
    assert [(call.temperature, call.top_p) for call in llm.calls] == [(0.1, 0.5)]


@pytest.mark.parametrize("reply", ["", "<think>only thoughts</think>"])
def test_an_empty_completion_is_no_answer(wiring: Wiring, reply: str) -> None:
    """A model that says nothing is a failed model."""
    events = list(wiring.chat(ScriptedLLM([reply])).stream(QUERY))
    assert "empty answer" in reasoning_of(events) and "Petrel" in text_of(events)


class HalfModel(ScriptedLLM):
    """Gives half an answer and breaks off."""

    def stream(self, messages: Any, **_: Any) -> Iterator[str]:
        yield "It is called"
        raise BadCompletion("cut off", "It is called")


def test_half_an_answer_is_finished_from_memory(wiring: Wiring) -> None:
    """A model that breaks off is named, memory is quoted after its words, and the turn is stored whole."""
    before = len(wiring.stored())
    events = list(wiring.chat(HalfModel([])).stream(QUERY))
    assert not any(isinstance(event, Failure) for event in events) and isinstance(events[-1], End)
    assert "'scripted' broke off in its answer (cut off)" in reasoning_of(events)
    said = text_of(events)
    assert said.startswith("It is called\n\n") and "Petrel" in said
    stored = wiring.stored()[before:]
    assert [item.memory for item in stored] == [QUERY.query, said]
    assert stored[-1].extra["answered_by"] == MARK
    assert wiring.scheduler.labels()[:2] == ["query", "answer"]


def test_a_query_may_ask_for_a_model_by_name(wiring: Wiring) -> None:
    """A configured name is asked, another one is remarked on and the default answers."""
    chat = wiring.chat(ScriptedLLM(["the default"]), small=ScriptedLLM(["the small one"], name="small"))
    assert chat.answer(replace(QUERY, model="small")).response == "the small one"
    other = chat.answer(replace(QUERY, model="large"))
    assert other.response == "the default" and "'large' is not configured" in other.reasoning


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StoreUnavailable("the disk is full"), "the disk is full"),
        (ZeroDivisionError("secret"), "internal error"),
    ],
)
def test_any_failure_is_an_event_and_the_end_still_comes(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """Ours tell their text, others nothing of theirs; no traceback, always an end."""

    def broken(_: object) -> object:
        raise error

    monkeypatch.setattr(wiring.retriever, "search", broken)
    events = list(wiring.chat().stream(QUERY))
    assert isinstance(events[-1], End)
    [failure] = [event for event in events if isinstance(event, Failure)]
    assert message in failure.message and failure.trace_id
    assert "Traceback" not in failure.message and "secret" not in failure.message
    with pytest.raises(type(error)):
        wiring.chat().answer(QUERY)


def test_a_refused_task_is_told_and_costs_no_answer(wiring: Wiring) -> None:
    """A full queue does not stop the answer; the reasoning says what is missing."""
    wiring.scheduler.refuse = "query"
    events = list(wiring.chat().stream(QUERY))
    assert "the query task was refused" in reasoning_of(events)
    assert "Petrel" in text_of(events)


def test_what_is_asked_for_and_not_there_is_told(wiring: Wiring) -> None:
    """An unknown model, and what the caller has to be told, stand in the reasoning."""
    reasons = wiring.chat().answer(replace(QUERY, model="gpt-x", remarks=("no internet search",))).reasoning
    assert "'gpt-x' is not configured" in reasons and "internet search" in reasons


def test_a_reader_who_leaves_stores_nothing(wiring: Wiring) -> None:
    """A stream closed in the middle leaves no half turn in memory."""
    before = len(wiring.stored())
    stream = wiring.chat().stream(QUERY)
    for event in stream:
        if isinstance(event, Reasoning):
            break
    stream.close()
    assert len(wiring.stored()) == before
    assert wiring.scheduler.labels() == ["query"]


def test_suggestions_name_what_memory_could_tell_next(wiring: Wiring) -> None:
    """Suggested questions are about names in the recalled memories that the question did not mention."""
    events = list(wiring.chat().stream(replace(QUERY, query="Where does my boat lie?")))
    [suggestion] = [event for event in events if isinstance(event, Suggestion)]
    assert "What do you remember about Petrel?" in suggestion.questions


def test_chinese_is_answered_in_chinese(wiring: Wiring) -> None:
    """Prompt and quoted answer follow the language of the question."""
    wiring.remember("我的船叫海燕。")
    assert "“我的船叫海燕。”" in wiring.chat().answer(replace(QUERY, query="我的船叫什么？")).response
    llm = ScriptedLLM(["海燕。"])
    wiring.chat(llm).answer(replace(QUERY, query="我的船叫什么？"))
    assert "今天是" in llm.calls[0].messages[-1].content


def test_working_memory_reaches_the_model_and_the_references(wiring: Wiring) -> None:
    """What stands in working memory and was not recalled is in the prompt, and cited with its id."""
    wiring.remember("Her birthday is on the ninth.")
    entry = WorkingEntry("c-Her birthday is on the ninth.", 0.7)
    wiring.store.apply([ReplaceWorking("c", (entry,), None, "t")])
    llm = ScriptedLLM(["It is called Petrel."])
    events = list(wiring.chat(llm).stream(QUERY))
    assert "Her birthday is on the ninth." in llm.calls[0].messages[0].content
    _, everything = [event for event in events if isinstance(event, Reference)]
    assert entry.item_id in [hit.item.id for hit in everything.hits]


def test_the_memories_that_an_answer_repeats_are_those_it_used(wiring: Wiring) -> None:
    """Of the memories in the prompt only those whose words the model's answer holds count as used."""
    wiring.remember("The boat needs a new coat of paint in spring.")
    chat = wiring.chat(ScriptedLLM(["Your boat is called Petrel.", "I do not know."]))
    assert chat.answer(QUERY).memory_ids == ("c-My boat is called Petrel.",)
    assert chat.answer(QUERY).memory_ids == ()


def test_what_did_not_fit_into_the_prompt_is_told(wiring: Wiring) -> None:
    """The reasoning says how many memories the model did not see."""
    wiring.remember(*(f"The boat has plank number {n} of oak, painted white." for n in range(60)))
    chat = MemChat(
        store=wiring.store,
        indexer=wiring.indexer,
        retriever=wiring.retriever,
        reader=MemReader(clock=wiring.clock),
        scheduler=wiring.scheduler,
        answerer=ExtractiveAnswerer(analyse),
        llm=ScriptedLLM(["Petrel."]),
        clock=wiring.clock,
        prompt_tokens_max=500,
    )
    reasons = chat.answer(replace(QUERY, top_k=50)).reasoning
    assert "memories did not fit into the prompt" in reasons
