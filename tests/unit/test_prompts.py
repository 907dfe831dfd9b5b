"""Prompts are files: each in both languages, with the same fields, and each asked through its step."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mem_scheduler.parts import assembled

from memos import prompts
from memos.errors import ConfigError, RateLimited
from memos.mem_scheduler.model_steps.corrections import read_corrections
from memos.mem_scheduler.model_steps.intent import recognise
from memos.mem_scheduler.model_steps.preferences import read_preferences
from memos.mem_scheduler.model_steps.rank import rank
from memos.mem_scheduler.model_steps.reading import read_window, windows
from memos.mem_scheduler.model_steps.summaries import summarise
from memos.memory.intake import Seen
from memos.memory.item import MemoryItem
from memos.memory.summary import Group
from memos.memory.working import Candidate
from memos.models.vision import VisionModel
from memos.testing import ScriptedLLM

FILES = sorted(str(one.name) for one in files("memos.prompts").iterdir() if one.name.endswith(".md"))
NAMES = sorted({name.split(".")[0] for name in FILES})
TODAY = datetime(2024, 5, 1, tzinfo=UTC)
HAN = re.compile("[\u4e00-\u9fff]")

SAID = {"en": "I left the loud café in Lyon.", "zh": "我离开了里昂那家吵闹的咖啡馆。"}
ASKED = {"en": "Where was the café?", "zh": "那家咖啡馆在哪里？"}


def turn(text: str, name: str = "m0", **fields: Any) -> MemoryItem:
    return MemoryItem(name, "c", "u", text, role="user", happened_at=TODAY, **fields)


def fields(template: str) -> set[str]:
    return set(re.findall(r"\$\{(\w+)\}", template))


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_there_in_both_languages_with_the_same_fields(name: str) -> None:
    """English and Chinese ask for the same, about the same, in the language that they are for."""
    english, chinese = (prompts.load(name, language).template for language in ("en", "zh"))
    assert fields(english) == fields(chinese)
    assert ("\n---\n" in english) == ("\n---\n" in chinese)
    assert not HAN.search(english) and HAN.search(chinese)


def test_the_documented_names_hold_the_texts() -> None:
    """Both prompts of the documents are found by name, and no other name is."""
    assert "trigger_retrieval" in prompts.INTENT_RECOGNIZING_PROMPT
    assert "missing_evidence" in prompts.INTENT_RECOGNIZING_PROMPT
    assert "new_order" in prompts.MEMORY_RERANKEING_PROMPT
    with pytest.raises(AttributeError):
        prompts.NO_SUCH_PROMPT  # noqa: B018
    with pytest.raises(ConfigError):
        prompts.load("no_such_prompt")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_intent_recognizing(language: str) -> None:
    """The query, what was asked before and working memory are asked about; the verdict comes back."""
    reply = {"queries": [{"index": 0, "trigger_retrieval": True, "missing_evidence": [ASKED[language]]}]}
    llm = ScriptedLLM([reply])
    done = recognise(llm, [ASKED[language]], [turn(SAID[language])], before=[SAID[language]], today=TODAY)
    assert done.by_place[0].intent.missing_evidence == (ASKED[language],) and done.dropped == 0
    assert_asked(llm, language, ASKED[language], SAID[language], "2024-05-01")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_memory_rerankeing(language: str) -> None:
    """The query and the candidates with dates are asked about; their order comes back as ids."""
    llm = ScriptedLLM([{"new_order": [1, 0]}])
    items = {"m0": turn(SAID[language]), "m1": turn(ASKED[language], "m1")}
    candidates = [Candidate("m0", 2.0, "r"), Candidate("m1", 1.0, "r")]
    assert rank(llm, ASKED[language], candidates, items, today=TODAY).order == ("m1", "m0")
    assert_asked(llm, language, ASKED[language], f"[0] 2024-05-01 user: {SAID[language]}")


@pytest.mark.parametrize(
    ("language", "quote", "thing", "text"),
    [
        ("en", "left the loud café", "loud places", "The user seems not to like loud places."),
        ("zh", "离开了里昂那家吵闹的", "吵闹的地方", "用户似乎不喜欢吵闹的地方。"),
    ],
)
def test_preference_extraction(language: str, quote: str, thing: str, text: str) -> None:
    """The user's turns are asked about; the preference is stated in their language."""
    row = {"turn": 0, "quote": quote, "polarity": "dislike", "object": thing, "explicit": False}
    llm = ScriptedLLM([{"preferences": [row]}])
    assert [one.text for one in read_preferences(llm, [turn(SAID[language])]).derived] == [text]
    assert_asked(llm, language, f"[0] {SAID[language]}")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_feedback_reading(language: str) -> None:
    """Comment, answer and memories are asked about; the change names the memory by its id."""
    llm = ScriptedLLM([{"changes": [{"action": "retract", "targets": [0], "text": ""}]}])
    memory = turn(SAID[language], raw=False)
    done = read_corrections(llm, ASKED[language], [memory], last_answer=SAID[language], today=TODAY)
    assert [one.target_ids for one in done.corrections] == [("m0",)]
    assert_asked(llm, language, ASKED[language], f"[0] 2024-05-01 user: {SAID[language]}")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_memory_summary(language: str) -> None:
    """The memories of a group are asked about; its text comes back."""
    group = Group("", tuple(turn(SAID[language], f"m{n}", raw=False) for n in range(3)))
    llm = ScriptedLLM([{"summaries": [{"group": 0, "text": SAID[language]}]}])
    assert dict(summarise(llm, [group], today=TODAY).texts) == {0: SAID[language]}
    assert_asked(llm, language, f"- 2024-05-01 user: {SAID[language]}", "[0] ")


@pytest.mark.parametrize(
    ("language", "quote", "text"),
    [
        ("en", "left the loud café", "The user left a café in Lyon."),
        ("zh", "离开了里昂那家", "用户离开了里昂的一家咖啡馆。"),
    ],
)
def test_memory_reading(language: str, quote: str, text: str) -> None:
    """Lines with dates and speakers, and what is noted already, are asked about; the statement comes back."""
    row = {
        "text": text,
        "kind": "event",
        "key": "café",
        "tags": [],
        "date": "",
        "confidence": 0.8,
        "evidence": [{"item": 0, "quote": quote}],
    }
    llm = ScriptedLLM([{"statements": [row], "nothing": ""}])
    [window] = windows([turn(SAID[language], participants=("Ann",))])
    assert [one.text for one in read_window(llm, window).derived] == [text]
    assert_asked(llm, language, f"[0] 2024-05-01 Wed Ann: {SAID[language]}")


@pytest.mark.parametrize(("language", "name"), [("en", "mill.png"), ("zh", "磨坊.png")])
def test_image_describing(language: str, name: str) -> None:
    """The picture is shown with the name of its file; description and text come back."""
    llm = ScriptedLLM([{"description": "A  mill.", "text": "1888\n"}], name="sees")
    assert VisionModel(llm).look("data:image/png;base64,AA==", name) == Seen("A mill.", "1888", "sees")
    assert_asked(llm, language, name)
    assert llm.calls[0].messages[1].images == ("data:image/png;base64,AA==",)


def assert_asked(llm: ScriptedLLM, language: str, *wanted: str) -> None:
    """One call: rules in the language, then what they are about; no field is left open."""
    [call] = llm.calls
    rules, about = (one.content for one in call.messages)
    assert bool(HAN.search(rules)) == (language == "zh")
    assert all(one in about for one in wanted), about
    assert "${" not in rules + about and call.schema is not None


def test_the_documented_turn_and_monitor_ask_the_model(tmp_path: Path) -> None:
    """`process_session_turn` and `monitor.detect_intent` take the model's verdict, the rules' when it fails."""
    no, yes = (
        {"queries": [{"index": 0, "trigger_retrieval": trigger, "missing_evidence": ["Lyon"]}]}
        for trigger in (False, True)
    )
    llm = ScriptedLLM([no, yes, RateLimited(3.0)])
    with assembled(tmp_path, llm=llm) as parts:
        working = [turn("The café stands in Lyon.")]
        found = [parts.scheduler.monitor.detect_intent(ASKED["en"], working) for _ in range(3)]
        assert [one.trigger_retrieval for one in found] == [False, True, True]
        assert found[1].missing_evidence == (ASKED["en"], "Lyon")
        assert found[2].missing_evidence == (ASKED["en"],)
