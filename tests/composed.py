"""`deploy/compose.yaml` as Compose reads it, for tests that hold it against the program or start its parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
FILLED = {
    "MEMOS_API__KEY": "a-key-of-the-test-only",
    "POSTGRES_PASSWORD": "secret",
    "REDIS_PASSWORD": "other",
}


def composed() -> dict[str, Any]:
    """The services as Compose sees them: variables filled in, anchors merged."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    filled = re.sub(r"\$\{(\w+)(?::\?[^}]*)?\}", lambda found: FILLED[found[1]], text)
    filled = re.sub(r"\$\{\w+:-([^}]*)\}", lambda found: found[1], filled)
    assert "${" not in filled
    return dict(yaml.safe_load(filled))
