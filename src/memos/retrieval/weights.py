"""How much each stage of recall counts, as one frozen value.

A weight of 0 switches its stage off: nothing of it is computed and no hit reports it. The defaults were
fitted by `benchmarks/tune_recall.py`; the scale is that of the lexical stage, whose best candidate
scores `lexical`. `stage_table.py` says what each stage measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from memos.errors import InvalidInput
from memos.retrieval.stage_table import TABLE, stage_names

# stage -> the weights that switch it
STAGES: Mapping[str, tuple[str, ...]] = {stage.name: stage.weights for stage in TABLE if stage.weights}


@dataclass(frozen=True, slots=True)
class RecallWeights:
    """The weights of the stages, and the two numbers that shape them."""

    lexical: float = 1.0
    dense: float = 0.8
    links: float = 0.1
    participant: float = 0.7  # a participant named in the query took part
    time: float = 0.6  # it happened in a period that the query names
    scenario: float = 0.2  # same session or scenario as the request's
    recency: float = 0.0  # decays with the age
    use: float = 0.0  # grows with the logarithm of the uses
    episode: float = 0.6  # the best score of its episode
    near: float = 0.3  # each item one place away in the session
    far: float = 0.3  # each item two places away
    reply: float = 0.4  # what comes right after a question that fits
    question: float = 0.3  # taken off an item that ends by asking
    substance: float = 0.1  # it says much rather than little
    moment: float = 0.6  # it tells a time, and the query asks for one
    again: float = 0.4  # it is near in meaning to the best hit of the first look
    walk: float = 0.4  # names lead to it from the first hits
    name_terms: float = 0.5  # factor on a participant's name among the terms of the query
    several: float = 0.7  # factor on episode and neighbours when the query asks for several things
    context_floor: float = 0.6  # only what a neighbour scores above this reaches near, far, reply

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0.0 <= value <= 100.0:  # also refuses NaN
                raise InvalidInput(f"recall weight {name}={value!r} must be between 0 and 100 (0: stage off)")

    def without(self, *stages: str) -> RecallWeights:
        """The same weights with these stages switched off. InvalidInput for an unknown stage."""
        names = [name for stage in stages for name in _weights_of(stage)]
        return replace(self, **dict.fromkeys(names, 0.0))

    def only(self, *stages: str) -> RecallWeights:
        """The same weights with every other stage switched off. InvalidInput for an unknown stage."""
        kept = {name for stage in stages for name in _weights_of(stage)}
        others = [name for names in STAGES.values() for name in names if name not in kept]
        return replace(self, **dict.fromkeys(others, 0.0))

    @classmethod
    def with_values(cls, values: Mapping[str, float]) -> RecallWeights:
        """The defaults but for these weights. InvalidInput for an unknown name or an impossible value."""
        for name in values:
            if name not in cls.names():
                raise InvalidInput(
                    f"{name!r:.80} is no weight of recall; weights are {', '.join(cls.names())}"
                )
        return cls(**values)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all weights, in order."""
        return tuple(field.name for field in fields(cls))


def _weights_of(stage: str) -> tuple[str, ...]:
    [name] = stage_names([stage])
    if name not in STAGES:
        raise InvalidInput(f"the stage {stage!r} gives no score, so no weight switches it")
    return STAGES[name]
