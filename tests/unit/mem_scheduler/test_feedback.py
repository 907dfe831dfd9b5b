"""`mem_feedback`, by the rows of the store before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mem_scheduler.derived import WordEmbedder, said, stated
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message
from tests.unit.mem_scheduler.test_handlers import logs

from memos.errors import Discard
from memos.memory.indexer import Indexer
from memos.memory.item import ItemStatus, MemoryItem, MemoryKind, ReadState, Source, WorkingEntry
from memos.memory.store import ItemFilter, ReplaceWorking, SetStatus
from memos.retrieval.hybrid import HybridRetriever
from memos.retrieval.request import RecallRequest
from memos.testing import ManualClock


@pytest.fixture
def words(tmp_path: Path, clock: ManualClock) -> Iterator[Parts]:
    embedder = WordEmbedder()
    with assembled(tmp_path, clock=clock, indexer=Indexer(embedder)) as made:
        made.store.bind_embedder(embedder.fingerprint, embedder.dim)
        yield made


def tell(parts: Parts, text: str, *ids: str, **fields: Any) -> None:
    """Give feedback on the memories of these ids."""
    parts.clock.advance(60.0)  # type: ignore[attr-defined]
    message_fields = {name: fields.pop(name) for name in ("item_id", "task_id", "user_id") if name in fields}
    content = json.dumps({"feedback_content": text, "retrieved_memory_ids": list(ids), **fields})
    parts.scheduler.submit_messages(message("mem_feedback", content, **message_fields))
    parts.drain()


def rows(parts: Parts) -> dict[str, MemoryItem]:
    every = ItemFilter(statuses=tuple(ItemStatus))
    return {item.id: item for item in parts.store.find(every, limit=500).items}


def live_derived(parts: Parts) -> list[MemoryItem]:
    return list(parts.store.find(ItemFilter(raw=False)).items)


@pytest.mark.parametrize(
    ("turn", "feedback", "right"),
    [
        ("I live in Paris.", "No, I live in Berlin.", "Berlin"),
        ("我住在北京。", "不对，我住在上海。", "上海"),
    ],
)
@pytest.mark.parametrize("named", ["derived", "turn", "both"])
def test_a_correction_supersedes_everywhere_at_once(
    words: Parts, turn: str, feedback: str, right: str, named: str
) -> None:
    """Whether the turn or what was read from it is named: the derived fact is archived with its end, the
    turn stays and is marked, the correction takes the places in working memory, in one transaction."""
    said(words, turn, ids=["r1", "d1"])
    words.store.apply([ReplaceWorking(CUBE, (WorkingEntry("r1", 0.9), WorkingEntry("d1", 0.8)), None, "t")])
    seq = words.store.seq(CUBE)
    tell(words, feedback, *{"derived": ["d1"], "turn": ["r1"], "both": ["r1", "d1"]}[named], task_id="T")
    assert words.store.seq(CUBE) == seq + 1, "one transaction"
    (new,) = live_derived(words)
    after = rows(words)
    assert right in new.memory and (new.kind, new.confidence) == (MemoryKind.USER, 1.0)
    assert (new.sources[0].type, new.sources[0].content) == ("feedback", feedback)
    assert after["d1"].status is ItemStatus.ARCHIVED
    assert after["d1"].extra["superseded_by"] == new.id
    assert after["d1"].valid_until is not None and after["d1"].valid_until.timestamp() == words.clock.now()
    assert (after["r1"].status, after["r1"].memory) == (ItemStatus.ACTIVATED, turn)
    assert after["r1"].extra["corrected_by"] == [new.id]
    assert [item.id for item in words.store.working(CUBE).items] == [new.id]
    ops = {(one.op, one.item_id) for one in words.store.journal(task_id="T")}
    assert ops == {("add", new.id), ("archive", "d1"), ("update", "r1"), ("replace_working", "")}
    (told,) = logs(words, "knowledgeBaseUpdate")
    (row,) = told.memcube_log_content or []
    assert (row["trigger_source"], row["operation"], row["memory_id"]) == ("Feedback", "UPDATE", new.id)
    assert row["original_content"] and right not in row["original_content"]
    assert told.current_memory_sizes["user_memory_size"] == words.store.sizes(CUBE).user == 1
    assert words.store.verify() == []


@pytest.mark.parametrize(
    ("turn", "feedback", "query", "right"),
    [
        ("I live in Paris.", "No, I live in Berlin.", "Which city do I live in? Paris?", "Berlin"),
        ("The flight leaves at 9:40.", "It leaves at 9:45, not 9:40.", "When does the flight leave?", "9:45"),
        ("我住在北京。", "不对，我住在上海。", "我住在北京吗？", "上海"),
    ],
)
@pytest.mark.parametrize("dedup", ["no", "sim", "mmr"])
def test_recall_puts_the_correction_before_the_turn(
    words: Parts, turn: str, feedback: str, query: str, right: str, dedup: Any
) -> None:
    """The turn is still recalled, and what corrects it stands before it, even where the turn fits better."""
    words.remember(turn, role="user", session_id="s1")
    words.remember(*[f"Filler number {number} about the weather." for number in range(30)])
    tell(words, feedback, f"{CUBE}-0")
    recall = HybridRetriever(words.store, None, clock=words.clock).search(
        RecallRequest(query=query, cube_ids=(CUBE,), user_id=USER, top_k=5, dedup=dedup, relativity=0.1)
    )
    texts = [hit.item.memory for hit in recall.hits]
    assert right in texts[0]
    assert turn in texts[1:]
    assert [hit.score for hit in recall.hits[:2]] == sorted((h.score for h in recall.hits[:2]), reverse=True)


def test_words_are_replaced_where_they_stand(words: Parts) -> None:
    """A number is corrected in what was read from the turn; its other facts stay."""
    said(words, "My flight leaves at 9:40. I live in Paris.", ids=["r1", "d1"])
    stated(
        words, "d2", "The flight leaves at 9:40.", session_id="s1", sources=(Source("item", item_id="r1"),)
    )
    tell(words, "It's 9:45, not 9:40.", "r1")
    after = rows(words)
    assert after["d2"].status is ItemStatus.ARCHIVED
    assert after["d1"].status is ItemStatus.ACTIVATED
    assert any("9:45" in item.memory for item in live_derived(words))


def test_a_second_correction_takes_over_from_the_first(words: Parts) -> None:
    """Recall shows the newest correction before the turn, and the first one nowhere."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    tell(words, "No, I live in Berlin.", "d1")
    (first,) = live_derived(words)
    tell(words, "No, I live in Rome.", first.id)
    (second,) = live_derived(words)
    assert rows(words)["r1"].extra["corrected_by"] == [first.id, second.id]
    found = words.scheduler.search("Do I live in Paris?", USER, CUBE, top_k=5)
    assert [one.id for one in found] == [second.id, "r1"]


@pytest.mark.parametrize(
    ("turns", "feedback"),
    [
        (("I live in Paris.", "I moved to Lyon last week."), "No, I live in Marseille."),
        (("我住在巴黎。", "我上周搬到了里昂。"), "不对，我住在马赛。"),
    ],
)
def test_a_correction_stands_before_the_turns_of_earlier_values(
    words: Parts, turns: tuple[str, str], feedback: str
) -> None:
    """A turn whose value was displaced before the correction is marked like the one that is corrected."""
    for turn in turns:
        ids = words.remember(turn, role="user", read=ReadState.DUE)
        words.clock.advance(60.0)  # type: ignore[attr-defined]
        words.scheduler.submit_messages(message("mem_read", json.dumps(ids)))
        words.drain()
    (wrong,) = live_derived(words)
    tell(words, feedback, wrong.id)
    (right,) = live_derived(words)
    marks = {item.memory: item.extra.get("corrected_by") for item in rows(words).values() if item.raw}
    assert marks == {turns[0]: [wrong.id, right.id], turns[1]: [right.id]}


def test_feedback_on_deleted_memories_does_not_bring_them_back(words: Parts) -> None:
    """What was said of memories that were deleted since changes no row, and the log says why."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    words.store.apply([SetStatus(("r1", "d1"), ItemStatus.DELETED, "by the user")])
    before, seq = rows(words), words.store.seq(CUBE)
    tell(words, "No, I live in Berlin.", "d1", "r1")
    assert (rows(words), words.store.seq(CUBE)) == (before, seq)
    (told,) = logs(words, "knowledgeBaseUpdate")
    assert told.status == "unchanged" and "deleted" in told.log_content
    tell(words, "No, I live in Berlin.", "unknown")
    assert [item.memory for item in live_derived(words)] == ["The user lives in Berlin."]


def test_a_supplement_is_one_memory_more(words: Parts) -> None:
    """What is new beside what is known is added; nothing else changes."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    before = rows(words)
    tell(words, "Also, my sister lives in Rome.", "d1")
    after = rows(words)
    assert {one: after[one] for one in before} == before
    (new,) = [item for item in live_derived(words) if item.id not in before]
    assert "Rome" in new.memory
    (told,) = logs(words, "knowledgeBaseUpdate")
    assert [row["operation"] for row in told.memcube_log_content or []] == ["ADD"]
    assert told.memory_delta == 1


def test_what_is_known_already_is_not_added_again(words: Parts) -> None:
    """A supplement that a stored fact says already is one use of that fact."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    tell(words, "I live in Paris.")
    assert [item.id for item in live_derived(words)] == ["d1"]
    assert rows(words)["d1"].use_count == 1


@pytest.mark.parametrize("feedback", ["Forget that.", "忘掉这个。"])
@pytest.mark.parametrize("named", ["r1", "d1"])
def test_a_retraction_takes_turn_and_reading_out_of_recall(words: Parts, feedback: str, named: str) -> None:
    """What is to be forgotten leaves recall with what it was read from, archived and journaled."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    words.remember("The weather was fine in Oslo.", position=7)
    tell(words, feedback, named, task_id="T")
    after = rows(words)
    assert (after["r1"].status, after["d1"].status) == (ItemStatus.ARCHIVED, ItemStatus.ARCHIVED)
    assert words.scheduler.search("I live in Paris.", USER, CUBE, top_k=5) == [] or all(
        "Paris" not in one.memory for one in words.scheduler.search("I live in Paris.", USER, CUBE, top_k=5)
    )
    assert {one.item_id for one in words.store.journal(task_id="T") if one.op == "archive"} == {"r1", "d1"}
    (told,) = logs(words, "archiveMemory")
    assert told.memory_delta == -2


@pytest.mark.parametrize("feedback", ["Yes, that's right!", "没错。"])
def test_a_confirmation_reinforces(words: Parts, feedback: str) -> None:
    """A memory that was right gains a use and confidence."""
    stated(words, "d", "Mia lives in Paris.", confidence=0.7)
    tell(words, feedback, "d")
    after = rows(words)["d"]
    assert (after.use_count, after.confidence) == (1, pytest.approx(0.8))
    assert after.status is ItemStatus.ACTIVATED


def test_without_ids_the_memories_are_searched_for(words: Parts) -> None:
    """Feedback that says what is right finds the fact it contradicts by itself."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    words.remember("The weather was fine in Oslo.", position=7)
    tell(words, "No, I live in Berlin.")
    assert rows(words)["d1"].status is ItemStatus.ARCHIVED
    assert ["Berlin" in item.memory for item in live_derived(words)] == [True]


def test_without_ids_a_mere_no_takes_nothing_away(words: Parts) -> None:
    """ "That's wrong" without knowing of what changes nothing, and the log says so."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    before = rows(words)
    tell(words, "That's wrong.")
    tell(words, "Correct!")
    assert rows(words) == before
    told = logs(words, "knowledgeBaseUpdate")
    assert [one.status for one in told] == ["unchanged", "unchanged"]
    assert "not certain" in told[0].log_content


def test_a_mere_no_is_about_what_the_answer_said(words: Parts) -> None:
    """With the history, the memory that the last answer repeats is the one that is denied."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    (bicycle,) = words.remember("My sister has a blue bicycle.", position=7)
    history = [
        {"role": "user", "content": "Where do I live?"},
        {"role": "assistant", "content": "You live in Paris, the user lives in Paris."},
    ]
    tell(words, "That's wrong.", history=history)
    assert rows(words)["d1"].status is ItemStatus.ARCHIVED
    assert rows(words)[bicycle].status is ItemStatus.ACTIVATED


def test_the_right_answer_may_be_given_in_full(words: Parts) -> None:
    """`corrected_answer` as a text is the correction."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    tell(words, "That's wrong.", "d1", corrected_answer="I live in Berlin.")
    assert rows(words)["d1"].status is ItemStatus.ARCHIVED
    assert ["Berlin" in item.memory for item in live_derived(words)] == [True]


def test_plain_text_is_feedback_too(words: Parts) -> None:
    """A content that is no JSON is what the user said."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    words.clock.advance(60.0)  # type: ignore[attr-defined]
    words.scheduler.submit_messages(message("mem_feedback", "No, I live in Berlin."))
    words.drain()
    assert rows(words)["d1"].status is ItemStatus.ARCHIVED


def test_feedback_stays_in_its_cube(words: Parts) -> None:
    """The same ids sent for another cube change nothing there or here; other users' facts stay."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    said(words, "I live in Paris.", ids=["r2", "d2"], cube_id="cube_2")
    said(words, "I live in Paris.", ids=["r3", "d3"], user_id="user_2")
    words.clock.advance(60.0)  # type: ignore[attr-defined]
    words.scheduler.submit_messages(
        message(
            "mem_feedback",
            json.dumps({"feedback_content": "No, I live in Berlin.", "retrieved_memory_ids": ["d1"]}),
            mem_cube_id="cube_2",
        )
    )
    words.drain()
    after = rows(words)
    assert (after["d1"].status, after["d3"].status) == (ItemStatus.ACTIVATED, ItemStatus.ACTIVATED)
    assert after["d2"].status is ItemStatus.ARCHIVED, "the cube's own other value of the same slot"


def test_secrets_in_feedback_are_held(words: Parts) -> None:
    """A correction that holds a secret goes to quarantine and corrects nothing."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    tell(
        words,
        "Also, my password is hunter2hunter2 and my key is sk-ant-abcdefghijklmnopqrstuvwxyz0123456789.",
    )
    after = rows(words)
    assert after["d1"].status is ItemStatus.ACTIVATED
    assert [item.status for one, item in after.items() if one not in ("r1", "d1")] == [ItemStatus.QUARANTINED]


@pytest.mark.parametrize(
    "content",
    ['{"feedback_content": ""}', '{"history": []}', '{"feedback_content": "x", "retrieved_memory_ids": "a"}',
     '{"feedback_content": "x", "feedback_time": "soonish"}'],
)  # fmt: skip
def test_what_is_no_feedback_is_dead_lettered(still: Parts, content: str) -> None:
    """A request that no retry can mend goes to the dead letters at once; a direct call raises."""
    still.scheduler.submit_messages(message("mem_feedback", content))
    still.drain()
    (letter,) = still.queue.dead.list()
    assert letter.attempts == 0
    with pytest.raises(Discard):
        still.scheduler.process_feedback(message("mem_feedback", content))


def test_a_crash_after_the_commit_repeats_nothing(words: Parts) -> None:
    """The message runs again; nothing is added, archived or told twice."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    built_in = words.scheduler.handlers["mem_feedback"]
    runs: list[int] = []

    def crashing(batch: list[object]) -> None:
        built_in(batch)  # type: ignore[arg-type]
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("killed between commit and finish")

    words.scheduler.register_handlers({"mem_feedback": crashing})
    tell(words, "No, I live in Berlin.", "d1")
    before = rows(words)
    words.clock.advance(60.0)  # type: ignore[attr-defined]
    words.drain()
    assert len(runs) == 2
    assert rows(words) == before
    assert len(logs(words, "knowledgeBaseUpdate")) == 1


def test_the_outcome_of_a_direct_call(words: Parts) -> None:
    """`process_feedback` says what it did; the documented method does the same."""
    said(words, "I live in Paris.", ids=["r1", "d1"])
    content = json.dumps({"feedback_content": "No, I live in Berlin.", "retrieved_memory_ids": ["d1"]})
    done = words.scheduler.process_feedback(message("mem_feedback", content))
    assert done is not None and done.changed
    ((new, old),) = done.updated
    assert ("Berlin" in new.memory, "Paris" in old, [item.id for item, _ in done.archived]) == (
        True,
        True,
        ["d1"],
    )
    words.clock.advance(60.0)  # type: ignore[attr-defined]
    words.scheduler._mem_feedback_message_consumer([message("mem_feedback", "No, I live in Rome.")])
    assert ["Rome" in item.memory for item in live_derived(words)] == [True]
