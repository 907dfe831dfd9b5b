"""HTML as a reader sees it: headings part it, scripts, styles and what is hidden are left out.

What a page hides (the `hidden` attribute, `display:none`, `aria-hidden`) is no text of it: that is how pages
put orders to models where no person reads them.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

from memos.documents.model import Budget, Part
from memos.documents.table import table_parts
from memos.documents.text import HEADING_CHARS_MAX, Headings

_SILENT = frozenset(
    {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "select", "canvas", "head"}
)
_VOID = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    ]
)  # they have no end tag
_BLOCK = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "ul",
        "table",
        "tr",
        "caption",
    ]
)
_HEADING = re.compile(r"h[1-6]")
_HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?:px|pt|em)?\s*(?:;|$)", re.I
)
# A tag that another one begins in is none; many of them would cost html.parser their square.
_UNENDED = re.compile(r"<(?!!)(?=[^<>]*<)")
DEPTH_MAX = 500  # of hidden elements that are told apart


def html_parts(text: str, budget: Budget) -> tuple[str, list[Part], str]:
    """(title, parts, language)."""
    page = _Page(budget)
    page.feed(_UNENDED.sub("&lt;", text))
    page.close()
    page.end()
    return page.title.strip()[:HEADING_CHARS_MAX], page.parts, page.language


class _Page(HTMLParser):
    def __init__(self, budget: Budget) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[Part] = []
        self.title = ""
        self.language = ""
        self._budget = budget
        self._path = Headings()
        self._text: list[str] = []
        self._silent: list[str] = []  # open elements from the outermost silent one in
        self._heading: list[str] | None = None
        self._in_title = False
        self._pre = 0
        self._rows: list[list[str]] = []
        self._cell: list[str] | None = None
        self._tables = 0
        self._header_row = False

    # -- what the parser calls --------------------------------------------------------------------------

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "html":
            self.language = named.get("lang", "")[:20]
        if tag == "title" and not self.title:
            self._in_title = True
            return
        if tag == "body" and self._silent[:1] == ["head"]:  # a head that was never closed
            self._silent.clear()
        if self._silent:
            if tag not in _VOID and len(self._silent) < DEPTH_MAX:
                self._silent.append(tag)
            return
        if tag not in _VOID and (tag in _SILENT or _is_hidden(named)):
            self._silent.append(tag)
            return
        if tag == "br":
            self._say("\n")
        elif tag == "img" and named.get("alt", "").strip():
            self._say(f"[image: {named['alt'].strip()}]")
        elif _HEADING.fullmatch(tag):
            self._close_part()
            self._heading = []
        elif tag == "table":
            self._tables += 1
            if self._tables == 1:
                self._close_part()
                self._rows, self._header_row = [], False
        elif self._tables == 1 and tag == "tr":
            self._close_cell()
            self._rows.append([])
        elif self._tables == 1 and tag in ("td", "th"):
            self._close_cell()
            self._cell = []
            self._header_row = self._header_row or (tag == "th" and len(self._rows) <= 1)
        elif tag in _BLOCK:
            self._say("\n")
            if tag == "li":
                self._say("- ")
            self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
            return
        if self._silent:
            if tag in self._silent:
                place = len(self._silent) - 1 - self._silent[::-1].index(tag)
                del self._silent[place:]
            return
        if _HEADING.fullmatch(tag) and self._heading is not None:
            heading = " ".join("".join(self._heading).split())[:HEADING_CHARS_MAX]
            self._heading = None
            self._path.enter(int(tag[1]), heading)
        elif tag == "table" and self._tables:
            self._tables -= 1
            if not self._tables:
                self._close_table()
        elif self._tables == 1 and tag in ("td", "th", "tr"):
            self._close_cell()
        elif tag in _BLOCK:
            self._say("\n")
            self._pre = max(0, self._pre - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data[:HEADING_CHARS_MAX]
        elif not self._silent:
            self._say(data if self._pre else re.sub(r"\s+", " ", data))

    # -- what becomes of it -----------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if self._heading is not None:
            self._heading.append(text)
        elif self._cell is not None:
            self._cell.append(text)
        else:
            self._text.append(text)

    def _close_cell(self) -> None:
        if self._cell is not None:
            if not self._rows:
                self._rows.append([])
            self._rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def _close_table(self) -> None:
        self._close_cell()
        rows, self._rows = self._rows, []
        if max((len(row) for row in rows), default=0) <= 1:  # a table for the layout of a page
            self._text.extend(f"\n{cell}\n" for row in rows for cell in row)
            return
        self._close_part()
        numbered = list(enumerate(rows, start=1))
        wanted = True if self._header_row else None
        self.parts.extend(table_parts(numbered, self._budget, headings=self._path.names, with_header=wanted))

    def _close_part(self) -> None:
        body = _tidy("".join(self._text))
        self._text.clear()
        if body:
            self.parts.append(Part(self._budget.text(body), headings=self._path.names))

    def end(self) -> None:
        """What was left open at the end of the text."""
        if self._heading is not None:
            self._text.extend(self._heading)
            self._heading = None
        if self._tables:
            self._close_table()
        self._close_part()


def _is_hidden(attributes: dict[str, str]) -> bool:
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden", "").lower() == "true"
        or bool(_HIDDEN_STYLE.search(attributes.get("style", "")))
    )


def _tidy(text: str) -> str:
    """Lines without spaces at their ends; no more than one empty line between paragraphs."""
    lines = [line.strip() if not line.startswith("    ") else line.rstrip() for line in text.split("\n")]
    joined = "\n".join(line for place, line in enumerate(lines) if line or (place and lines[place - 1]))
    return joined.strip()
