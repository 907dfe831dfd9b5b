"""The plan of faults: the same for the same seed, and true to what a backend can suffer."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from memos.chaos.plan import OF_THE_SERVER, WEIGHTS, Backend, faults


@pytest.mark.parametrize("backend", sorted(WEIGHTS))
def test_a_seed_names_a_plan(backend: Backend) -> None:
    """Two plans of one seed are equal, those of two seeds differ."""
    first, second, other = (
        list(islice(faults(backend, seed, gap_s=0.2, lease_s=2.0), 200)) for seed in (7, 7, 8)
    )
    assert first == second != other


@pytest.mark.parametrize("backend", sorted(WEIGHTS))
def test_every_fault_of_a_backend_comes(backend: Backend) -> None:
    """Over a thousand faults each kind strikes, and a pause is longer than the lease."""
    drawn = list(islice(faults(backend, 1, gap_s=0.2, lease_s=2.0), 1_000))
    assert Counter(one.kind for one in drawn).keys() == WEIGHTS[backend].keys()
    assert all(one.length_s > 2.0 for one in drawn if one.kind == "pause")


def test_what_is_ruled_out_never_comes() -> None:
    """On a shared server nothing of the server's is struck."""
    drawn = islice(faults("redis", 1, gap_s=0.2, lease_s=2.0, without=OF_THE_SERVER), 500)
    assert not OF_THE_SERVER & {one.kind for one in drawn}
