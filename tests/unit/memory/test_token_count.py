"""Estimated tokens against what the model's own tokenizer counts."""

from __future__ import annotations

import pytest

from memos.memory.token_count import count_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),  # tokens: of the WordPiece of all-MiniLM-L6-v2, without the two special ones
    [
        ("The weather was so good that we went to the park and bought some fruit and milk.", 18),
        ("今天天气不错，我们去公园散步吧，顺便买点水果和牛奶。", 26),
        ("这是2024年3月14日的会议记录，在Google办公室。", 21),
        ("a_name, an_other_name", 9),
    ],
)
def test_the_estimate_is_within_a_fifth_of_the_tokenizer(text: str, tokens: int) -> None:
    """English, Chinese and mixed texts; digits beside Chinese characters hide none of them."""
    assert abs(count_tokens(text) - tokens) <= tokens / 5


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), (" \n\t", 0), ("word", 1), ("refrigerator", 2), ("1234567890", 5), ("a,b", 3), ("我我我", 3)],
)
def test_the_rules(text: str, tokens: int) -> None:
    """One a word up to eight letters, one a character or sign, one for two digits, none for white space."""
    assert count_tokens(text) == tokens


def test_more_text_never_costs_less() -> None:
    """The estimate of two texts side by side is the sum of both."""
    assert count_tokens("some words here. 三个字") == count_tokens("some words here.") + count_tokens(
        "三个字"
    )
