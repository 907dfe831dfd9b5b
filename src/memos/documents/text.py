"""Plain text and Markdown. Markdown is cut at its headings; its words stay as they are written."""

from __future__ import annotations

import re

from memos.documents.model import Budget, Part

HEADING_CHARS_MAX = 200

_ATX = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r"^ {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_LINK = re.compile(r"!?\[([^\]\n]{0,300})\]\([^)\n]{0,2000}\)")
_EMPHASIS = re.compile(r"[*_`]+")


def plain_parts(text: str, budget: Budget) -> list[Part]:
    """The whole text as one part; form feeds part its pages."""
    pages = text.split("\f")
    if len(pages) == 1:
        return [Part(budget.text(text.strip()))] if text.strip() else []
    budget.pages(len(pages))
    return [
        Part(budget.text(page.strip()), page=no) for no, page in enumerate(pages, start=1) if page.strip()
    ]


def markdown_parts(text: str, budget: Budget) -> tuple[str, list[Part]]:
    """(title, one part for each section). The title is the first heading of the first level."""
    parts: list[Part] = []
    path = Headings()
    lines: list[str] = []
    title = fence = ""

    def close() -> None:
        body = "\n".join(lines).strip()
        lines.clear()
        if body:
            parts.append(Part(budget.text(body), headings=path.names))

    for line in _without_front_matter(text):
        if fence:
            lines.append(line)
            found = _FENCE.match(line)
            if found and found[1][0] == fence[0] and len(found[1]) >= len(fence):
                fence = ""
            continue
        if found := _FENCE.match(line):
            fence = found[1]
            lines.append(line)
            continue
        level, heading = 0, ""
        if found := _ATX.match(line):
            level, heading = len(found[1]), found[2] or ""
        elif (found := _SETEXT.match(line)) and lines and _is_setext(lines):
            level, heading = (1 if found[1][0] == "=" else 2), lines.pop()
        if level:
            close()
            heading = bare(heading)
            path.enter(level, heading)
            title = title or (heading if level == 1 else "")
        else:
            lines.append(line)
    close()
    return title, parts


def bare(heading: str) -> str:
    """A heading without the marks of its form."""
    return " ".join(_EMPHASIS.sub("", _LINK.sub(r"\1", heading)).split())[:HEADING_CHARS_MAX]


def _is_setext(lines: list[str]) -> bool:
    """Whether the line before is one paragraph line, not a list, a quotation or a table."""
    before = lines[-1].strip()
    alone = len(lines) == 1 or not lines[-2].strip()
    return bool(before) and alone and not before.startswith(("-", "*", "+", ">", "|", "#"))


def _without_front_matter(text: str) -> list[str]:
    lines = text.split("\n")
    if lines and lines[0].strip() == "---":
        for place, line in enumerate(lines[1:200], start=1):
            if line.strip() in ("---", "..."):
                return [*lines[1:place], "", *lines[place + 1 :]]
    return lines


class Headings:
    """The headings above a place, from the outermost in."""

    def __init__(self) -> None:
        self._path: list[tuple[int, str]] = []

    def enter(self, level: int, heading: str) -> None:
        """A heading of a level ends those of its level and below."""
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        if heading:
            self._path.append((level, heading))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for _, name in self._path)
