"""`memos eval locomo DIR`: recall on the LoCoMo conversations (Maharana et al. 2024), by the public path.

One turn is one raw memory ("text [shares caption of the photo]"; speaker, session and date as fields);
each conversation has a cube of its own. Every question of categories 1 to 4 whose evidence names turns of
the conversation is asked with top_k = 50, no relativity cut and no dedup. Wanted are the turns that its
evidence names; a hit stands for one turn. It is asked again with the weights that were fitted without
its conversation, and once with the defaults that users live with. Adversarial questions (category 5)
have no evidence to find and are left out.

The data set is CC BY-NC 4.0 and no part of this package: the caller names the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memos.errors import InvalidInput
from memos.evaluation.metrics import score
from memos.evaluation.report import Asked, Report
from memos.evaluation.systems import PublicPath, Turn, WeightedPath
from memos.retrieval.weights import RecallWeights

if TYPE_CHECKING:
    from memos.runtime import Runtime

CATEGORIES: Mapping[int, str] = {1: "multi_hop", 2: "temporal", 3: "open_domain", 4: "single_hop"}
TOP_K = 50
FOLDS = "locomo_folds.json"  # conversation -> weights fitted on the other ones
GATES = "locomo_gates.json"  # conversation -> the gate of recall, chosen on the other ones

Progress = Callable[[str, int, int], None]  # stage, finished, total

_SESSION = re.compile(r"session_(\d+)\Z")
_EVIDENCE = re.compile(r"D:?(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Question:
    """One question and the turns that answer it."""

    text: str
    category: str
    wanted: frozenset[str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns by session, in order, and the questions that can be scored."""

    name: str
    sessions: tuple[tuple[Turn, ...], ...]
    questions: tuple[Question, ...]


def evaluate(runtime: Runtime, folder: Path, *, on_progress: Progress = lambda *_: None) -> Report:
    """Fill the runtime's store with the conversations of `folder` and ask all questions.

    The runtime's store should be empty and its scheduler need not run. Raises InvalidInput when the folder
    holds no conversation.
    """
    conversations = load(folder)
    system = PublicPath(runtime)
    sessions = sum(len(conversation.sessions) for conversation in conversations)
    finished = 0
    for conversation in conversations:
        for turns in conversation.sessions:
            system.add(conversation.name, turns)
            finished += 1
            on_progress("storing sessions", finished, sessions)
    asked: list[Asked] = []
    total = sum(len(conversation.questions) for conversation in conversations)
    for conversation in conversations:
        unseen = WeightedPath(runtime.store, runtime.embedder, fold_weights(conversation.name))
        for question in conversation.questions:
            asked.append(_ask(conversation.name, question, system, unseen))
            on_progress("asking", len(asked), total)
    return Report(tuple(asked), tuple(CATEGORIES.values()))


def _ask(cube_id: str, question: Question, system: PublicPath, unseen: WeightedPath) -> Asked:
    ranking = system.search(cube_id, question.text, top_k=TOP_K)
    held_out = unseen.search(cube_id, question.text, top_k=TOP_K)
    plain = system.search(cube_id, question.text, top_k=None)
    plain_held_out = unseen.search(cube_id, question.text, top_k=None)
    return Asked(
        conversation=cube_id,
        category=question.category,
        scores=score(ranking.message_ids, question.wanted),
        cross_validated=score(held_out.message_ids, question.wanted),
        defaults=score(plain.message_ids, question.wanted),
        defaults_cross_validated=score(plain_held_out.message_ids, question.wanted),
        cpu_ms=ranking.cpu_ms,
        wall_ms=ranking.wall_ms,
    )


@cache
def _folds() -> Mapping[str, RecallWeights]:
    text = resources.files("memos.evaluation").joinpath(FOLDS).read_text(encoding="utf-8")
    return {name: RecallWeights(**weights) for name, weights in json.loads(text).items()}


def fold_weights(conversation: str) -> RecallWeights:
    """Weights fitted without this conversation; the shipped ones for a conversation they never saw."""
    return _folds().get(conversation, RecallWeights())


@dataclass(frozen=True, slots=True)
class FoldGate:
    """The numbers of the gate that leaves recall out; the settings are named `scheduler.gate_*`."""

    terms_min: int = 5
    spread_min: float = 1.4
    several_margin: float = 1.0


@cache
def _gates() -> Mapping[str, FoldGate]:
    text = resources.files("memos.evaluation").joinpath(GATES).read_text(encoding="utf-8")
    return {name: FoldGate(**gate) for name, gate in json.loads(text).items()}


def fold_gate(conversation: str) -> FoldGate:
    """The gate chosen without this conversation; the shipped one for a conversation that it never saw."""
    return _gates().get(conversation, FoldGate())


def load(folder: Path) -> list[Conversation]:
    """The conversations of a folder, one JSON file each, by file name. Raises InvalidInput."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise InvalidInput(f"{str(folder)!r} holds no JSON file; give the folder of the conversations")
    conversations = []
    for file in files:
        try:
            conversations.append(parse(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{str(file)!r} is not a LoCoMo conversation: {error!r}") from error
    return conversations


def parse(given: Mapping[str, Any]) -> Conversation:
    """One conversation as the data set writes it. Evidence ids are repaired; unusable questions left out."""
    talk = given["conversation"]
    numbers = sorted(int(found[1]) for name in talk if (found := _SESSION.match(name)))
    sessions = tuple(tuple(_turns(talk, number)) for number in numbers if talk[f"session_{number}"])
    known = frozenset(turn.message_id for turns in sessions for turn in turns)
    questions = []
    for entry in given["qa"]:
        category = CATEGORIES.get(entry["category"])
        wanted = frozenset(evidence_ids(entry.get("evidence") or ())) & known
        if category and wanted:
            questions.append(Question(str(entry["question"]), category, wanted))
    return Conversation(given["sample_id"], sessions, tuple(questions))


def _turns(talk: Mapping[str, Any], number: int) -> Iterator[Turn]:
    for entry in talk[f"session_{number}"]:
        caption = (entry.get("blip_caption") or "").strip()
        text = entry["text"].strip()
        yield Turn(
            message_id=entry["dia_id"],
            session_id=f"session_{number}",
            role="user" if entry["speaker"] == talk["speaker_a"] else "assistant",
            name=entry["speaker"],
            text=f"{text} [shares {caption}]".strip() if caption else text,
            at=talk[f"session_{number}_date_time"],
        )


def evidence_ids(evidence: list[str] | tuple[str, ...]) -> Iterator[str]:
    """Turn ids in evidence as written: several in one string, a stray colon, padded numbers."""
    for written in evidence:
        for session, turn in _EVIDENCE.findall(written):
            yield f"D{int(session)}:{int(turn)}"
