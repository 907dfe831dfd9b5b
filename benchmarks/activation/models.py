"""Models with random weights and prompts of a wanted length for them.

Time and bytes do not depend on what the weights say. "tiny" has 3.2 million parameters (Qwen2, 4 layers,
4 KiB of float32 cache a token), "small" 25.8 million (Qwen3, 8 layers, 16 KiB), "qwen3-8b" the shape of that model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from memos.memory.activation.base import Entry, Layout
from memos.models.base import ChatMessage
from memos.models.hf.model import HFModel
from memos.testing_model import Family, TinyShape, tiny_model

NAMESPACE = "be" * 16
HEADER = "You are a kind assistant with a memory.\nWhat you remember of earlier talks:\n"
QUERY_TOKENS = 64
MEMORY_TOKENS = 70

_WORDS = [
    "Ann",
    "Max",
    "the",
    "a",
    "puppy",
    "train",
    "nurse",
    "Paris",
    "likes",
    "green",
    "tea",
    "and",
    "works",
    "meeting",
    "moved",
    "Monday",
    "Thursday",
    "trip",
    "mountains",
    "was",
    "said",
    "that",
    "leaves",
    "at",
    "ten",
    "in",
    "of",
    "to",
    "house",
    "lake",
    "answer",
    "remember",
    "allergic",
    "chicken",
    "vet",
]


@dataclass(frozen=True, slots=True)
class Shape:
    """A family and its sizes."""

    family: Family
    sizes: TinyShape


SHAPES = {
    "tiny": Shape(
        "qwen2",
        TinyShape(layers=4, width=256, heads=4, kv_heads=2, head_dim=64, inner=704, tokens_max=16_384),
    ),
    "small": Shape(
        "qwen3",
        TinyShape(layers=8, width=512, heads=8, kv_heads=4, head_dim=64, inner=1_536, tokens_max=16_384),
    ),
    "qwen3-8b": Shape(
        "qwen3",
        TinyShape(
            layers=36, width=4_096, heads=32, kv_heads=8, head_dim=128, inner=12_288, tokens_max=40_960
        ),
    ),
}


def model_of(shape: str, *, seed: int = 0, dtype: str = "float32", device: str = "cpu") -> HFModel:
    """One of SHAPES."""
    wanted = SHAPES[shape]
    return tiny_model(wanted.family, seed=seed, shape=wanted.sizes, dtype=dtype, device=device)


def sentence(model: HFModel, tokens: int, source: random.Random) -> str:
    """Words of about this many tokens in all."""
    words: list[str] = []
    while len(words) < 10 * tokens:
        words += source.choices(_WORDS, k=8)
        if len(model.text.beginning((" ".join(words) + "\n",)).ids) - _frame(model) >= tokens:
            break
    return " ".join(words)


def _frame(model: HFModel) -> int:
    return len(model.text.beginning(("a\n",)).ids) - 2


def block(model: HFModel, tokens: int, *, seed: int = 1) -> Layout:
    """A memory block of at least this many tokens, in memories of the usual length."""
    source = random.Random(seed)
    entries: list[Entry] = []
    while True:
        known = len(entries)
        for number in range(known, known + max(1, (tokens // MEMORY_TOKENS) // 4)):
            entries.append(Entry(f"m{number}", 1, f"- {sentence(model, MEMORY_TOKENS, source)}\n"))
        layout = Layout(NAMESPACE, HEADER, tuple(entries))
        if len(model.text.beginning(layout.parts).ids) >= tokens:
            break
    while len(entries) > 1:
        shorter = Layout(NAMESPACE, HEADER, tuple(entries[:-1]))
        if len(model.text.beginning(shorter.parts).ids) < tokens:
            break
        entries.pop()
    return Layout(NAMESPACE, HEADER, tuple(entries))


def question(model: HFModel, tokens: int = QUERY_TOKENS, *, seed: int = 2) -> Sequence[ChatMessage]:
    """A question of about this many tokens."""
    return (ChatMessage("user", sentence(model, tokens, random.Random(seed))),)
