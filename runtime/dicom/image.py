"""`read_dicom`: reads a DICOM file as 8-bit images by the standard's display pipeline (PS3.4 N.2): modality, VOI, then
MONOCHROME1.

Needs the extra `dicom` (pydicom; pylibjpeg with pylibjpeg-openjpeg for HTJ2K, pyjpegls for JPEG-LS). Only the elements
listed here are read. None of them identifies a patient, so that no message, result or log can contain an identifier.
pydicom also receives only these elements, so that its warnings and logs cannot either (`runtime.dicom.elements`).
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stageproof.runtime.dicom.codecs import INSTALL, check_codec
from stageproof.runtime.dicom.display import display_frames, modality_frames
from stageproof.runtime.dicom.elements import parse
from stageproof.runtime.dicom.stored_values import check_native_length, check_pixel_module, whole
from stageproof.runtime.errors import ImageError
from stageproof.runtime.headers.limits import ALL_FRAMES, MAX_FRAMES, MAX_PIXELS, TooLargeError
from stageproof.runtime.system.offline_import import import_without

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_TAGS = [
    *("Modality", "ImageOrientationPatient", "BurnedInAnnotation"),
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *(f"{kind}PixelPadding{part}" for kind in ("", "Float", "DoubleFloat") for part in ("Value", "RangeLimit")),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PresentationLUTShape"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(
        f"{segmented}{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", *_PIXELS),
]

_VETTED = {
    *_TAGS,
    *("PixelValueTransformationSequence", "FrameVOILUTSequence", "PlaneOrientationSequence"),
    *("LUTDescriptor", "LUTData"),
}

_OBLIQUE = 0.8  # cosine of 37 degrees: a slice tilted more than that from all three planes counts as oblique


@dataclass(frozen=True)
class DicomImage:
    """The result of `read_dicom`."""

    frames: tuple[Image.Image, ...]
    """Mode L or RGB."""
    transforms: tuple[str, ...]
    """Transforms applied to the stored values of the first frame, in order."""
    warnings: tuple[str, ...]
    """Differences from an axial MR slice, and attributes that were not applied."""


def read_dicom(data: bytes, where: str, most: int | None = None, max_pixels: int = MAX_PIXELS) -> DicomImage:
    """All frames of the DICOM file `data`. where: its name in messages.

    most: limit on the number of frames.
    max_pixels: limit on the pixels of a frame; all frames together may have `ALL_FRAMES` times as many values.
    Raises ImageError if it has no pixels, cannot be decoded here (naming the codec), or exceeds a limit.
    """
    with _decoding(data, where):
        dataset = parse(data, *_wanted()).dataset()
        _vet(dataset, where)
        count = _check_pixels(dataset, where, most, max_pixels)
        shown = list(display_frames(dataset, count, where))
        frames = tuple(one.image for one in shown)
        return DicomImage(frames, shown[0].transforms, (*_warnings(dataset), *shown[0].notes))


def read_values(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """(F, H, W): the values of all frames of a MONOCHROME2 file after the modality transform, before any window.

    Arguments and errors as `read_dicom`; ImageError for other photometric interpretations too.
    """
    with _decoding(data, where):
        dataset = parse(data, *_wanted()).dataset()
        _vet(dataset, where)
        count = _check_pixels(dataset, where, None, max_pixels)
        if str(dataset.PhotometricInterpretation) != "MONOCHROME2":
            raise ImageError(f"{where} has another PhotometricInterpretation than MONOCHROME2. Export it again.")
        return np.stack(list(modality_frames(dataset, count, where)))


@contextlib.contextmanager
def _decoding(data: bytes, where: str) -> Iterator[None]:
    """Import pydicom, and convert what fails in the body to an ImageError."""
    try:
        # pydicom imports requests, if installed, for its test data; importing requests opens a socket (IPv6 probe).
        import_without("pydicom", "requests")
    except ImportError as error:
        raise ImageError(f"{where} is a DICOM file, which needs the package pydicom: {INSTALL}") from error
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001  not chained: pydicom's message may quote the file
        raise ImageError(
            f"{where} could not be decoded as DICOM{_compression(data)} ({type(error).__name__}): it is truncated, "
            "damaged, or not supported. Export it again, or convert it to PNG with the window you want."
        ) from None


@cache
def _wanted() -> tuple[frozenset[int], frozenset[int]]:
    """Tags of the elements that are read, and of the sequences that contain them."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tags = [tag for tag in map(tag_for_keyword, _VETTED) if tag is not None]
    sequences = frozenset(tag for tag in tags if dictionary_VR(tag) == "SQ")
    return frozenset(tags) - sequences, sequences


def _compression(data: bytes) -> str:
    """The compressed transfer syntax in the file's first bytes, for messages."""
    from pydicom.uid import UID

    uid = re.search(rb"1\.2\.840\.10008\.1\.2\.(4\.[0-9]+|5)", data[:4096])
    return f", compressed as {UID(uid.group().decode()).name}" if uid else ""


# pydicom logs and warns about values that are invalid for their VR, and quotes them. Silencing it would change the
# host's logging and warnings, so such values are rejected before pydicom sees them.
_ALLOWED = {"DS": rb"[-+0-9.eE\\ \0]*", "IS": rb"[-+0-9\\ \0]*", "CS": rb"[A-Z0-9_\\ \0]*"}

_WIDTHS = {"US": 2, "SS": 2, "US or SS": 2, "FL": 4, "FD": 8}
"""VR → bytes per value (PS3.5 6.2)."""


def _vet(dataset: Any, where: str, depth: int = 0) -> None:
    """Raise ImageError for values that are invalid for their VR, and remove empty elements.

    An element without a value (PS3.5 7.4) is treated as absent, and so is a sequence without a non-empty item.
    """
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    for tag in list(dataset.keys()):
        keyword = keyword_for_tag(tag)
        if keyword not in _VETTED:
            continue
        kind = dictionary_VR(tag)
        if kind == "SQ":
            items = dataset[tag].value or []
            for item in items if depth < 4 else ():
                _vet(item, where, depth + 1)
            if not any(len(item) for item in items):
                del dataset[tag]
            continue
        value = dataset.get_item(tag).value
        if value is None or (isinstance(value, bytes) and not value.strip(b" \0\\" if kind in _ALLOWED else b"")):
            del dataset[tag]
        elif isinstance(value, bytes) and not _allowed(value, kind):
            raise ImageError(f"{where} has a value of {keyword} in a form that DICOM does not allow. Export it again.")


def _allowed(value: bytes, kind: str) -> bool:
    if kind in _WIDTHS:
        return len(value) % _WIDTHS[kind] == 0
    if kind not in _ALLOWED:
        return True
    if not re.fullmatch(_ALLOWED[kind], value):
        return False
    try:
        return kind not in ("DS", "IS") or all(
            math.isfinite(float(part)) for part in value.decode("ascii").split("\\") if part.strip(" \0")
        )
    except ValueError:
        return False


def _frame_count(dataset: Any, where: str, most: int | None, max_pixels: int) -> int:
    rows, columns, samples = (whole(dataset, name, where) for name in ("Rows", "Columns", "SamplesPerPixel"))
    count = whole(dataset, "NumberOfFrames", where) if "NumberOfFrames" in dataset else 1
    allowed = max_pixels * ALL_FRAMES
    if (
        min(rows, columns, count, samples) < 1
        or rows * columns > max_pixels
        or rows * columns * count * samples > allowed
        or count > MAX_FRAMES
    ):
        raise TooLargeError(
            f"{where} is {columns} x {rows} with {count} frames of {samples} samples; the limits are 1 to {max_pixels} "
            f"pixels per frame, {MAX_FRAMES} frames and {allowed} values. Split or resize it, or raise max_pixels."
        )
    if most is not None and count > most:
        raise ImageError(
            f"{where} has {count} frames; expected one image. Pass it to predict_study(), or read its frames with "
            "runtime.images.reader.read_all and pass the one you want."
        )
    return count


def _check_pixels(dataset: Any, where: str, most: int | None, max_pixels: int) -> int:
    """The number of frames. Raises ImageError for everything that can be rejected before decoding."""
    names = [name for name in _PIXELS if name in dataset]
    if not names and "Rows" in dataset and "Columns" in dataset:
        raise ImageError(
            f"{where} describes an image but has no pixels: it is truncated, or was exported without them. Copy or "
            "export it again."
        )
    if not names:
        raise ImageError(
            f"{where} is a DICOM file without pixels (a report, a plan, a directory), or damaged before them. "
            "Pass an image."
        )
    if len(names) > 1:
        raise ImageError(f"{where} has both {' and '.join(names)}; DICOM allows only one. Export it again.")
    check_pixel_module(dataset, where)
    count = _frame_count(dataset, where, most, max_pixels)
    check_codec(dataset, count, where)
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        check_native_length(dataset, names[0], count, where)
    return count


def _warnings(dataset: Any) -> tuple[str, ...]:
    found = []
    modality = str(dataset.get("Modality") or "")
    if modality != "MR":
        # Quoted only if it is a code string (PS3.5 6.2).
        stated = f"is {modality}" if re.fullmatch(r"[A-Z]{2,10}", modality) else "is not stated"
        found.append(f"the modality {stated}; the model was trained on MR")
    orientation = _orientation(dataset)
    if orientation != "axial":
        stated = "is not stated" if orientation is None else f"is {orientation}"
        found.append(f"the orientation {stated}; the model was trained on axial slices")
    if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
        found.append("text is burned into the pixels (BurnedInAnnotation) and may name the patient")
    return tuple(found)


def _orientation(dataset: Any) -> str | None:
    """axial, coronal, sagittal or oblique, by ImageOrientationPatient (PS3.3 C.7.6.2.1.1); None if missing."""
    holder = dataset
    if "ImageOrientationPatient" not in dataset:
        for groups in (dataset.get("SharedFunctionalGroupsSequence"), dataset.get("PerFrameFunctionalGroupsSequence")):
            planes = groups[0].get("PlaneOrientationSequence") if groups else None
            if planes:
                holder = planes[0]
                break
    try:
        row, column = np.array(holder.ImageOrientationPatient, dtype=float).reshape(2, 3)
    except (AttributeError, TypeError, ValueError):
        return None
    normal = np.abs(np.cross(row, column))
    if not np.isfinite(normal).all() or normal.max() < _OBLIQUE:
        return "oblique"
    return ("sagittal", "coronal", "axial")[int(normal.argmax())]
