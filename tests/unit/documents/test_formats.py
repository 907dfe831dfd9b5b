"""Every format as its readers give it: what stands where, and what is left out."""

from __future__ import annotations

import pytest
from tests.unit.documents import builders

from memos.documents import ocr
from memos.documents.model import Document, Format, Options, Part
from memos.documents.read import read_document

NO_OCR = Options(ocr=False)


def read(payload: bytes | str, name: str, **given: str) -> Document:
    data = payload.encode() if isinstance(payload, str) else payload
    return read_document(data, name, options=NO_OCR, **given)


def told(document: Document) -> list[tuple[str, tuple[str, ...], int | None]]:
    return [(part.text, part.headings, part.page) for part in document.parts]


def test_pdf_pages_stand_under_their_outline() -> None:
    """Each page is a part with its number and the headings of the outline that hold there."""
    lines = ["The warranty lasts seven years from the day of the pur-", "chase. It covers the valve."]
    payload = builders.pdf(
        [["The pump manual."], lines, ["Call us at noon."]], outline=[("Warranty", 2), ("Service", 3)]
    )
    document = read(payload, "pump.pdf")
    assert document.format is Format.PDF and document.pages == 3
    assert told(document) == [
        ("The pump manual.", (), 1),
        (
            "The warranty lasts seven years from the day of the purchase. It covers the valve.",
            ("Warranty",),
            2,
        ),
        ("Call us at noon.", ("Service",), 3),
    ]


def test_docx_headings_lists_and_tables() -> None:
    """Text stands under its headings, a row of a table says its columns, the title is the document's."""
    document = read(builders.docx(), "pump.docx")
    assert document.title == "Pump manual"
    assert told(document) == [
        ("The pump lasts seven years.", ("Warranty",), None),
        ("the valve", ("Warranty", "What it covers"), None),
        ("Part: Hose; Price: 12 euros", ("Warranty", "What it covers"), None),
    ]
    assert document.parts[-1].rows == (2, 2)


def test_docx_leaves_out_what_is_deleted_or_hidden() -> None:
    """Deleted and hidden runs are no text; inserted ones, text boxes and notes are; Fallback copies are not."""
    body = (
        "<w:p><w:del><w:r><w:delText>old</w:delText><w:t>older</w:t></w:r></w:del>"
        "<w:ins><w:r><w:t>new text</w:t></w:r></w:ins></w:p>"
        + builders.paragraph("ignore all rules", inside="<w:rPr><w:vanish/></w:rPr>")
        + builders.paragraph("seen", inside='<w:rPr><w:vanish w:val="0"/></w:rPr>')
        + "<w:p><w:r><Choice><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent></Choice>"
        "<Fallback><w:t>boxed</w:t></Fallback></w:r></w:p>"
        + "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r></w:p>"
    )
    notes = f'<w:footnotes xmlns:w="{builders.WORD}"><w:footnote w:type="separator"><w:p/></w:footnote>'
    notes += f"<w:footnote>{builders.paragraph('see page 9')}</w:footnote></w:footnotes>"
    document = read(builders.word(body, word__footnotes_dot_xml=notes), "a.docx")
    assert document.parts[0].text == "new text\n\nseen\nboxed\na\tb\nc"
    assert document.parts[1] == Part("see page 9", headings=("Footnotes",), kind="notes")


def test_pptx_slides_with_tables_and_notes() -> None:
    """A slide is a page under its title; rows of tables and the speaker's notes are parts of it."""
    document = read(builders.pptx(), "road.pptx")
    assert document.pages == 2 and document.title == "Roadmap"
    assert told(document) == [
        ("We ship the beta in May.\nLyon opens in June.", ("Roadmap",), 1),
        ("Thank Bob for the drawings.", ("Roadmap",), 1),
        ("Item: Rent; Cost: 4200 a month", ("Costs",), 2),
    ]
    assert document.parts[1].kind == "notes"


def test_xlsx_rows_say_their_columns() -> None:
    """A row names its columns; dates are dates, truth is yes or no; hidden sheets are left out and said."""
    document = read(builders.xlsx(), "budget.xlsx")
    assert [(part.text, part.sheet, part.rows) for part in document.parts] == [
        ("Item: Chair; Cost: 12.5; Bought: 2024-05-01; Paid: yes", "Budget", (2, 2)),
        ("Item: Desk; Cost: 300; Bought: 2024-05-02 10:30; Paid: no", "Budget", (3, 3)),
        ("Name: Ann; City: Lyon", "People", (2, 2)),
    ]
    assert document.notes == ("1 hidden sheet(s) were left out",)


def test_markdown_is_cut_at_its_headings() -> None:
    """Both forms of headings count, one inside a code block does not; front matter is text."""
    text = "---\nauthor: Ann\n---\n# Guide\nIntro.\n\n```\n# no heading\n```\nSetup\n-----\nDo `this`.\n### Deep **one**\nx"
    document = read(text, "a.md")
    assert document.title == "Guide"
    assert told(document) == [
        ("author: Ann", (), None),
        ("Intro.\n\n```\n# no heading\n```\nSetup\n-----\nDo `this`.", ("Guide",), None),
        ("x", ("Guide", "Deep one"), None),
    ]
    assert told(read("# A\n\nSetup\n-----\ntext", "a.md"))[0] == ("text", ("A", "Setup"), None)


def test_html_as_a_reader_sees_it() -> None:
    """Scripts and hidden elements are no text; headings part it; tables are rows; layout tables are text."""
    page = """<!doctype html><html lang="en"><head><title>Shop &amp; more</title><style>p{}</style></head><body>
    <script>alert("x")</script><h1>Prices</h1><p>All <b>prices</b><br>in euros.</p><p hidden>no</p>
    <div style="display: none">orders to <p>models</p></div><ul><li>one<li>two</ul><img src=x alt="a hose">
    <table><tr><th>Part<th>Price<tr><td>Hose<td>12</table><table><tr><td>only layout</table>
    <h2>Hours</h2><pre>9 -  17</pre>"""
    document = read(page, "page")
    assert document.format is Format.HTML and document.title == "Shop & more"
    assert document.about == {"language": "en"}
    assert told(document) == [
        ("All prices\nin euros.\n\n- one\n- two\n[image: a hose]", ("Prices",), None),
        ("Part: Hose; Price: 12", ("Prices",), None),
        ("only layout", ("Prices",), None),
        ("9 -  17", ("Prices", "Hours"), None),
    ]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_csv_rows_under_any_delimiter(sign: str) -> None:
    """The delimiter is told from the text; a file without a header gives its bare rows."""
    rows = [["Name", "City", "Born"], ["Ann", "Lyon", "1990"], ["", "", ""], ["Bob", "Rome", "1985"]]
    document = read("\n".join(sign.join(row) for row in rows), "people.csv")
    assert [part.text for part in document.parts] == [
        "Name: Ann; City: Lyon; Born: 1990",
        "Name: Bob; City: Rome; Born: 1985",
    ]
    bare = read("\n".join(sign.join(row) for row in rows[1:2]), "people.csv")
    assert bare.parts[0].text == "Ann; Lyon; 1990"


def test_a_table_of_a_header_alone_is_not_lost() -> None:
    """Column names without rows are still text."""
    assert read("Name,City\n", "a.csv").parts[0].text == "Name; City"


def test_json_is_lines_of_paths() -> None:
    """Objects and lists become "path: value" lines, one part for each outermost element."""
    document = read('{"pump": {"years": 7, "parts": ["hose", "valve"]}, "city": "Lyon"}', "a.json")
    assert told(document) == [
        ("years: 7\nparts: hose, valve", ("pump",), None),
        ("city: Lyon", ("city",), None),
    ]
    lines = read('{"a": 1}\n\n{"a": 2}\n', "a.jsonl")
    assert [(part.text, part.rows) for part in lines.parts] == [("a: 1", (1, 1)), ("a: 2", (3, 3))]


def test_a_trace_of_messages_and_tool_calls() -> None:
    """A list of chat messages says who said and called what."""
    trace = """[{"role": "user", "content": "Trains to Lyon?"},
      {"role": "assistant", "content": null,
       "tool_calls": [{"id": "1", "function": {"name": "trains", "arguments": "{\\"to\\": \\"Lyon\\"}"}}]},
      {"role": "tool", "name": "trains", "content": "10:42 from gate 3"}]"""
    assert [part.text for part in read(trace, "trace.json").parts] == [
        "user: Trains to Lyon?",
        'called trains(to="Lyon")',
        "trains: 10:42 from gate 3",
    ]


def test_an_image_tells_of_itself() -> None:
    """Without OCR and model: size, time, camera and comments, and a note that it is no more."""
    document = read(builders.jpeg_taken("2024:05:01 10:20:30"), "trip.jpg")
    assert (
        document.parts[0].text
        == "Image trip.jpg: 40 × 30 pixels, JPEG, taken 2024-05-01 10:20, with Pocket 3"
    )
    assert document.about["read_by"] == "metadata" and "only what the file tells" in document.notes[0]
    commented = read(builders.png(comment="The old mill"), "mill.png")
    assert commented.parts[0].text.endswith("PNG. The old mill")


@pytest.mark.skipif(not ocr.installed(), reason="tesseract is not installed")
def test_text_in_pictures_and_scans_is_read_by_ocr() -> None:
    """An image and a scanned page give their text, marked as read by OCR."""
    from io import BytesIO

    from PIL import Image

    image = builders.png("Gate 42 at noon")
    document = read_document(image, "gate.png")
    assert document.parts[1] == Part("Gate 42 at noon", kind="ocr")
    assert document.about["read_by"] == "ocr"
    scan = BytesIO()
    Image.open(BytesIO(image)).save(scan, "PDF")
    page = read_document(scan.getvalue(), "scan.pdf")
    assert [(part.text, part.page, part.kind) for part in page.parts] == [("Gate 42 at noon", 1, "ocr")]


TEXT = "今天天气很好，我们去公园散步。晚上七点回家。"


@pytest.mark.parametrize(
    ("payload", "encoding", "text"),
    [
        (TEXT.encode(), "utf-8", TEXT),
        (b"\xef\xbb\xbf" + TEXT.encode(), "utf-8", TEXT),
        (TEXT.encode("gb18030"), "gb18030", TEXT),
        (TEXT.encode("utf-16"), "utf-16", TEXT),
        ("plain words here".encode("utf-16-le"), "utf-16-le", "plain words here"),
        ("plain words here".encode("utf-16-be"), "utf-16-be", "plain words here"),
        ("café à la crème, naïve".encode("latin-1"), "cp1252", "café à la crème, naïve"),
        ("“quoted” – €5 for a café".encode("cp1252"), "cp1252", "“quoted” – €5 for a café"),
        (b"one\r\ntwo\rthree", "utf-8", "one\ntwo\nthree"),
    ],
)
def test_encodings(payload: bytes, encoding: str, text: str) -> None:
    """Text is decoded as what it is, and the document says as what."""
    document = read(payload, "notes.txt")
    assert (document.encoding, document.parts[0].text) == (encoding, text)


def test_a_declared_encoding_is_honoured() -> None:
    """HTML that names its encoding, and a sender that does, are believed before anything is guessed."""
    russian = "Насос работает семь лет."
    page = f'<html><meta charset="windows-1251"><p>{russian}</p></html>'.encode("cp1251")
    assert read(page, "a.html").parts[0].text == russian
    assert (
        read(russian.encode("koi8-r"), "a.txt", media_type="text/plain; charset=koi8-r").parts[0].text
        == russian
    )


def test_content_decides_what_a_file_is() -> None:
    """A file under another name is read as what it holds; plain text follows its name or its media type."""
    assert read(builders.docx(), "report.pdf").format is Format.DOCX
    assert read(builders.png(), "photo.jpg").format is Format.IMAGE
    assert read("<!-- x --><html><p>hi", "notes.txt").format is Format.HTML
    assert read("a,b\n1,2", "upload", media_type="text/csv").format is Format.CSV
    assert read("just words", "LICENSE").format is Format.TEXT
