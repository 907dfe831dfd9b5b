"""How the next token is chosen: the likeliest, or drawn from the likeliest ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0 or None: the likeliest token. top_p: draw from the likeliest tokens that together have
    this probability. seed: None draws anew each time."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None


def choose(sampling: Sampling) -> Callable[[Any], int]:
    """A function from logits (vocabulary,) to a token id. Keeps its own random numbers; not thread-safe."""
    temperature = sampling.temperature or 0.0
    if temperature <= 0:
        return lambda logits: int(logits.argmax())
    random = torch.Generator(device="cpu")
    if sampling.seed is None:
        random.seed()
    else:
        random.manual_seed(sampling.seed)

    def drawn(logits: Any) -> int:
        likely = torch.softmax(logits.detach().float().cpu() / temperature, dim=-1)
        if sampling.top_p is not None and sampling.top_p < 1:
            likely = _nucleus(likely, sampling.top_p)
        if not math.isfinite(float(likely.sum())):
            return int(logits.argmax())
        return int(torch.multinomial(likely, 1, generator=random))

    return drawn


def _nucleus(likely: Any, top_p: float) -> Any:
    """What is outside of the smallest set of tokens with `top_p` of the probability becomes impossible
    (Holtzman et al. 2020, section 3.1). The likeliest token always stays."""
    ranked, order = torch.sort(likely, descending=True)
    outside = torch.cumsum(ranked, dim=-1) - ranked >= top_p
    ranked[outside] = 0.0
    return torch.zeros_like(likely).scatter(0, order, ranked)
