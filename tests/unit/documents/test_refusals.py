"""What cannot or must not be read is refused with the error that says so, whatever tries it."""

from __future__ import annotations

import io
import random
import struct
import sys
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.documents import builders

from memos.documents.model import Limits, Options
from memos.documents.read import read_document
from memos.errors import (
    DocumentEmpty,
    DocumentEncrypted,
    DocumentError,
    DocumentTooLarge,
    DocumentUnreadable,
    DocumentUnsupported,
)

NO_OCR = Options(ocr=False)


def refused(payload: bytes, name: str, **limits: int) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        read_document(payload, name, limits=Limits(**limits), options=NO_OCR)  # type: ignore[arg-type]
    assert name in str(caught.value)
    return caught.value


def encrypted_entry() -> bytes:
    data = bytearray(builders.word(builders.paragraph("x")))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<H", data, at + 8, 1)  # the flag of encryption in the first entry of the directory
    return bytes(data)


@pytest.mark.parametrize(
    ("payload", "name", "kind", "says"),
    [
        (b"", "a.txt", DocumentEmpty, "is empty"),
        (b" \r\n\t ", "a.md", DocumentEmpty, "is empty"),
        (b"<html><script>x</script></html>", "a.html", DocumentEmpty, "no text"),
        (b"plain words", "a.pdf", DocumentUnreadable, "named as a PDF"),
        (b"<html>404</html>", "a.docx", DocumentUnreadable, "named as a DOCX"),
        (b"%PDF-1.7 and nothing", "a.pdf", DocumentUnreadable, "damaged or cut off"),
        (builders.docx()[:2000], "a.docx", DocumentUnreadable, "damaged or cut off"),
        (builders.png()[:60], "a.png", DocumentUnreadable, "damaged"),
        (b"\xff\xfe\x00", "a.txt", DocumentUnreadable, "cut off or damaged"),
        (b"{not json", "a.json", DocumentUnreadable, "is no JSON"),
        (b"[" * 100_000, "a.json", DocumentUnreadable, "nested too deeply"),
        (bytes(range(1, 32)) * 50, "a.txt", DocumentUnreadable, "control characters"),
        (b"\x7fELF\x02\x01", "a.bin", DocumentUnsupported, "a program"),
        (b"{\\rtf1 hello}", "a.rtf", DocumentUnsupported, "RTF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "a.doc", DocumentUnsupported, "old Office"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "a.docx",
            DocumentEncrypted,
            "password",
        ),
        (builders.packed({"notes.txt": "hello"}), "a.zip", DocumentUnsupported, "archive"),
        (encrypted_entry(), "a.docx", DocumentEncrypted, "password"),
        (builders.packed({"[Content_Types].xml": "", "xl/x": ""}), "a.xlsx", DocumentUnreadable, "lacks"),
    ],
)  # fmt: skip
def test_typed_errors(payload: bytes, name: str, kind: type[DocumentError], says: str) -> None:
    """Each cause has its class, and a text that names the file and the way out."""
    error = refused(payload, name)
    assert type(error) is kind
    assert says in str(error)


def test_a_pdf_with_a_password_is_encrypted() -> None:
    """A PDF whose key is not the empty password is told as such (RC4, 40 bit, made by hand)."""
    plain = builders.pdf([["secret"]])
    at = plain.rindex(b"trailer")
    marks = (
        b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32 + b"> >> "
    )
    payload = plain[:at] + plain[at:].replace(b"/Size", marks + b"/ID [<00><00>] /Size")
    assert type(refused(payload, "a.pdf")) is DocumentEncrypted


@pytest.mark.parametrize(
    ("payload", "name", "limits", "setting"),
    [
        (b"word " * 100, "a.txt", {"bytes_max": 99}, "BYTES_MAX"),
        (b"word " * 100, "a.txt", {"chars_max": 99}, "CHUNKS_MAX"),
        (builders.pdf([["a"], ["b"], ["c"]]), "a.pdf", {"pages_max": 2}, "PAGES_MAX"),
        (builders.pptx(), "a.pptx", {"pages_max": 1}, "PAGES_MAX"),
        (builders.xlsx(), "a.xlsx", {"pages_max": 2}, "PAGES_MAX"),
        (b"a,b\n1,2\n3,4\n", "a.csv", {"rows_max": 1}, "ROWS_MAX"),
        (builders.xlsx(), "a.xlsx", {"rows_max": 3}, "ROWS_MAX"),
        (builders.png(size=(400, 100)), "a.png", {"pixels_max": 39_999}, "PIXELS_MAX"),
        (builders.docx(), "a.docx", {"expanded_bytes_max": 1_000}, "EXPANDED_BYTES_MAX"),
    ],
)  # fmt: skip
def test_bounds_name_their_setting(payload: bytes, name: str, limits: dict[str, int], setting: str) -> None:
    """What reaches a bound is refused whole, with the setting that would raise it."""
    error = refused(payload, name, **limits)
    assert type(error) is DocumentTooLarge
    assert f"MEMOS_DOCUMENTS__{setting}" in str(error)


def bomb(size: int) -> bytes:
    text = b"<w:p>" + b" " * size
    head = f'<w:document xmlns:w="{builders.WORD}"><w:body>'.encode()
    return builders.packed({"[Content_Types].xml": "<Types/>", "word/document.xml": head + text})


def test_a_zip_bomb_stops_by_its_ratio() -> None:
    """An entry that grows a thousandfold is refused long before it is unpacked."""
    payload = bomb(30_000_000)
    assert len(payload) < 60_000
    assert "EXPANSION_RATIO_MAX" in str(refused(payload, "a.docx"))


def test_a_zip_bomb_that_lies_about_its_size() -> None:
    """The size in the directory is not believed: unpacking is counted."""
    data = bytearray(bomb(30_000_000))
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 100)
    assert isinstance(refused(bytes(data), "a.docx"), DocumentUnreadable | DocumentTooLarge)


def test_packages_inside_are_not_opened() -> None:
    """A bomb in an embedded file does nothing, since it stays closed, and the notes say so."""
    inner = builders.packed({"bomb": b"0" * 20_000_000})
    document = read_document(
        builders.word(builders.paragraph("outer"), word__embeddings__a_dot_xlsx=inner), "a.docx"
    )
    assert document.parts[0].text == "outer"
    assert document.notes == ("1 embedded file(s) were not opened",)


ENTITIES = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>',
    '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
    '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">',
)


@pytest.mark.parametrize("head", ENTITIES)
def test_entities_of_any_kind_are_refused(head: str) -> None:
    """Document types, and with them growing and outside entities, are refused before they mean anything."""
    body = (
        f'<w:document xmlns:w="{builders.WORD}"><w:body>{builders.paragraph("&amp;")}</w:body></w:document>'
    )
    payload = builders.packed({"[Content_Types].xml": "<Types/>", "word/document.xml": head + body})
    error = refused(payload, "a.docx")
    assert type(error) is DocumentUnreadable and "document type" in str(error)


def test_xml_that_is_nested_without_end() -> None:
    """Depth is bounded before the stack is."""
    deep = "<w:a>" * 5_000 + "</w:a>" * 5_000
    assert "nested" in str(refused(builders.word(deep), "a.docx"))


def test_html_that_is_nested_or_unclosed_without_end() -> None:
    """A hundred thousand open elements, hidden ones and half tags are read in linear time."""
    for payload in (b"<div>" * 100_000 + b"deep", b"<div hidden>" * 100_000 + b"</div>x", b"<a <b" * 50_000):
        try:
            read_document(b"<html>" + payload, "a.html")
        except DocumentEmpty:
            continue


SEEDS = {
    "a.pdf": builders.pdf([["The warranty lasts seven years."]]),
    "a.docx": builders.docx(),
    "a.pptx": builders.pptx(),
    "a.xlsx": builders.xlsx(),
    "a.png": builders.png("x", size=(60, 20)),
    "a.html": b"<html><body><h1>A</h1><table><tr><td>1<td>2</table><p hidden>x</p></html>",
    "a.json": b'{"a": [1, {"b": null}], "c": "d"}',
    "a.csv": b'a,b\n1,"2\n3"\n',
    "a.md": b"# A\n\n```\nx\n```\nB\n---\nc",
}


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), cuts=st.integers(0, 3), changes=st.integers(0, 30))
def test_mutated_files_are_read_or_refused(name: str, seed: int, cuts: int, changes: int) -> None:
    """Whatever is changed, cut or doubled in a file, reading it gives a document or a DocumentError."""
    source = random.Random(seed)
    data = bytearray(SEEDS[name])
    for _ in range(changes):
        data[source.randrange(len(data))] = source.randrange(256)
    for _ in range(cuts):
        if len(data) > 10:
            start = source.randrange(len(data) - 1)
            end = min(len(data), start + source.randrange(1, 200))
            data[start:end] = data[start:end] * 2 if source.random() < 0.5 else b""
    check(bytes(data), name)


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.xlsx"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_mutated_xml_inside_a_sound_package(name: str, seed: int) -> None:
    """The same for the XML itself, which a change of packed bytes never reaches."""
    source = random.Random(seed)
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(SEEDS[name])) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new,
    ):
        for entry in old.namelist():
            body = bytearray(old.read(entry))
            if entry.endswith((".xml", ".rels")) and source.random() < 0.4 and body:
                for _ in range(source.randrange(1, 6)):
                    at = source.randrange(len(body))
                    if source.random() < 0.7:
                        body[at] = source.choice(b'<>/"=&;09ax \xff')
                    else:
                        del body[at : at + source.randrange(1, 60)]
                    if not body:
                        break
            new.writestr(entry, bytes(body))
    check(out.getvalue(), name)


@settings(max_examples=200, deadline=None)
@given(
    payload=st.binary(max_size=400),
    suffix=st.sampled_from(["", ".txt", ".md", ".html", ".csv", ".json", ".pdf"]),
)
def test_any_bytes_are_read_or_refused(payload: bytes, suffix: str) -> None:
    """Any bytes under any name."""
    check(payload, "a" + suffix)


def check(payload: bytes, name: str) -> None:
    try:
        document = read_document(payload, name, options=NO_OCR, limits=Limits(pixels_max=1_000_000))
    except DocumentError as error:
        assert str(error).startswith(name)
        return
    except zlib.error as error:  # pragma: no cover
        raise AssertionError from error
    assert any(part.text.strip() for part in document.parts)
    assert all("\x00" not in part.text for part in document.parts)
    for part in document.parts:
        part.text.encode()


@pytest.mark.parametrize(
    ("payload", "name", "package"), [(SEEDS["a.pdf"], "a.pdf", "pypdfium2"), (SEEDS["a.png"], "a.png", "PIL")]
)
def test_a_missing_extra_is_named(
    payload: bytes, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package the error says what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    error = refused(payload, name)
    assert type(error) is DocumentUnsupported
    assert "pip install 'memscheduler[documents]'" in str(error)
