"""The web page that the server shows at `/`: static files beside this module, written by hand, no build step.

`PATHS` maps each path of the server to its file and media type; nothing else is ever served. The page asks
for no address but its server's own, and runs under a policy without inline scripts and styles.
"""

from __future__ import annotations

from pathlib import PurePosixPath

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SCRIPTS = (
    "activation",
    "api",
    "app",
    "chart",
    "dead",
    "dialogs",
    "dom",
    "format",
    "health",
    "keyboard",
    "latency",
    "logs",
    "poll",
    "queue",
    "search",
    "session",
    "theme",
    "utilisation",
    "working",
)
_FILES = ("style.css", "icon.svg", *(f"{name}.js" for name in _SCRIPTS))

PATHS: dict[str, str] = {"/": "index.html"} | {f"/dashboard/{name}": name for name in _FILES}


def media_type(name: str) -> str:
    """The media type of one of the files."""
    return _TYPES[PurePosixPath(name).suffix]


def read(name: str) -> bytes:
    """The bytes of one of the files, from the package wherever it is installed."""
    from importlib.resources import files

    return (files(__package__) / name).read_bytes()
