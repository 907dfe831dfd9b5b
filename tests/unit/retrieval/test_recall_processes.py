"""The same store gives the same hits in whatever process asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.retrieval.test_recall_properties import TEXTS, add, conversation, opened, told_in_full

FOLDER = Path(__file__).parents[3]


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_another_process_gives_the_same_hits_to_the_last_digit(tmp_path: Path, seed: str) -> None:
    """Ids, order, scores, fits, shares and ways, with text hashed by another seed (PYTHONHASHSEED)."""
    items = conversation(
        [(text, ("Ann", "Bob")[place % 2], place % 3) for place, text in enumerate(TEXTS) if text]
    )
    with opened(tmp_path) as (store, retriever):
        add(store, items)
        here = told_in_full(retriever)
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.retrieval.test_recall_processes", str(tmp_path)],
        cwd=FOLDER,
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(here))


if __name__ == "__main__":
    with opened(Path(sys.argv[1])) as (_, asked):
        sys.stdout.write(json.dumps(told_in_full(asked)))
