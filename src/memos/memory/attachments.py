"""Files and images in message parts: the documented shapes, of which only bytes that are sent along count.

    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,…", "file_id": …}}
    {"type": "input_file", "filename": …, "file_data": …}
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}, {"type": "input_image", …}
    {"type": "image" | "document", "source": {"type": "base64", "media_type": …, "data": …}}

An address or a path in such a part is never followed: a server that fetched what its clients name could be
sent to read its own network or disk. Such a part is passed over, saying so.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from memos.errors import InvalidInput
from memos.mem_scheduler.schemas.message_schemas import check_id

FILE_NAME_CHARS_MAX = 300
FILE_TYPES = ("file", "input_file", "document")
IMAGE_TYPES = ("image_url", "input_image", "image")

_DATA_URL = re.compile(r"data:(?P<type>[^,;]{0,100})(?P<parameters>(?:;[^,;]{1,100}){0,5}),", re.I)
_SUFFIXES = {
    "application/pdf": ".pdf",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/html": ".html",
    "text/csv": ".csv",
    "application/json": ".json",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file of a message. `identity` is what tells it from others: versions of one file share it."""

    index: int  # of its message
    name: str
    payload: bytes
    media_type: str = ""
    identity: str = ""
    role: str = "user"
    speaker: str = ""
    at: datetime | None = None
    explicit: bool = False  # it was asked for alone: what cannot be read is an error then, never passed over


def attachment_of(part: Mapping[str, Any], where: str, *, index: int, number: int) -> Attachment | str:
    """The file in a part; else why it brings none ("" when it is no file at all). Raises InvalidInput."""
    kind = part.get("type")
    if kind in FILE_TYPES:
        return _file(part, where, index=index, number=number)
    if kind in IMAGE_TYPES:
        return _image(part, where, index=index, number=number)
    return ""


def _file(part: Mapping[str, Any], where: str, *, index: int, number: int) -> Attachment | str:
    inner = part.get("file")
    given: Mapping[str, Any] = inner if isinstance(inner, Mapping) else part
    source = part.get("source")
    media_type = ""
    written = given.get("file_data")
    if isinstance(source, Mapping) and source.get("type") == "base64":
        written, media_type = source.get("data"), str(source.get("media_type", ""))
    if written is None or written == "":
        named = "an address" if given.get("file_url") or given.get("url") else "no content"
        return f"part {number} of type {part.get('type')!r} names {named}: send the file itself as file_data"
    if not isinstance(written, str):
        raise InvalidInput(f"{where}: file_data must be a data URL or base64, not {type(written).__name__}")
    if _is_address(written):
        return f"part {number} names an address, which is not fetched: send the file itself as file_data"
    payload, declared = _decoded(written, where)
    name = given.get("filename") or given.get("file_name") or part.get("title") or ""
    media_type = declared or media_type
    name = _file_name(name, media_type, where, fallback=f"file-{number}")
    file_id = given.get("file_id") or ""
    if file_id:
        check_id(f"{where}.file_id", file_id)
    return Attachment(index, name, payload, media_type, identity=str(file_id))


def _image(part: Mapping[str, Any], where: str, *, index: int, number: int) -> Attachment | str:
    inner = part.get("image_url")
    written = inner.get("url") if isinstance(inner, Mapping) else inner
    source = part.get("source")
    media_type = ""
    if isinstance(source, Mapping) and source.get("type") == "base64":
        written, media_type = source.get("data"), str(source.get("media_type", ""))
    kind = part.get("type")
    if not isinstance(written, str) or not written:
        return f"part {number} of type {kind!r} holds no text to remember and no image"
    if not written.lower().startswith("data:") and not media_type:
        return f"part {number} of type {kind!r} names an address, which is not fetched: send a data URL"
    payload, declared = _decoded(written, where)
    media_type = declared or media_type
    name = part.get("filename") or part.get("title") or ""
    return Attachment(
        index, _file_name(name, media_type, where, fallback=f"image-{number}"), payload, media_type
    )


def _decoded(written: str, where: str) -> tuple[bytes, str]:
    """(bytes, media type) of a data URL or of base64."""
    media_type = ""
    found = _DATA_URL.match(written)
    if found is not None:
        media_type = found["type"].lower()
        parameters = [one.strip().lower() for one in found["parameters"].split(";")]
        if "base64" not in parameters:
            raise InvalidInput(f"{where}: the data URL must be base64 (data:{media_type};base64,…)")
        written = written[found.end() :]
    elif written[:5].lower() == "data:":
        raise InvalidInput(f"{where}: {written[:60]!r} is no data URL (data:application/pdf;base64,…)")
    try:
        return base64.b64decode("".join(written.split()), validate=True), media_type
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"{where}: the content of the file is not base64 ({error})") from error


def _is_address(written: str) -> bool:
    return bool(re.match(r"(?:https?|ftp|file|s3|gs)://", written, re.I))


def _file_name(given: object, media_type: str, where: str, *, fallback: str) -> str:
    """What the file is called: the last part of what was given, since a path means nothing here."""
    if not given:
        return fallback + _SUFFIXES.get(media_type, "")
    if not isinstance(given, str):
        raise InvalidInput(f"{where}.filename must be text, not {type(given).__name__}")
    return file_name(given) or fallback


def file_name(given: str) -> str:
    """The name of a file without its folders, without what no name should hold."""
    last = re.split(r"[/\\]", given)[-1]
    plain = "".join(sign for sign in last if sign.isprintable())
    return " ".join(plain.encode("utf-8", "replace").decode().split())[-FILE_NAME_CHARS_MAX:]
