"""Text in pictures, by the program tesseract where it is installed; nothing is installed or fetched here."""

from __future__ import annotations

import io
import shutil
import subprocess
from functools import lru_cache
from typing import Any

SIDE_MAX = 4_000  # pixels; larger pictures are made smaller first
SECONDS_MAX = 120.0  # the process around it has a bound of its own
CHARS_MAX = 100_000


@lru_cache(maxsize=1)
def _program() -> str:
    return shutil.which("tesseract") or ""


def installed() -> bool:
    """Whether the program is there."""
    return bool(_program())


def text_of(image: Any, *, languages: str) -> str:
    """The text in a PIL image; "" when there is none or the program fails (an unknown language, say)."""
    if max(image.size) > SIDE_MAX:
        image = image.copy()
        image.thumbnail((SIDE_MAX, SIDE_MAX))
    packed = io.BytesIO()
    image.convert("L").save(packed, format="PNG")
    try:
        done = subprocess.run(
            [_program(), "stdin", "stdout", "-l", languages, "--psm", "3"],
            input=packed.getvalue(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    if done.returncode != 0:
        return ""
    text = done.stdout[: 4 * CHARS_MAX].decode("utf-8", "replace").replace("\f", "\n").replace("\x00", "")
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return "\n".join(line for place, line in enumerate(lines) if line or (place and lines[place - 1])).strip()
