"""The process that documents are read in: it has bounds, it can be killed, and the next one is fresh."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.unit.documents import builders

from memos.documents.model import Format, Limits, Options
from memos.documents.read import read_document
from memos.documents.sandbox import Sandbox
from memos.errors import DocumentEncrypted, DocumentTooLarge, DocumentUnreadable

NO_OCR = Options(ocr=False)


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.xlsx", "a.md"])
def test_the_same_document_as_in_this_process(name: str) -> None:
    """Nothing is lost on the way between the processes."""
    payload = {
        "a.pdf": builders.pdf([["one"], ["two"]]),
        "a.docx": builders.docx(),
        "a.xlsx": builders.xlsx(),
        "a.md": "# 标题\n\n文字 \U0001f600\n".encode(),
    }[name]
    with Sandbox(options=NO_OCR) as sandbox:
        assert sandbox.read(payload, name) == read_document(payload, name, options=NO_OCR)


def test_one_process_reads_many_and_errors_keep_their_class() -> None:
    """A refused document costs the next one nothing."""
    with Sandbox(options=NO_OCR) as sandbox:
        with pytest.raises(DocumentUnreadable, match=r"a\.pdf is damaged"):
            sandbox.read(b"%PDF-1.4 nothing", "a.pdf")
        with pytest.raises(DocumentEncrypted):
            sandbox.read(
                b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "a.docx"
            )
        with pytest.raises(DocumentTooLarge, match="BYTES_MAX"):
            Sandbox(Limits(bytes_max=3)).read(b"long", "a.txt")
        assert sandbox.read(b"fine", "a.txt").parts[0].text == "fine"
        first = sandbox._process
        assert sandbox.read(b"fine too", "b.txt").format is Format.TEXT
        assert sandbox._process is first and first is not None
    assert first.poll() == 0


def patched(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let the child run `body` in the place of its reader."""
    program = (
        "import sys; sys.path[:] = {paths!r}; import memos.documents.read as r; from memos.documents.model "
        f"import *; from memos.documents.child import main\ndef bad(*a, **k):\n    {body}\n"
        "r.read_document = bad; main()"
    )
    monkeypatch.setattr("memos.documents.sandbox._START", program)


def test_a_reader_that_never_ends_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over the process is killed, with what it had started."""
    with monkeypatch.context() as patch:
        patched(patch, "import subprocess; subprocess.run(['sleep', '300'])")
        sandbox = Sandbox(Limits(seconds_max=0.5))
        with pytest.raises(DocumentTooLarge, match="SECONDS_MAX"):
            sandbox.read(b"x", "a.txt")
    assert sandbox._process is None
    assert sandbox.read(b"fine", "a.txt").parts[0].text == "fine"
    sandbox.close()


def test_a_reader_that_eats_memory_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the system, and the error names the setting."""
    patched(monkeypatch, "held = bytearray(10**9)")
    with (
        Sandbox(Limits(memory_bytes_max=256 * 1024 * 1024)) as sandbox,
        pytest.raises(DocumentTooLarge, match="MEMORY_BYTES_MAX"),
    ):
        sandbox.read(b"x", "a.txt")


@pytest.mark.parametrize("body", ["import os; os.abort()", "import os; os._exit(3)"])
def test_a_reader_that_crashes_is_an_unreadable_document(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of native code is the document's error, not ours."""
    patched(monkeypatch, body)
    with Sandbox() as sandbox, pytest.raises(DocumentUnreadable, match="crash"):
        sandbox.read(b"x" * 1_000_000, "a.txt")


def test_the_process_knows_no_secrets_and_writes_no_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys of the environment do not reach it, and a file that it writes stays empty."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    told = "import os; return Document(Format.TEXT, (Part(repr(sorted(os.environ))),))"
    with monkeypatch.context() as patch:
        patched(patch, told)
        with Sandbox() as sandbox:
            names = sandbox.read(b"x", "a.txt").parts[0].text
    assert "OPENAI_API_KEY" not in names and "MEMOS_HOME" not in names and "PATH" in names
    if sys.platform != "win32":
        patched(monkeypatch, f"open({str(tmp_path / 'out')!r}, 'w').write('x')")
        with Sandbox() as sandbox, pytest.raises(DocumentUnreadable):
            sandbox.read(b"x", "a.txt")
        assert (tmp_path / "out").stat().st_size == 0


def test_a_reader_that_prints_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a parser prints does not mix with its answer."""
    patched(monkeypatch, "print('noise'); return Document(Format.TEXT, (Part('fine'),))")
    with Sandbox() as sandbox:
        assert sandbox.read(b"x", "a.txt").parts[0].text == "fine"


def test_the_bounds_of_this_process_stay() -> None:
    """Only the child is bounded."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    with Sandbox() as sandbox:
        sandbox.read(b"x", "a.txt")
    assert resource.getrlimit(resource.RLIMIT_AS) == before and os.getpid() > 0
