"""Bytes of plain text turned into characters: which encoding, told in this order.

A byte order mark; UTF-16 without one, by its zero bytes; UTF-8; what the document declares; then the two
families that are common and can be told apart: GB18030 (Chinese), whose bytes come in pairs, and
windows-1252 (Latin-1), whose bytes stand alone. What is none of these is refused, not guessed.
"""

from __future__ import annotations

import codecs
import re

from memos.errors import DocumentUnreadable

SAMPLE_BYTES = 64 * 1024
CONTROL_SHARE_MAX = 0.01
COMMON_SHARE_MIN = 0.7

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_PAIR = re.compile(rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]")
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.I)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def decode(payload: bytes, name: str, *, declares: bool = False, declared: str = "") -> tuple[str, str]:
    """(text, encoding), line ends as "\\n". DocumentUnreadable when it is no text of a known encoding.

    declares: whether the text itself may name its encoding (HTML, XML). declared: what the sender says.
    """
    for mark, encoding in _MARKS:
        if payload.startswith(mark):
            return _strictly(payload, encoding, name), encoding.removesuffix("-sig")
    wide = _wide(payload)
    if wide is not None:
        return _strictly(payload, wide, name), wide
    named = [declared] if declared else []
    if declares and (found := _DECLARED.search(payload[:2048])):
        named.append(found[1].decode("ascii"))
    for encoding in ("utf-8", *named):
        try:
            return _clean(payload.decode(encoding), name), encoding.lower()
        except (UnicodeDecodeError, LookupError):
            continue
    encoding = _legacy(payload, name)
    return _strictly(payload, encoding, name), encoding


def _strictly(payload: bytes, encoding: str, name: str) -> str:
    try:
        return _clean(payload.decode(encoding), name)
    except UnicodeDecodeError as error:
        raise DocumentUnreadable(
            f"{name} is cut off or damaged: byte {error.start} is no {encoding} ({error.reason})"
        ) from error


def _clean(text: str, name: str) -> str:
    sample = text[:SAMPLE_BYTES]
    if len(_CONTROL.findall(sample)) > CONTROL_SHARE_MAX * len(sample):
        raise DocumentUnreadable(f"{name} is no text: it is full of control characters")
    plain = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return plain.encode("utf-8", "replace").decode()  # lone surrogates, which no store takes


def _wide(payload: bytes) -> str | None:
    """UTF-16 without a mark: in text of most scripts every other byte is often zero."""
    sample = payload[: SAMPLE_BYTES - SAMPLE_BYTES % 2]
    if len(sample) < 4 or b"\x00" not in sample:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > 0.3 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.3 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _legacy(payload: bytes, name: str) -> str:
    sample = payload[:SAMPLE_BYTES]
    runs = _HIGH_RUN.findall(sample)
    pairs = _PAIR.findall(sample)
    # GB2312's frequent characters, and its punctuation, begin with these bytes.
    common = sum(1 for pair in pairs if 0xB0 <= pair[0] <= 0xD7 or 0xA1 <= pair[0] <= 0xA3)
    if pairs and common >= COMMON_SHARE_MIN * len(pairs) and max(map(len, runs)) >= 4:
        return "gb18030"
    if b"\x00" not in sample and sum(map(len, runs)) / len(runs) < 2 and len(runs) * 3 < len(sample):
        return "cp1252" if not re.search(rb"[\x81\x8d\x8f\x90\x9d]", sample) else "latin-1"
    raise DocumentUnreadable(f"{name} is in an encoding that cannot be told (or no text): save it as UTF-8")
