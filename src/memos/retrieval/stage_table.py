"""The stages of recall, in the order in which a search goes through them: the one table to read.

    filter ─▶ channels ─▶ fields ─▶ context ─▶ wording ─▶ second look ─▶ lending ─▶ relativity
           ─▶ repeats, mmr ─▶ corrections ─▶ budget

    channel   finds candidates and scores them
    field     scores a candidate by what is known of it besides its text
    context   scores it by what stands around it
    wording   scores it by how it is worded
    second    searches once more with what the first look brought; finds candidates too
    cut       leaves hits out, puts them in order or says how well they fit; gives no score

The scores of one hit, each times its weight, add up to its score; `Hit.parts` and `memos explain` show them.
A stage is switched by its name, for a process (`MEMOS_RECALL__STAGES`) or for one search (`stages`). The
request's filter and its budget (`top_k`) are no stages: nobody can switch them off. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from memos.errors import InvalidInput

Kind = Literal["channel", "field", "context", "wording", "second", "cut"]

OFF = "-"  # before a name: without this stage
NAMES_MAX = 100


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its name, what it does, and the weights that scale it (a cut has none)."""

    name: str
    kind: Kind
    does: str
    weights: tuple[str, ...] = ()


TABLE: tuple[Stage, ...] = (
    Stage("lexical", "channel", "words in common, by BM25 over stems", ("lexical",)),
    Stage("dense", "channel", "nearness in meaning, by the cosine of the vectors", ("dense",)),
    Stage("links", "channel", "names in common that are no participants, the rarer the better", ("links",)),
    Stage("participant", "field", "the participant whom the query names took part", ("participant",)),
    Stage("time", "field", "it happened in a period that the query names", ("time",)),
    Stage("scenario", "field", "it is of the request's session or scenario", ("scenario",)),
    Stage("recency", "field", "it is new (off by default)", ("recency",)),
    Stage("use", "field", "it was used often (off by default)", ("use",)),
    Stage("episode", "context", "the best memory of its episode fits", ("episode",)),
    Stage("neighbours", "context", "memories one or two places away fit", ("near", "far")),
    Stage("reply", "context", "it comes right after a question that fits", ("reply",)),
    Stage("question", "wording", "it asks instead of telling (taken off)", ("question",)),
    Stage("substance", "wording", "it says much rather than little", ("substance",)),
    Stage("moment", "wording", "it tells a time, and the query asks for one", ("moment",)),
    Stage("again", "second", "nearness in meaning to the best hit of the first look", ("again",)),
    Stage("walk", "second", "names lead to it from the first hits, by a bounded random walk", ("walk",)),
    Stage("lending", "cut", "a hit ranked close to one that fits well fits nearly as well"),
    Stage("relativity", "cut", "what fits less than asked for is left out"),
    Stage("repeats", "cut", "of memories that say the same, the best is kept"),
    Stage("mmr", "cut", "a hit yields to one that adds more to those before it"),
    Stage("corrections", "cut", "what corrects a hit stands before it"),
)
BY_NAME: Mapping[str, Stage] = {stage.name: stage for stage in TABLE}
CHANNELS = frozenset(stage.name for stage in TABLE if stage.kind == "channel")
SCORING = frozenset(stage.name for stage in TABLE if stage.weights)
CUTS = frozenset(stage.name for stage in TABLE if stage.kind == "cut")
EVERY = frozenset(BY_NAME)


def switched(given: Collection[str], *, base: frozenset[str] = EVERY) -> frozenset[str]:
    """The stages that run. `base`: those that run when nothing is given.

    ("lexical", "dense") leaves no other stage that scores; cuts stay. ("-episode", "-mmr") is everything of
    `base` but these. Raises InvalidInput for an unknown stage, and where no channel is left.
    """
    if isinstance(given, str) or len(given) > NAMES_MAX or not all(isinstance(one, str) for one in given):
        raise InvalidInput(f"stages={given!r:.200} must be a list of at most {NAMES_MAX} names of stages")
    known = stage_names(given)
    kept = [name for name, one in zip(known, given, strict=True) if not one.startswith(OFF)]
    left = frozenset(name for name, one in zip(known, given, strict=True) if one.startswith(OFF))
    chosen = base
    if any(name in SCORING for name in kept):
        chosen = (base & CUTS) | frozenset(kept)
    chosen = (chosen | frozenset(kept)) - left
    if not chosen & CHANNELS:
        raise InvalidInput(
            f"stages={list(given)!r:.200} leaves no channel; one of {', '.join(sorted(CHANNELS))} must find "
            "the candidates"
        )
    return chosen


def stage_names(given: Collection[str]) -> list[str]:
    """The names without their signs. Raises InvalidInput for an unknown one."""
    names = [one.removeprefix(OFF) for one in given]
    for name in names:
        if name not in BY_NAME:
            raise InvalidInput(f"{name!r:.80} is not a stage of recall; stages are {', '.join(BY_NAME)}")
    return names
