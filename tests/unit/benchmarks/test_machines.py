"""How many machines the scale benchmark says that users need."""

from __future__ import annotations

import pytest
from benchmarks.scale.machines import Assumptions, Turn, needed

GIVEN = Assumptions(turns_a_day=10, active_share=0.2, peak_factor=3, utilisation=0.5, cores=8)


def test_each_part_is_counted_by_its_own_time() -> None:
    """432,000 users make 30 turns a second at the peak; each part's cores are that rate times its time, over use."""
    found = needed(432_000, Turn(100, 50, 20), item_bytes=1_000, given=GIVEN)
    assert found.turns_a_second == pytest.approx(30)
    assert found.program_cores == pytest.approx(6.0)
    assert found.database_cores == pytest.approx(3.0)
    assert found.redis_cores == pytest.approx(1.2)
    assert (found.machines, found.databases, found.redises) == (1, 1, 2)
    assert found.stored_tb == pytest.approx(864_000 * 365 * 2.5 * 1_000 / 1e12)


def test_the_embedded_stack_has_no_servers() -> None:
    """Without times of a database and a Redis there are none."""
    found = needed(1e6, Turn(100), item_bytes=1_000, given=GIVEN)
    assert (found.databases, found.redises) == (0, 0)
