"""Which stages run."""

from __future__ import annotations

import pytest

from memos.errors import InvalidInput
from memos.retrieval.stage_table import CUTS, EVERY, SCORING, TABLE, switched


def test_nothing_given_leaves_everything_on() -> None:
    """The base runs where a request does not say, and a name is in the table once."""
    assert switched(()) == EVERY
    assert switched((), base=EVERY - {"walk"}) == EVERY - {"walk"}
    assert len({stage.name for stage in TABLE}) == len(TABLE)


def test_names_keep_only_the_stages_that_score_and_all_cuts() -> None:
    """Naming stages that score switches the others off; cuts go by their own names."""
    assert switched(["lexical", "dense"]) == {"lexical", "dense"} | CUTS
    assert switched(["lexical", "-mmr"]) == {"lexical"} | CUTS - {"mmr"}
    assert switched(["mmr"], base=EVERY - {"mmr"}) == EVERY


def test_a_minus_takes_one_stage_off() -> None:
    """Everything else of the base stays, and what the settings took off stays off."""
    assert switched(["-episode"]) == EVERY - {"episode"}
    assert switched(["-episode"], base=EVERY - {"walk"}) == EVERY - {"episode", "walk"}


@pytest.mark.parametrize(
    "given", [["reranking"], ["-nothing"], [""], ["-"], ["LEXICAL"], ["dense", "budget"], ["--mmr"]]
)
def test_an_unknown_stage_is_refused_with_the_known_ones(given: list[str]) -> None:
    """The error names the stage and lists those that there are."""
    with pytest.raises(InvalidInput, match="stages are lexical, dense"):
        switched(given)


@pytest.mark.parametrize(
    "given", [["time", "episode"], ["-lexical", "-dense", "-links"], ["lexical", "-lexical"]]
)
def test_a_search_without_a_channel_is_refused(given: list[str]) -> None:
    """Without lexical, dense and links nothing could be found, which is said instead."""
    with pytest.raises(InvalidInput, match="leaves no channel"):
        switched(given)


@pytest.mark.parametrize("given", ["lexical", [1], ["lexical"] * 101])
def test_what_is_no_short_list_of_names_is_refused(given: object) -> None:
    """A text instead of a list, other values and endless lists raise InvalidInput."""
    with pytest.raises(InvalidInput, match="stages"):
        switched(given)  # type: ignore[arg-type]


def test_every_stage_says_what_it_does() -> None:
    """The table is what people read."""
    assert all(stage.does and stage.kind for stage in TABLE)
    assert {stage.name for stage in TABLE if stage.weights} == SCORING
