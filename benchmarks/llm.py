"""What a turn costs with a model in the scheduler: `python -m benchmarks.llm [--quick] [--json FILE]`.

The demo's conversation is stored and `QUESTIONS` are asked through the queue, over real HTTP, against the
scripted endpoint of `memos.testing_server`, whose "model" judges by the words of the answer: working memory
suffices if they stand in it. Calls are requests that the endpoint got for keywords, intent, rerank and
filter; tokens are estimated over whole requests (`memory.token_count`), replies included.

one_by_one_*   each question when the one before is done
twice_calls    each question twice in a row
batch_*        four questions waiting at a time, as after a burst
down_requests  requests in an hour of turns, one each ten seconds, while the endpoint answers 503
reference_*    the reference implementation makes four calls a turn, in series: keywords, intent, rerank,
               filter (read out of its code); its tokens are those of our own texts in four calls: keywords
               with the query alone, intent with working memory, rerank and filter with the candidates
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.report import Bar, Options, Row, main
from memos.api.handlers import handlers_of
from memos.api.product_models import APIADDRequest
from memos.cli.demo import CONVERSATION, CUBE, USER
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem
from memos.memory.token_count import count_tokens
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import ManualClock
from memos.testing_server import Fault, ModelServer, Scripted

REFERENCE_CALLS = 4

# (question, words of which the answer has one)
QUESTIONS = (
    ("What is my dog's name again?", "named Max"),
    ("Which breed is the puppy?", "golden retriever"),
    ("How old was the puppy when I got it?", "nine weeks"),
    ("What has the dog chewed?", "running shoes"),
    ("What am I allergic to?", "allergic to nuts"),
    ("Which treats does Max love?", "peanut butter"),
    ("Who is our vet?", "Lindqvist"),
    ("When is the vaccination?", "14 March"),
    ("May Max jump stairs?", "jump stairs"),
    ("Where did we walk with Priya?", "old canal"),
    ("What is the beagle of my neighbour called?", "Coco"),
    ("When does the puppy class take place?", "Thursdays"),
    ("Who feeds Max on Tuesdays?", "Elena"),
    ("Where do I work at night?", "hospital"),
    ("Which days am I free in April?", "Mondays and Wednesdays"),
    ("Where do I fly in May?", "Lisbon"),
    ("When does my flight leave?", "9:40"),
    ("Who offered to take Max?", "Priya offered"),
    ("What helps against teething?", "washcloth"),
    ("On which street is the vet?", "Harbour Street"),
)


def model(body: Mapping[str, Any]) -> Scripted:
    """A model that knows the answers' words and judges by them."""
    rules, about = (message["content"] for message in body["messages"][:2])
    if "trigger_retrieval" in rules:
        memory, _, asked = about.partition("\nQueries\n")
        rows = []
        for place, line in enumerate(asked.splitlines()):
            words = next(words for question, words in QUESTIONS if question in line)
            missing = words.casefold() not in memory.casefold()
            rows.append({"index": place, "keywords": [], "trigger_retrieval": missing})
        return {"queries": rows}
    if "new_order" in rules:
        return {"new_order": [], "irrelevant": [], "reasoning": "recall's order is fine"}
    return Fault(400, "no other question is part of this measurement")


def measure(options: Options) -> list[Row]:
    """All rows. Nothing is slow here: `--quick` changes nothing."""
    turns = len(QUESTIONS)
    with ModelServer(answer=model) as server, tempfile.TemporaryDirectory(prefix="memos-llm-") as folder:
        with runtime_at(Path(folder) / "one", server) as runtime:
            one = asked(runtime, server, [[question] for question, _ in QUESTIONS])
        with runtime_at(Path(folder) / "twice", server) as runtime:
            twice = asked(runtime, server, [[question] for question, _ in QUESTIONS for _ in range(2)])
        with runtime_at(Path(folder) / "batch", server) as runtime:
            texts = [question for question, _ in QUESTIONS]
            batch = asked(runtime, server, [texts[at : at + 4] for at in range(0, turns, 4)])
    with tempfile.TemporaryDirectory(prefix="memos-llm-") as folder:
        down = calls_while_down(Path(folder))
    reference = reference_tokens(one)
    calls, tokens = len(one) / turns, spent(one) / turns
    return [
        Row("one_by_one_calls", Bar("<=", 2), calls, "calls a turn"),
        Row("one_by_one_tokens", Bar("<=", reference / turns), tokens, "tokens a turn"),
        Row("twice_calls", Bar("<=", 1), len(twice) / (2 * turns), "calls a turn"),
        Row("batch_calls", Bar("<=", 1), len(batch) / turns, "calls a turn"),
        Row("batch_tokens", Bar("<=", reference / turns), spent(batch) / turns, "tokens a turn"),
        Row("down_requests", Bar("<=", 70), down, "requests an hour"),
        Row("reference_calls", None, REFERENCE_CALLS, "calls a turn"),
        Row("reference_tokens", None, reference / turns, "tokens a turn"),
    ]


def runtime_at(home: Path, server: ModelServer) -> Runtime:
    """A runtime that holds the conversation and asks the server's model."""
    models = {"embedder": "none", "chat_base_url": server.url, "chat_model": "m"}
    scheduler = {"model_steps": ("intent", "rank")}
    runtime = build(Settings(home=home, models=models, scheduler=scheduler), start=False)
    for session, said in groupby(CONVERSATION, key=lambda turn: turn[0]):
        handlers_of(runtime).add.handle_add_memories(
            APIADDRequest(
                user_id=USER,
                writable_cube_ids=[CUBE],
                session_id=session,
                messages=[{"role": role, "content": text, "chat_time": at} for _, at, role, text in said],
                async_mode="sync",
            )
        )
    drained(runtime)
    return runtime


def drained(runtime: Runtime) -> None:
    while runtime.scheduler.run_once(lanes_max=16):
        pass


def asked(
    runtime: Runtime, server: ModelServer, bursts: Sequence[Sequence[str]]
) -> list[tuple[Mapping[str, Any], int]]:
    """Ask in bursts; the requests that came for it, each with the tokens of its reply."""
    before = len(server.chats())
    for burst in bursts:
        runtime.scheduler.submit_messages(
            [
                ScheduleMessageItem(user_id=USER, mem_cube_id=CUBE, label="mem_update", content=text)
                for text in burst
            ]
        )
        drained(runtime)
    return [(one.body, count_tokens(str(model(one.body)))) for one in server.chats()[before:]]


def request_tokens(body: Mapping[str, Any]) -> int:
    return sum(count_tokens(message["content"]) for message in body["messages"])


def spent(requests: Sequence[tuple[Mapping[str, Any], int]]) -> int:
    return sum(request_tokens(body) + reply for body, reply in requests)


def reference_tokens(requests: Sequence[tuple[Mapping[str, Any], int]]) -> float:
    """The same turns in four calls each, every time: see the module docstring."""
    intents = [one for one in requests if "trigger_retrieval" in one[0]["messages"][0]["content"]]
    ranks = [one for one in requests if "new_order" in one[0]["messages"][0]["content"]]
    intent, rank = spent(intents) / len(intents), spent(ranks) / len(ranks)
    rules = count_tokens(intents[0][0]["messages"][0]["content"])
    query = sum(count_tokens(question) for question, _ in QUESTIONS) / len(QUESTIONS)
    return len(QUESTIONS) * (rules / 2 + query + intent + 2 * rank)


def calls_while_down(home: Path) -> int:
    """Requests while the endpoint is down: a turn each ten seconds for an hour, new words each time."""
    clock = ManualClock()
    with ModelServer() as server:
        server.fail(Fault(503, "down"))
        models = {"embedder": "none", "chat_base_url": server.url, "chat_model": "m"}
        scheduler = {"model_steps": ("intent", "rank")}
        settings = Settings(home=home, models=models, scheduler=scheduler)
        with build(settings, start=False, clock=clock) as runtime:
            handlers_of(runtime).add.handle_add_memories(
                APIADDRequest(user_id=USER, writable_cube_ids=[CUBE], messages="A boat.", async_mode="sync")
            )
            drained(runtime)
            for number in range(360):
                runtime.scheduler.submit_messages(
                    [
                        ScheduleMessageItem(
                            user_id=USER,
                            mem_cube_id=CUBE,
                            label="mem_update",
                            content=f"What about boat number {number} of harbour {number * 7}?",
                        )
                    ]
                )
                drained(runtime)
                clock.advance(10.0)
            depth = runtime.queue.depth(lanes=False)
            assert (depth.remaining, depth.dead) == (0, 0), "a turn was lost"
            return len(server.chats())


if __name__ == "__main__":
    main(
        "A turn with a model in the scheduler",
        measure,
        settings={"questions": len(QUESTIONS), "turns of the conversation": len(CONVERSATION)},
    )
