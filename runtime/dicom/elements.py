"""Parser for the structure of a DICOM file (PS3.5 section 7, PS3.10 section 7) that extracts only the given elements.

pydicom logs damaged headers and quotes their values: one wrong byte in the file meta can make it print a patient's
name. Therefore pydicom does not parse the file. This module traverses the elements and keeps the raw bytes of those on
a list, without interpreting them. It logs nothing, and its ValueErrors contain no values.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

MAX_ELEMENTS = 400_000
"""Limit on elements and items of a file; an enhanced MR with 1,000 frames has a tenth of it."""
MAX_INFLATED = 160 * 1024 * 1024
"""Limit on the decompressed size of a deflated file, in bytes."""
_MAX_DEPTH = 12
"""Limit on nested sequences; the objects of the standard use four."""

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SYNTAX = 0x00020010
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""Value representations whose length has four bytes (PS3.5 7.1.2)."""

Elements: TypeAlias = "dict[int, Element]"


@dataclass(frozen=True)
class Element:
    """An extracted element."""

    vr: str | None
    """Value representation, two letters; None if the file does not state it."""
    value: bytes
    """Raw value; empty for a sequence."""
    items: list[Elements] | None = None
    """The items of a sequence; None for other elements."""
    undefined_length: bool = False


@dataclass(frozen=True)
class File:
    """The result of `parse`."""

    syntax: bytes | None
    """Transfer syntax UID as stored, without padding; None if missing."""
    implicit: bool
    little: bool
    elements: Elements = field(default_factory=dict)

    def dataset(self) -> Dataset:
        """The elements as a pydicom Dataset; its file meta has only the transfer syntax."""
        from pydicom.dataset import FileMetaDataset

        made = _dataset(self.elements, implicit=self.implicit, little=self.little)
        made.file_meta = FileMetaDataset()
        if self.syntax is not None:
            made.file_meta.TransferSyntaxUID = self.syntax.decode("ascii")
        return made


def parse(data: bytes, wanted: Collection[int], sequences: Collection[int] = ()) -> File:
    """The elements of `data` with tags in `wanted`, at any depth within `sequences`; the sequences are included.

    data: a file with or without preamble and file meta. A truncated last element is kept.

    Raises ValueError for invalid structure, too deep nesting, too many elements, or too much decompressed data.
    """
    position = 132 if data[128:132] == b"DICM" else 0
    walk = _Walk(data, frozenset((_SYNTAX,)), frozenset(), little=True)
    implicit = not walk.states_vr(position)
    meta, position = walk.elements(position, len(data), implicit=implicit, group=2)
    _, position = walk.elements(position, len(data), implicit=True, group=0)  # skips commands (PS3.7)
    syntax = meta[_SYNTAX].value.rstrip(b"\0 ") if _SYNTAX in meta else None
    if syntax is not None and (not syntax or syntax.strip(b"0123456789.")):
        if syntax:
            raise ValueError("a transfer syntax that is no UID")
        syntax = None
    if syntax == DEFLATED.encode():
        data, position = _inflated(data[position:]), 0
    little = syntax != EXPLICIT_BIG.encode()
    if syntax is None and len(data) >= position + 8:
        # Group numbers of big endian files, read as little endian, are at least 0x400.
        little = data[position + 1] < 4 or not walk.states_vr(position)
    walk = _Walk(data, frozenset(wanted), frozenset(sequences), little=little)
    implicit = not walk.states_vr(position)  # detected, because some files contradict their transfer syntax
    if len(data) < position + 6:
        implicit = syntax in (None, IMPLICIT_LITTLE.encode())
    found, _ = walk.elements(position, len(data), implicit=implicit)
    return File(syntax, implicit, little, found)


def _inflated(data: bytes) -> bytes:
    """Decompressed raw deflate data (PS3.5 A.5). Raises ValueError above `MAX_INFLATED` bytes."""
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        result = inflater.decompress(data, MAX_INFLATED + 1)
    except zlib.error:
        raise ValueError("a deflated dataset that does not inflate") from None
    if len(result) > MAX_INFLATED:
        raise ValueError("a deflated dataset that inflates to too much")
    if not inflater.eof:
        raise ValueError("a deflated dataset that is cut off")
    return result


class _Walk:
    """Traversal of one encoded dataset, with a limit on the number of elements."""

    def __init__(self, data: bytes, wanted: frozenset[int], sequences: frozenset[int], *, little: bool) -> None:
        order = "<" if little else ">"
        self._data = data
        self._wanted = wanted | sequences
        self._sequences = sequences
        self._tag = struct.Struct(f"{order}HH").unpack_from
        self._short = struct.Struct(f"{order}H").unpack_from
        self._long = struct.Struct(f"{order}L").unpack_from
        self._left = MAX_ELEMENTS

    def states_vr(self, position: int) -> bool:
        """Whether the element at `position` has an explicit VR (two capital letters)."""
        return _is_vr(self._data[position + 4 : position + 6])

    def elements(
        self, position: int, end: int, *, implicit: bool, group: int | None = None, depth: int = 0
    ) -> tuple[Elements, int]:
        """The wanted elements from `position`, and the end position: `end`, or after an item delimiter.

        group: stop before the first element of another group.
        """
        found: Elements = {}
        while position + 8 <= end:
            high, low = self._tag(self._data, position)
            if group is not None and high != group:
                break
            self._count()
            tag = high << 16 | low
            vr, length, position = self._head(position, implicit)
            if tag == _ITEM_END:
                break
            wanted = tag in self._wanted
            if length == _UNDEFINED:
                items, value, position = self._undefined(position, end, vr, tag, implicit, depth)
                if wanted and (items is not None or value is not None):
                    found[tag] = Element(vr, value or b"", items, undefined_length=True)
                continue
            stop = position + length
            if wanted:
                if tag in self._sequences:
                    implied = implicit or vr in (None, "UN")
                    items, _ = self._items(position, min(stop, end), tag, implicit=implied, depth=depth)
                    found[tag] = Element(vr, b"", items)
                else:
                    found[tag] = Element(vr, self._data[position : min(stop, end)])
            position = stop
        return found, position

    def _head(self, position: int, implicit: bool) -> tuple[str | None, int, int]:
        """VR, length, and position of the value."""
        vr = self._data[position + 4 : position + 6]
        if implicit or not _is_vr(vr):  # some writers change to implicit within a file
            return None, self._long(self._data, position + 4)[0], position + 8
        if vr not in _LONG:
            return vr.decode(), self._short(self._data, position + 6)[0], position + 8
        if position + 12 > len(self._data):
            raise ValueError("an element that is cut off")
        return vr.decode(), self._long(self._data, position + 8)[0], position + 12

    def _undefined(
        self, position: int, end: int, vr: str | None, tag: int, implicit: bool, depth: int
    ) -> tuple[list[Elements] | None, bytes | None, int]:
        """The items of a sequence of undefined length, or the fragments of pixel data, and the position after the
        delimiter.

        Both are None for truncated pixel data without delimiter.
        """
        start = position
        if tag in self._sequences or vr == "SQ" or (vr != "OB" and vr != "OW" and tag >> 16 != 0x7FE0):
            implied = implicit or vr in (None, "UN")
            items, position = self._items(start, end, tag, implicit=implied, depth=depth, undefined=True)
            return (items if tag in self._sequences else None), None, position
        while position + 8 <= end:
            self._count()
            high, low = self._tag(self._data, position)
            (length,) = self._long(self._data, position + 4)
            found = high << 16 | low
            if found == _SEQUENCE_END:
                return None, self._data[start:position], position + 8
            if found != _ITEM or length == _UNDEFINED:
                raise ValueError("fragments that are not items")
            position += 8 + length
        return None, None, end

    def _items(
        self, position: int, end: int, tag: int, *, implicit: bool, depth: int, undefined: bool = False
    ) -> tuple[list[Elements], int]:
        """The items of a sequence, and its end position."""
        if depth >= _MAX_DEPTH:
            raise ValueError("sequences nested too deep")
        items: list[Elements] = []
        while position + 8 <= end:
            self._count()
            high, low = self._tag(self._data, position)
            (length,) = self._long(self._data, position + 4)
            found, position = high << 16 | low, position + 8
            if found == _SEQUENCE_END:
                break
            if found != _ITEM:
                raise ValueError("a sequence of something else than items")
            stop = end if length == _UNDEFINED else min(position + length, end)
            if length != _UNDEFINED and tag not in self._sequences:
                position = stop
                continue
            implied = implicit or not self.states_vr(position)
            item, after = self.elements(position, stop, implicit=implied, depth=depth + 1)
            items.append(item)
            position = after if length == _UNDEFINED else stop
        return items, position

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many elements")


def _is_vr(two: bytes) -> bool:
    return len(two) == 2 and 65 <= two[0] <= 90 and 65 <= two[1] <= 90


def _dataset(elements: Elements, *, implicit: bool, little: bool) -> Any:
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.tag import BaseTag

    made: dict[Any, Any] = {}
    for number, element in elements.items():
        tag = BaseTag(number)
        if element.items is not None:
            parts = [_dataset(item, implicit=implicit, little=little) for item in element.items]
            made[tag] = DataElement(tag, "SQ", Sequence(parts))
            continue
        length = _UNDEFINED if element.undefined_length else len(element.value)
        vr = None if element.vr == "UN" else element.vr
        made[tag] = RawDataElement(tag, vr, length, element.value, 0, vr is None, little)
    result = Dataset(made)
    result.set_original_encoding(implicit, little, "iso8859")
    return result
