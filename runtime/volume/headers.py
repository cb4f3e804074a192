"""`read_header`: what a DICOM file states about itself and about the place of each of its frames.

`runtime.dicom.elements` extracts the listed elements only, and this module decodes them itself: pydicom, which may log
the values of damaged elements, sees none of them. Patient id and name are read to tell patients apart, and kept as a
digest only.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stageproof.runtime.dicom.elements import Element, Elements, parse
from stageproof.runtime.errors import ImageError
from stageproof.runtime.headers.limits import MAX_FRAMES
from stageproof.runtime.volume.volume import SeriesFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TAG = {
    "ImageType": 0x00080008,
    "Modality": 0x00080060,
    "SeriesDescription": 0x0008103E,
    "AcquisitionContrast": 0x00089209,
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "PatientAge": 0x00101010,
    "ScanningSequence": 0x00180020,
    "MRAcquisitionType": 0x00180023,
    "SliceThickness": 0x00180050,
    "RepetitionTime": 0x00180080,
    "EchoTime": 0x00180081,
    "InversionTime": 0x00180082,
    "ProtocolName": 0x00181030,
    "EffectiveEchoTime": 0x00189082,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
}
_SHARED, _EACH = 0x52009229, 0x52009230
_GROUPS = (0x00209113, 0x00209116, 0x00289110, 0x00189112, 0x00189114)
"""Plane position, plane orientation, pixel measures, MR timing, MR echo (PS3.3 C.7.6.16 and C.8.13)."""


@dataclass(frozen=True)
class FrameGeometry:
    """The place of one frame in the patient (PS3.3 C.7.6.2), None where the file does not state it."""

    frame: int
    """Index in its file."""
    position: NDArray[np.float64] | None
    """(3,) mm, LPS: centre of the first pixel."""
    orientation: NDArray[np.float64] | None
    """(2, 3): directions of increasing column and row index."""
    pixel_spacing: tuple[float, float] | None
    """mm between rows, and between columns."""
    shape: tuple[int, int]
    """Rows and columns."""


@dataclass(frozen=True)
class FileHeader:
    """The header of one DICOM file with pixels."""

    patient: str
    """Digest of id and name."""
    study: str
    series: str
    facts: SeriesFacts
    frames: tuple[FrameGeometry, ...]


def read_header(data: bytes, where: str) -> FileHeader | None:
    """The header of the DICOM file `data`; None if it is none of an image. where: its name in messages.

    Raises ImageError if it is damaged.
    """
    try:
        parsed = parse(data, frozenset(_TAG.values()), frozenset((_SHARED, _EACH, *_GROUPS)))
        found = _Elements(parsed.elements, "<" if parsed.little else ">")
        rows, columns = found.whole("Rows"), found.whole("Columns")
        if not rows or not columns:
            return None
        shared, each = found.items(_SHARED), found.items(_EACH)
        count = found.whole("NumberOfFrames") or 1
        if not 1 <= count <= MAX_FRAMES:
            raise ValueError("too many frames")
        first = found.over(shared[:1]).over(each[:1])
        frames = tuple(
            _geometry(found.over(shared[:1]).over(each[index : index + 1]), index, (rows, columns))
            for index in range(count)
        )
        secret = b"\0".join(found.raw(name) for name in ("PatientID", "PatientName"))
        patient = hashlib.sha256(secret).hexdigest()
        return FileHeader(
            patient, found.text("StudyInstanceUID"), found.text("SeriesInstanceUID"), _facts(first), frames
        )
    except (ValueError, struct.error, IndexError):
        # Not chained: the message of a conversion quotes the value.
        raise ImageError(f"{where} has a damaged DICOM header. Copy or export it again.") from None


class _Elements:
    """Decoded access to extracted elements."""

    def __init__(self, elements: Elements, order: str) -> None:
        self._elements = elements
        self._order = order

    def items(self, tag: int) -> list[Elements]:
        element = self._elements.get(tag)
        return element.items or [] if element is not None else []

    def over(self, groups: list[Elements]) -> _Elements:
        """These elements, and in their place those of the functional groups of a frame."""
        merged = dict(self._elements)
        for group in groups:
            for sequence in _GROUPS:
                for item in (group[sequence].items or [])[:1] if sequence in group else []:
                    merged.update(item)
        return _Elements(merged, self._order)

    def raw(self, name: str) -> bytes:
        element: Element | None = self._elements.get(_TAG[name])
        return b"" if element is None else element.value.strip(b" \0")

    def text(self, name: str) -> str:
        """Printable ASCII, at most 64 characters a value; others become ``?``."""
        return re.sub(r"[^ -~]", "?", self.raw(name).decode("latin-1"))[:64]

    def codes(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.text(name).split("\\") if part.strip())

    def numbers(self, name: str) -> list[float]:
        """Values of a decimal string (DS, IS). Raises ValueError for anything else than finite numbers."""
        parts = [part for part in self.raw(name).decode("latin-1").split("\\") if part.strip(" \0")]
        numbers = [float(part) for part in parts]
        if not all(map(math.isfinite, numbers)) or any("_" in part for part in parts):
            raise ValueError("not a decimal string")
        return numbers

    def number(self, name: str) -> float | None:
        numbers = self.numbers(name)
        return numbers[0] if numbers else None

    def whole(self, name: str) -> int | None:
        """An unsigned short, or a decimal string of digits."""
        value = self.raw(name) if name == "NumberOfFrames" else self._value(name)
        if not value:
            return None
        if name == "NumberOfFrames":
            return int(value)
        return int(struct.unpack(f"{self._order}H", value[:2])[0])

    def double(self, name: str) -> float | None:
        value = self._value(name)
        number = struct.unpack(f"{self._order}d", value[:8])[0] if value else None
        return float(number) if number is not None and math.isfinite(number) else None

    def _value(self, name: str) -> bytes:
        element: Element | None = self._elements.get(_TAG[name])
        return b"" if element is None else element.value


def _geometry(found: _Elements, index: int, shape: tuple[int, int]) -> FrameGeometry:
    position, orientation = found.numbers("ImagePositionPatient"), found.numbers("ImageOrientationPatient")
    spacing = found.numbers("PixelSpacing")
    return FrameGeometry(
        index,
        np.array(position) if len(position) == 3 else None,
        np.array(orientation).reshape(2, 3) if len(orientation) == 6 else None,
        (spacing[0], spacing[1]) if len(spacing) == 2 else None,
        shape,
    )


def _facts(found: _Elements) -> SeriesFacts:
    # Some scanners give all series of an examination one protocol name.
    described = found.text("SeriesDescription") or found.text("ProtocolName")
    echo = found.number("EchoTime")
    return SeriesFacts(
        modality=found.text("Modality") or None,
        description=described,
        age=age_years(found.text("PatientAge")),
        image_type=found.codes("ImageType"),
        acquisition=found.text("MRAcquisitionType") or None,
        sequence=found.codes("ScanningSequence"),
        contrast=found.text("AcquisitionContrast") or None,
        repetition_time=found.number("RepetitionTime"),
        echo_time=found.double("EffectiveEchoTime") if echo is None else echo,
        inversion_time=found.number("InversionTime"),
        thickness=found.number("SliceThickness"),
    )


def age_years(text: str) -> float | None:
    """Years of an age string (PS3.5 6.2: ``"018M"``); digits without a unit count as years. None if it is neither."""
    match = re.fullmatch(r"\s*(\d{1,3})([DWMY]?)\s*", text)
    if match is None:
        return None
    return int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12.0}.get(match[2], 1.0)
