"""Images: what they tell of themselves (size, time, camera, comments), and their text where OCR is installed.

The size is checked before a pixel is unpacked. What is in a picture needs a model; for it the picture is
handed over, made small (`Options.picture`). Where it was taken (GPS) is not kept.
"""

from __future__ import annotations

import base64
import io
import warnings
from typing import Any

from memos.documents import ocr
from memos.documents.model import Budget, Document, Format, Options, Part, too_large
from memos.errors import DocumentError, DocumentUnreadable, DocumentUnsupported

PICTURE_SIDE_MAX = 1_536  # pixels of what a model is shown
JPEG_QUALITY = 85
COMMENT_CHARS_MAX = 2_000
_TAGS = {0x010E: "description", 0x010F: "maker", 0x0110: "camera", 0x0132: "taken", 0x013B: "artist"}
_EXIF_PART = 0x8769
_TAKEN = 0x9003
_TEXT_FIELDS = ("Title", "Description", "Comment", "comment", "Author")


def read_image(payload: bytes, budget: Budget, options: Options) -> Document:
    """The image. Raises DocumentUnsupported when Pillow is not installed."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DocumentUnsupported(
            f"{budget.name} is an image; reading it needs the extra: pip install 'memscheduler[documents]'"
        ) from error
    Image.MAX_IMAGE_PIXELS = None  # the bound below is ours, and comes before any pixel
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(payload))
            width, height = image.size
            if width * height > budget.limits.pixels_max:
                raise too_large(
                    budget.name, f"{width} × {height} pixels", "pixels_max", budget.limits.pixels_max
                )
            about = _about(image)
            image.load()
    except DocumentError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise DocumentUnreadable(f"{budget.name} is a damaged or cut off image: {error}") from error
    except Exception as error:  # decoders raise what they like (struct.error, KeyError, zlib.error …)
        raise DocumentUnreadable(
            f"{budget.name} is a damaged image: {type(error).__name__}: {error}"
        ) from error
    parts = [Part(budget.text(_sentence(budget.name, about)))]
    notes = []
    if options.ocr and ocr.installed():
        text = ocr.text_of(image, languages=options.ocr_languages)
        if text:
            parts.append(Part(budget.text(text), kind="ocr"))
        notes.append("its text was read by OCR" if text else "OCR found no text in it")
        about["read_by"] = "ocr"
    else:
        about["read_by"] = "metadata"
        why = "OCR is switched off" if not options.ocr else "tesseract is not installed"
        notes.append(f"only what the file tells of itself was read ({why})")
    return Document(
        Format.IMAGE,
        tuple(parts),
        title=str(about.get("description", ""))[:200],
        pages=1,
        about=about,
        notes=tuple(notes),
        picture=_picture(image) if options.picture else "",
    )


def _about(image: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "width": image.width,
        "height": image.height,
        "image_format": image.format or "",
        "frames": getattr(image, "n_frames", 1),
    }
    exif = image.getexif()
    for tag, name in _TAGS.items():
        if text := _plain(exif.get(tag)):
            found[name] = text
    if text := _plain(exif.get_ifd(_EXIF_PART).get(_TAKEN)):
        found["taken"] = text
    for name in _TEXT_FIELDS:
        if text := _plain(image.info.get(name)):
            found.setdefault("description" if name in ("Description", "Title") else "comment", text)
    return found


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    kept = "".join(sign for sign in value if sign.isprintable() or sign == "\n")
    return " ".join(kept.encode("utf-8", "replace").decode().split())[:COMMENT_CHARS_MAX]


def _sentence(name: str, about: dict[str, Any]) -> str:
    taken = str(about.get("taken", ""))
    if len(taken) >= 10 and taken[4] == ":" == taken[7]:  # EXIF writes 2024:05:01 10:20:30
        taken = taken[:10].replace(":", "-") + taken[10:16]
    camera = " ".join(filter(None, (about.get("maker", ""), about.get("camera", ""))))
    told = [f"Image {name}: {about['width']} × {about['height']} pixels, {about['image_format']}"]
    told += [f"taken {taken}"] if taken else []
    told += [f"with {camera}"] if camera else []
    said = [str(about[key]) for key in ("description", "comment") if about.get(key)]
    return ". ".join([", ".join(told), *said])


def _picture(image: Any) -> str:
    """A data URL of the picture, small enough for a model."""
    small = image.convert("RGB")
    small.thumbnail((PICTURE_SIDE_MAX, PICTURE_SIDE_MAX))
    packed = io.BytesIO()
    small.save(packed, format="JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
