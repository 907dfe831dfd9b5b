"""The ZIP package of an Office Open XML file, and its XML, read with distrust.

Sizes are counted while unpacking, not believed; an entry that swells out of proportion is a bomb and refused.
Document types, and with them entities of every kind, are refused, so that no entity grows and nothing
outside is named. Packages inside the package are never opened. (ECMA-376; the readers look at local names.)
"""

from __future__ import annotations

import io
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.parsers import expat

from memos.documents.model import Budget, too_large
from memos.errors import DocumentEncrypted, DocumentError, DocumentUnreadable

ENTRIES_MAX = 20_000
RATIO_FREE_BYTES = 1024 * 1024  # smaller entries may be as repetitive as they like
READ_BYTES = 64 * 1024
DEPTH_MAX = 200
RELATION = "r:"  # attributes of the relationships namespace keep this prefix
_RELATIONS_NAMESPACE = "/relationships"

Element = ElementTree.Element

# What zipfile raises for entries that are not what the directory says, besides its own error.
_UNPACKING = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
)
NUMBER_CHARS_MAX = 9


class Package:
    """The entries of one file by name. Raises DocumentEncrypted, DocumentTooLarge, DocumentUnreadable."""

    def __init__(self, payload: bytes, budget: Budget) -> None:
        self._budget = budget
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(payload))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
            raise self._damaged(str(error)) from error
        entries = self._archive.infolist()
        if len(entries) > ENTRIES_MAX:
            raise self._damaged(f"it has {len(entries)} entries; at most {ENTRIES_MAX} are sensible")
        self._entries = {entry.filename: entry for entry in entries}
        for entry in entries:
            if entry.flag_bits & 1:
                raise DocumentEncrypted(
                    f"{budget.name} is protected by a password: save it without one, then add it"
                )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def read(self, name: str) -> bytes:
        """One entry, unpacked."""
        entry = self._entries.get(name)
        if entry is None:
            raise self._damaged(f"it lacks {name}")
        ratio_max = self._budget.limits.expansion_ratio_max
        found = bytearray()
        try:
            with self._archive.open(entry) as stream:
                while piece := stream.read(READ_BYTES):
                    self._budget.expanded(len(piece))
                    found += piece
                    packed = max(1, entry.compress_size)
                    if len(found) > RATIO_FREE_BYTES and len(found) > ratio_max * packed:
                        raise too_large(
                            self._budget.name,
                            f"an entry ({name[:80]}) that grows more than {ratio_max} times when unpacked",
                            "expansion_ratio_max",
                            ratio_max,
                        )
        except DocumentError:
            raise
        except _UNPACKING as error:
            raise self._damaged(f"{name}: {error}") from error
        return bytes(found)

    def xml(self, name: str) -> Element:
        """One entry as a tree of local names."""
        root = next(self.elements(name, frozenset({"*"})), None)
        if root is None:
            raise self._damaged(f"{name} is empty")
        return root

    def elements(self, name: str, wanted: frozenset[str]) -> Iterator[Element]:
        """The outermost elements of the wanted local names, each as a tree, in order ("*": the root).

        The rest of the entry is passed over, so that a long one is never a whole tree.
        """
        builder = _Builder(wanted)
        data = self.read(name)
        try:
            for start in range(0, len(data), READ_BYTES):
                last = start + READ_BYTES >= len(data)
                builder.parser.Parse(data[start : start + READ_BYTES], last)
                yield from builder.taken()
        except expat.ExpatError as error:
            raise self._damaged(f"{name} is no XML: {error}") from error
        except (ValueError, LookupError) as error:
            raise self._damaged(f"{name}: {error}") from error

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """Of an entry: relation id -> (its kind, the entry it points to). Those that point outside are left out."""
        folder, base = posixpath.split(name)
        listing = posixpath.join(folder, "_rels", f"{base}.rels")
        if listing not in self._entries:
            return {}
        found = {}
        for one in self.xml(listing):
            target = one.get("Target", "")
            if one.get("TargetMode") == "External" or not target:
                continue
            path = target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target)
            kind = one.get("Type", "").rpartition("/")[2]
            found[one.get("Id", "")] = (kind, posixpath.normpath(path))
        return found

    def about(self) -> dict[str, str]:
        """Title, author and times, as the package's core properties tell them."""
        if "docProps/core.xml" not in self._entries:
            return {}
        names = {
            "title": "title",
            "creator": "author",
            "created": "created",
            "modified": "modified",
            "subject": "subject",
        }
        found = {}
        for one in self.xml("docProps/core.xml"):
            text = " ".join((one.text or "").split())[:500]
            if one.tag in names and text:
                found[names[one.tag]] = text
        return found

    def _damaged(self, reason: str) -> DocumentUnreadable:
        return DocumentUnreadable(f"{self._budget.name} is damaged: {reason}")


def number_of(text: str) -> int | None:
    """A small number as XML attributes hold it; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= NUMBER_CHARS_MAX else None


class _Builder:
    """Builds the wanted elements of one XML entry."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._stack: list[Element] = []
        self._done: list[Element] = []
        self._depth = 0
        self._text: list[str] = []
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._say
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.ExternalEntityRefHandler = self._refuse

    def taken(self) -> list[Element]:
        done, self._done = self._done, []
        return done

    def _refuse(self, *_: object) -> int:
        raise ValueError("it declares a document type or an entity, which no Office file does")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ValueError(f"it is nested more than {DEPTH_MAX} deep")
        local = name.rpartition(" ")[2]
        if not self._stack and local not in self._wanted and "*" not in self._wanted:
            return
        element = ElementTree.Element(local, {_attribute(key): value for key, value in attributes.items()})
        if self._stack:
            self._flush()
            self._stack[-1].append(element)
        self._stack.append(element)

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._stack:
            self._flush()
            element = self._stack.pop()
            if not self._stack:
                self._done.append(element)

    def _say(self, text: str) -> None:
        if self._stack:
            self._text.append(text)

    def _flush(self) -> None:
        text = "".join(self._text)
        self._text.clear()
        if not text:
            return
        here = self._stack[-1]
        if len(here):
            here[-1].tail = (here[-1].tail or "") + text
        else:
            here.text = (here.text or "") + text


def _attribute(name: str) -> str:
    namespace, _, local = name.rpartition(" ")
    return RELATION + local if namespace.endswith(_RELATIONS_NAMESPACE) else local
