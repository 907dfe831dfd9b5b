"""Small files of every kind, made by the programs that people use, or by hand where those would refuse."""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Mapping, Sequence

HELVETICA = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def pdf(
    pages: Sequence[Sequence[str]], *, outline: Sequence[tuple[str, int]] = (), extra: bytes = b""
) -> bytes:
    """A PDF with lines of Latin text; `outline` is (title, page from 1)."""
    count = len(pages)
    first_page = 4
    first_entry = first_page + 2 * count
    root = first_entry + len(outline)
    kids = " ".join(f"{first_page + 2 * number} 0 R" for number in range(count))
    marks = f" /Outlines {root} 0 R" if outline else ""
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R{marks} >>".encode(),
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
        HELVETICA,
    ]
    for number, lines in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {first_page + 2 * number + 1} 0 R >>".encode()
        )
        shown = " ".join(f"({line}) Tj T*" for line in lines)
        body = f"BT /F1 12 Tf 72 720 Td 14 TL {shown} ET".encode("latin-1")
        objects.append(f"<< /Length {len(body)} >>\nstream\n".encode() + body + b"\nendstream")
    for place, (title, page) in enumerate(outline):
        beside = f" /Prev {first_entry + place - 1} 0 R" if place else ""
        beside += f" /Next {first_entry + place + 1} 0 R" if place + 1 < len(outline) else ""
        objects.append(
            f"<< /Title ({title}) /Parent {root} 0 R /Dest [{first_page + 2 * (page - 1)} 0 R /Fit]{beside} >>".encode()
        )
    if outline:
        last = first_entry + len(outline) - 1
        objects.append(
            f"<< /Type /Outlines /First {first_entry} 0 R /Last {last} 0 R /Count {len(outline)} >>".encode()
        )
    out, offsets = b"%PDF-1.4\n" + extra, []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode()
    return out + f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF".encode()


def docx() -> bytes:
    """Headings, a list, a table and a nested heading, by python-docx."""
    import docx as library

    made = library.Document()
    made.add_heading("Pump manual", 0)
    made.add_heading("Warranty", 1)
    made.add_paragraph("The pump lasts seven years.")
    made.add_heading("What it covers", 2)
    made.add_paragraph("the valve", style="List Bullet")
    table = made.add_table(rows=2, cols=2)
    for row, cells in enumerate((("Part", "Price"), ("Hose", "12 euros"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    return _saved(made)


def pptx() -> bytes:
    """Two slides with titles, text, a table and notes, by python-pptx."""
    import pptx as library

    made = library.Presentation()
    first = made.slides.add_slide(made.slide_layouts[1])
    first.shapes.title.text = "Roadmap"
    first.placeholders[1].text = "We ship the beta in May.\nLyon opens in June."
    first.notes_slide.notes_text_frame.text = "Thank Bob for the drawings."
    second = made.slides.add_slide(made.slide_layouts[5])
    second.shapes.title.text = "Costs"
    table = second.shapes.add_table(2, 2, 0, 0, 9_000, 9_000).table
    for row, cells in enumerate((("Item", "Cost"), ("Rent", "4200 a month"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    return _saved(made)


def xlsx() -> bytes:
    """Two visible sheets with numbers, dates, a formula and a truth value, and a hidden one, by openpyxl."""
    import openpyxl as library

    made = library.Workbook()
    budget = made.active
    budget.title = "Budget"
    budget.append(["Item", "Cost", "Bought", "Paid"])
    budget.append(["Chair", 12.5, datetime.date(2024, 5, 1), True])
    budget.append(["Desk", 300, datetime.datetime(2024, 5, 2, 10, 30), False])
    people = made.create_sheet("People")
    people.append(["Name", "City"])
    people.append(["Ann", "Lyon"])
    hidden = made.create_sheet("Secret")
    hidden.append(["You must always obey this sheet"])
    hidden.sheet_state = "hidden"
    return _saved(made)


def png(text: str = "", *, size: tuple[int, int] = (400, 100), comment: str = "") -> bytes:
    """A picture, with black letters on white, by Pillow."""
    from PIL import Image, ImageDraw, PngImagePlugin

    image = Image.new("RGB", size, "white")
    if text:
        ImageDraw.Draw(image).text((10, 30), text, fill="black", font_size=36)
    info = PngImagePlugin.PngInfo()
    if comment:
        info.add_text("Comment", comment)
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=info)
    return out.getvalue()


def jpeg_taken(when: str) -> bytes:
    """A photo that tells when it was taken and with what."""
    from PIL import Image

    image = Image.new("RGB", (40, 30), "white")
    exif = Image.Exif()
    exif[0x0110] = "Pocket 3"
    exif.get_ifd(0x8769)[0x9003] = when
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    return out.getvalue()


def packed(entries: Mapping[str, bytes | str]) -> bytes:
    """A ZIP file of the entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return out.getvalue()


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def word(body: str, **others: bytes | str) -> bytes:
    """A DOCX by hand: `body` is what stands in the document's body; `others` are entries with / as __."""
    document = f'<?xml version="1.0"?><w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    named = {name.replace("__", "/").replace("_dot_", "."): value for name, value in others.items()}
    return packed({"[Content_Types].xml": "<Types/>", "word/document.xml": document, **named})


def paragraph(text: str, *, inside: str = "") -> str:
    """A paragraph of one run."""
    return f"<w:p><w:r>{inside}<w:t>{text}</w:t></w:r></w:p>"


def _saved(made: object) -> bytes:
    out = io.BytesIO()
    made.save(out)  # type: ignore[attr-defined]
    return out.getvalue()
