"""To be."""

from pathlib import Path
from typing import Any


def copy_to_file(database: Any, path: Path) -> int:
    raise NotImplementedError
