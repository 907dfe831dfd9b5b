"""The `compact` and `expand` scopes of `mem_organize`, by the rows of the store before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.mem_scheduler.parts import CUBE, USER, Parts, assembled, message
from tests.unit.mem_scheduler.test_handlers import logs
from tests.unit.mem_scheduler.test_organize import row

from memos.clock import utc
from memos.mem_scheduler.handlers import compact
from memos.memory.indexer import Indexer
from memos.memory.item import ItemStatus, MemoryItem, ReadState, WorkingEntry
from memos.memory.store import AddItems, ItemFilter, ReplaceWorking, SetStatus, TouchItems, UpdateItem
from memos.memory.token_count import count_tokens
from memos.models.base import Vectors
from memos.testing import ManualClock

DAY = 86_400.0
TALK = (
    "Hi there! How are you?",
    "I have been thinking about the trip that we are going to make to Oslo on 14 March with my sister Clara.",
    "We have rented a cabin near Holmenkollen, and it is going to cost us about 450 euros for the week.",
    "Thanks!",
    "I am not allergic to nuts, but my brother is, so please do not bring any of them with you to the cabin.",
)
WANT = '{"scope": "compact", "tokens_min": 20}'


class EveryWordEmbedder:
    """One dimension a word, the small words included."""

    dim = 512
    fingerprint = "every-word/1"

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for place, text in enumerate(texts):
            for word in text.casefold().split() or [""]:
                vectors[place, sum(ord(sign) * 31**n for n, sign in enumerate(word)) % self.dim] += 1.0
            vectors[place] /= np.linalg.norm(vectors[place])
        return vectors


@pytest.fixture
def words(tmp_path: Path, clock: ManualClock) -> Iterator[Parts]:
    """With vectors of words, so that it shows which text a vector is of."""
    embedder = EveryWordEmbedder()
    with assembled(tmp_path, clock=clock, indexer=Indexer(embedder)) as made:
        made.store.bind_embedder(embedder.fingerprint, embedder.dim)
        yield made


def talked(parts: Parts, session: str = "s1", texts: tuple[str, ...] = TALK, **fields: object) -> list[str]:
    """Turns of one session, said now."""
    now = utc(parts.clock.now())
    items = [
        replace(
            MemoryItem(f"{session}-{n}", CUBE, USER, text, session_id=session, position=n),
            created_at=now,
            updated_at=now,
            happened_at=now,
            **fields,
        )
        for n, text in enumerate(texts)
    ]
    parts.store.apply([AddItems(tuple(parts.services.indexer.index(items)))])
    return [item.id for item in items]


def ask(parts: Parts, content: str = WANT, *, days: float = 31, **fields: object) -> None:
    parts.clock.advance(days * DAY)  # type: ignore[attr-defined]
    parts.scheduler.submit_messages(message("mem_organize", content, **fields))
    parts.drain()


def texts(parts: Parts, ids: list[str]) -> list[str]:
    return [row(parts, one).memory for one in ids]


def live_tokens(parts: Parts) -> int:
    return sum(count_tokens(item.memory) for item in parts.store.find(ItemFilter(cube_ids=(CUBE,))).items)


def test_a_long_cold_episode_is_held_in_half_the_tokens(words: Parts) -> None:
    """Each turn keeps its id and what it says; greetings are archived; the full texts are archive records."""
    ids = talked(words)
    before = live_tokens(words)
    ask(words, task_id="T")
    assert live_tokens(words) <= before / 2
    assert [row(words, one).status for one in ids] == [
        ItemStatus.ARCHIVED, ItemStatus.ACTIVATED, ItemStatus.ACTIVATED, ItemStatus.ARCHIVED,
        ItemStatus.ACTIVATED,
    ]  # fmt: skip
    together = " ".join(texts(words, [ids[1], ids[2], ids[4]]))
    for fact in ("Oslo", "14 March", "Clara", "Holmenkollen", "450 euros", "not allergic", "nuts"):
        assert fact in together, fact
    for one, full in zip(ids, TALK, strict=True):
        item = row(words, one)
        if item.live:
            record = row(words, item.extra["full_text"])
            assert (record.status, record.memory) == (ItemStatus.ARCHIVED, full)
            assert [source.item_id for source in record.sources] == [one]
        else:
            assert item.memory == full
    assert [item.id for item in words.store.get(ids)] == ids
    assert words.store.verify() == []


def test_nothing_leaves_without_a_journal_row_and_a_log(words: Parts) -> None:
    """Every changed turn has a row with both texts, every archived one a row that says why; logs tell sizes."""
    ids = talked(words)
    ask(words, task_id="T")
    rows = words.store.journal(task_id="T", limit=100)
    updates = {one.item_id: one for one in rows if one.op == "update"}
    assert set(updates) == {ids[1], ids[2], ids[4]}
    assert updates[ids[1]].before is not None and updates[ids[1]].before["memory"] == TALK[1]
    assert updates[ids[1]].after is not None and updates[ids[1]].after["memory"] == texts(words, [ids[1]])[0]
    archived = {one.item_id: one.reason for one in rows if one.op == "archive"}
    assert archived == {ids[0]: "compaction: nothing to keep", ids[3]: "compaction: nothing to keep"}
    assert sum(one.op == "add" for one in rows) == 3
    (gone,) = logs(words, "archiveMemory")
    assert (gone.memory_len, gone.memory_delta) == (words.store.sizes(CUBE).long_term, -2) == (3, -2)
    (changed,) = logs(words, "updateMemory")
    assert {one["original_content"] for one in changed.memcube_log_content or []} == {
        TALK[1], TALK[2], TALK[4]
    }  # fmt: skip


def test_the_vector_and_the_links_stay_those_of_the_full_text(words: Parts) -> None:
    """A compacted turn is as near to its full text as before, and linked to the same names."""
    ids = talked(words)
    links = row(words, ids[1]).links
    ask(words)
    assert row(words, ids[1]).links == links != ()
    full = EveryWordEmbedder().embed([TALK[1]])[0]
    with words.store.read(CUBE) as view:
        assert max(view.search_vector(full, limit=5).values()) == pytest.approx(1.0, abs=1e-3)
    assert float(full @ EveryWordEmbedder().embed([row(words, ids[1]).memory])[0]) < 0.999


def test_archive_records_are_never_recalled(words: Parts) -> None:
    """Recall finds the turn once, by a word that it kept, and no archive record."""
    ids = talked(words)
    ask(words)
    found = [one.id for one in words.scheduler.search("Holmenkollen cabin", USER, CUBE, top_k=10)]
    assert found[0] == ids[2] and not any(":full:" in one for one in found)


def test_expanding_puts_every_text_back(words: Parts) -> None:
    """After `expand` the texts, the statuses and what recall finds are those of before."""
    ids = talked(words)
    vector = EveryWordEmbedder().embed([TALK[2]])[0]
    ask(words)
    assert texts(words, ids) != list(TALK)
    ask(words, '{"scope": "expand", "sessions": ["s1"]}')
    assert texts(words, ids) == list(TALK)
    assert all(row(words, one).live for one in ids)
    with words.store.read(CUBE) as view:
        assert max(view.search_vector(vector, limit=5).values()) == pytest.approx(1.0, abs=1e-3)
        assert view.size == len(TALK)
    assert words.store.verify() == []


def test_compacting_again_after_expanding_uses_the_same_records(words: Parts) -> None:
    """Rounds of both leave one archive record a turn; compacting what is compact changes nothing."""
    talked(words)
    ask(words)
    archived = words.store.sizes(CUBE).archived
    seq = words.store.seq(CUBE)
    ask(words, task_id="again")
    assert words.store.seq(CUBE) == seq and words.store.journal(task_id="again") == []
    ask(words, "expand")
    ask(words)
    assert words.store.sizes(CUBE).archived == archived


def test_a_turn_that_was_edited_since_is_not_put_back(words: Parts) -> None:
    """Expanding never overwrites what somebody wrote later, and compacting archives the new text."""
    ids = talked(words)
    ask(words)
    item = row(words, ids[1])
    text = (
        "The trip to Oslo that we have been talking about is going to be in April, and Clara is not coming."
    )
    edited = words.services.indexer.index([replace(item, memory=text)])
    words.store.apply([UpdateItem(edited[0], item.version, "edited")])
    ask(words, "expand")
    assert row(words, ids[1]).memory == text
    assert row(words, ids[2]).memory == TALK[2]
    ask(words)
    assert row(words, row(words, ids[1]).extra["full_text"]).memory == text


def test_a_turn_that_is_kept_whole_needs_no_record(words: Parts) -> None:
    """With room for every word only greetings go; nothing is copied, and nothing is weighed again."""
    ids = talked(words)
    ask(words, '{"scope": "compact", "tokens_min": 20, "ratio": 0.99}')
    assert texts(words, ids) == list(TALK)
    assert [row(words, one).live for one in ids] == [False, True, True, False, True]
    assert words.store.sizes(CUBE).archived == 2
    seq = words.store.seq(CUBE)
    ask(words)
    assert words.store.seq(CUBE) == seq
    ask(words, "expand")
    assert all(row(words, one).live for one in ids)
    assert all("compacted" not in row(words, one).extra for one in ids)


def test_deleting_a_compacted_turn_deletes_its_full_text(words: Parts) -> None:
    """No archive record outlives the turn that it is of."""
    ids = talked(words)
    ask(words)
    record = row(words, ids[1]).extra["full_text"]
    words.store.apply([SetStatus((ids[1],), ItemStatus.DELETED, "asked for")])
    assert row(words, record).status is ItemStatus.DELETED and row(words, record).memory == ""


def test_what_is_short_young_used_standing_or_unread_stays_as_it_is(words: Parts) -> None:
    """Each condition alone keeps an episode whole; turns without a session are no episode."""
    short = talked(words, "short", TALK[:1])
    free = talked(words, "", TALK)
    used, standing, unread = talked(words, "used"), talked(words, "standing"), talked(words, "unread")
    (due,) = words.services.indexer.index([replace(row(words, unread[1]), read=ReadState.DUE)])
    words.store.apply([UpdateItem(due, None, "test")])
    words.store.apply([ReplaceWorking(CUBE, (WorkingEntry(standing[1]),), None, "test")])
    words.clock.advance(20 * DAY)  # type: ignore[attr-defined]
    words.store.apply([TouchItems((used[1],), "test")])
    young = talked(words, "young")
    ask(words, days=11)
    for ids in (free, used, standing, unread, young):
        assert texts(words, ids) == list(TALK)
    assert texts(words, short) == [TALK[0]]
    ask(words, days=20)
    assert texts(words, young) != list(TALK) and texts(words, used) != list(TALK)
    assert texts(words, standing) == list(TALK) == texts(words, unread)


def test_each_episode_is_a_transaction_of_its_own(words: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan goes through all sessions, over several plans, one message an episode; a named one alone."""
    monkeypatch.setattr(compact, "SESSIONS_MAX", 2)
    sessions = [talked(words, f"s{number}") for number in range(5)]
    ask(words, json.dumps({"scope": "compact", "tokens_min": 20, "sessions": ["s3"]}))
    assert [texts(words, ids) != list(TALK) for ids in sessions] == [False, False, False, True, False]
    ask(words, task_id="T")
    assert all(texts(words, ids) != list(TALK) for ids in sessions)
    by_message = {one.cause.message_key for one in words.store.journal(task_id="T", limit=500)}
    assert len(by_message) == 4


def test_an_episode_of_many_turns_is_compacted_in_parts(
    words: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message changes more than its bound, and none of the turns is left."""
    monkeypatch.setattr(compact, "TURNS_MAX", 3)
    ids = talked(
        words, texts=TALK[1:3] + TALK[4:] + tuple(f"{one} Again and {n}." for n, one in enumerate(TALK[1:3]))
    )
    full = texts(words, ids)
    ask(words, task_id="T")
    assert all(short != long for short, long in zip(texts(words, ids), full, strict=True))
    ask(words, "expand")
    assert texts(words, ids) == full


def test_a_crash_after_the_commit_repeats_nothing(words: Parts) -> None:
    """The message runs again, its effects do not; the episodes that it chained still run."""
    sessions = [talked(words, "s1"), talked(words, "s2")]
    built_in = words.scheduler.handlers["mem_organize"]
    runs: list[int] = []

    def crashing(batch: list[object]) -> None:
        built_in(batch)  # type: ignore[arg-type]
        runs.append(1)
        if len(runs) in (1, 3):
            raise RuntimeError("killed between commit and finish")

    words.scheduler.register_handlers({"mem_organize": crashing})
    ask(words)
    for _ in range(4):
        words.clock.advance(120.0)  # type: ignore[attr-defined]
        words.drain()
    assert len(runs) > 3
    assert all(texts(words, ids) != list(TALK) for ids in sessions)
    added = [one for one in words.store.journal(limit=500) if one.op == "add" and ":full:" in one.item_id]
    assert len(added) == 6
    assert len(logs(words, "archiveMemory")) == 2


def test_a_race_with_an_edit_is_decided_again(words: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that was reworded meanwhile is not overwritten by what was kept of its old words."""
    ids = talked(words)
    original = words.store.apply_once
    tries: list[int] = []

    def raced(*args: object, **kwargs: object) -> object:
        tries.append(1)
        if len(tries) == 2:
            changed = words.services.indexer.index(
                [replace(row(words, ids[1]), memory="We are going to fly to Bergen in the month of June.")]
            )
            words.store.apply([UpdateItem(changed[0], None, "edited")])
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(words.store, "apply_once", raced)
    ask(words)
    assert len(tries) == 3
    assert "Bergen" in row(words, ids[1]).memory and "Oslo" not in row(words, ids[1]).memory


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"ratio": 0}, "ratio"), ({"ratio": 1.5}, "ratio"), ({"older_than_days": -1}, "older_than_days"),
     ({"tokens_min": "many"}, "tokens_min"), ({"sessions": "s1"}, "sessions")],
)  # fmt: skip
def test_bad_wishes_are_dead_lettered_by_name(words: Parts, fields: dict[str, object], named: str) -> None:
    """A field that is out of range goes to the dead letters at once, and the letter names it."""
    words.scheduler.submit_messages(message("mem_organize", json.dumps({"scope": "compact", **fields})))
    words.drain()
    (letter,) = words.queue.dead.list()
    assert letter.attempts == 0 and named in letter.error


def test_documents_are_left_as_they_are(words: Parts) -> None:
    """The chunks of a document share a session, which is no conversation: none of them is shortened."""
    ids = talked(words, "doc-1", role="document")
    ask(words)
    assert texts(words, ids) == list(TALK)
    assert {row(words, one).status for one in ids} == {ItemStatus.ACTIVATED}
