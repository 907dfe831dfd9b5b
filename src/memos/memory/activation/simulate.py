"""How much of the block survives an update, over many updates of a made-up working set. Pure, seeded.

The working set holds `memories` of about `tokens` tokens each; an update replaces `changes` of them.
Churn: `uniform` (any may leave), `reranked` (any may leave, and the order of rank is new each time),
`young` (who came last is likelier to leave: each place from the youngest on 0.75 times as likely as the
one before), `returning` (as young, and 30 % of the newcomers left within the last updates).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from memos.memory.activation.layout import SLACK, LayoutState, Wanted, plan

Churn = Literal["uniform", "reranked", "young", "returning"]
Policy = Literal["lazy", "tail", "rank"]

LEAVING_RATIO = 0.75
RETURN_SHARE = 0.3
REMEMBERED_MAX = 20  # who may return


@dataclass(frozen=True, slots=True)
class Simulated:
    """Over all updates after the first set. length: tokens of the block by those of what is wanted."""

    reuse_mean: float
    reuse_median: float
    length_mean: float
    updates: int


def simulate(
    churn: Churn,
    changes: int,
    *,
    updates: int = 400,
    memories: int = 20,
    tokens: int = 70,
    slack: float = SLACK,
    policy: Policy = "lazy",
    seed: int = 11,
) -> Simulated:
    """policy: `lazy` is the planner with its slack, `tail` the planner without, `rank` the order of rank
    (what a block written best first gives)."""
    source = random.Random(seed)
    working = [_new(number, tokens, source) for number in range(memories)]  # oldest first
    gone: list[Wanted] = []
    count = memories
    state = plan(LayoutState(), working, standing={}).state
    ranked = list(working)
    reuse, length = [], []
    for _ in range(updates):
        for _ in range(changes):
            victim = _victim(working, churn, source)
            working.remove(victim)
            gone.append(victim)
        for _ in range(changes):
            if churn == "returning" and source.random() < RETURN_SHARE and len(gone) > changes:
                comer = gone.pop(source.randrange(len(gone) - changes))
            else:
                comer = _new(count, tokens, source)
                count += 1
            working.append(comer)
        gone = gone[-REMEMBERED_MAX:]
        before, ranked = ranked, _ranked(ranked, working, churn, source)
        if policy == "rank":
            reuse.append(_common(before, ranked))
            length.append(1.0)
            continue
        standing = {one.item_id: one.digest for one in state.residents}
        done = plan(state, ranked, standing=standing, slack=0.0 if policy == "tail" else slack)
        state = done.state
        reuse.append(done.reuse)
        length.append(done.tokens / sum(one.tokens for one in working))
    return Simulated(fmean(reuse), median(reuse), fmean(length), updates)


def _new(number: int, tokens: int, source: random.Random) -> Wanted:
    spread = max(1, tokens // 4)
    return Wanted(f"item-{number}", 1, tokens + source.randint(-spread, spread), f"digest-{number}")


def _victim(working: list[Wanted], churn: Churn, source: random.Random) -> Wanted:
    if churn in ("uniform", "reranked"):
        return source.choice(working)
    weights = [LEAVING_RATIO**age for age in range(len(working))]
    return source.choices(working[::-1], weights)[0]


def _ranked(before: list[Wanted], working: list[Wanted], churn: Churn, source: random.Random) -> list[Wanted]:
    """Best first: a new order each time, or the old one with newcomers at places of their own."""
    if churn == "reranked":
        return source.sample(working, len(working))
    here = {one.item_id for one in working}
    ranked = [one for one in before if one.item_id in here]
    known = {one.item_id for one in ranked}
    for one in working:
        if one.item_id not in known:
            ranked.insert(source.randint(0, len(ranked)), one)
    return ranked


def _common(before: list[Wanted], after: list[Wanted]) -> float:
    shared = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        shared += other.tokens
    return shared / sum(one.tokens for one in after)
