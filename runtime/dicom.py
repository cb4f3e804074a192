"""DICOM files become 8-bit images as the standard displays them: modality, then VOI, then MONOCHROME1 (PS3.4 N.2).

Needs the extra `dicom` (pydicom; pylibjpeg-openjpeg and pyjpegls for JPEG 2000 and JPEG-LS). Only the elements listed
here are read, none of which names a patient, so no message, result or log can repeat an identifier. What pydicom says
of a broken file is dropped for the same reason.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from runtime.dicom_display import displayed
from runtime.errors import ImageError
from runtime.images import MAX_PIXELS
from runtime.quiet import import_without

_INSTALL = "pip install 'neurostage[dicom]'"

_TAGS = [
    *("Modality", "ImageOrientationPatient", "BurnedInAnnotation"),
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
]

_VETTED = {
    *_TAGS,
    *("PixelValueTransformationSequence", "FrameVOILUTSequence", "PlaneOrientationSequence"),
}

_DEFLATED = "1.2.840.10008.1.2.1.99"

_OBLIQUE = 0.8  # cosine of 37 degrees: tilted more than that from the axial plane, a slice is called something else


@dataclass(frozen=True)
class DicomImage:
    """What `read_dicom` gives."""

    frames: tuple[Image.Image, ...]
    """Mode L or RGB."""
    transforms: tuple[str, ...]
    """What was done to the stored values of the first frame, in order."""
    warnings: tuple[str, ...]
    """What makes the file another thing than an axial MR slice."""


def is_dicom(data: bytes) -> bool:
    """Whether these bytes are a DICOM file, with the preamble of PS3.10 or, as old devices write, without."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", data[:8])
        explicit = data[4:6] in (b"UL", b"UI", b"CS", b"DA", b"TM", b"SH", b"LO")
        if group in (2, 8) and element <= 0x23 and (explicit or length <= 64):
            return True
    return False


def read_dicom(data: bytes, where: str, most: int | None = None) -> DicomImage:
    """Every frame of the DICOM file `data`, which messages call `where`.

    most: more frames than these are refused.
    Raises ImageError for what holds no pixels, cannot be decoded here (naming the codec), or is larger in all its
    frames than `runtime.images.MAX_PIXELS`.
    """
    try:
        # For its test data pydicom imports requests where that is installed, which probes for IPv6 with a socket.
        pydicom = import_without("pydicom", "requests")
    except ImportError as error:
        raise ImageError(f"{where} is a DICOM file, which needs the package pydicom: {_INSTALL}") from error
    try:
        if _DEFLATED.encode() in data[:2048]:
            # Inflating is all or nothing in pydicom, and a megabyte may hold a gigabyte of zeros.
            raise ImageError(
                f"{where} is compressed as Deflated Explicit VR Little Endian ({_DEFLATED}), which is not read. "
                "Convert it to Explicit VR Little Endian, for example with DCMTK's dcmconv +te."
            )
        _vet_head(data, where)
        dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=_TAGS)
        _vet(dataset, where)
        count = _frame_count(dataset, where, most)
        _check_codec(dataset, count, where)
        shown = [displayed(dataset, index, where) for index in range(count)]
        return DicomImage(tuple(image for image, _ in shown), shown[0][1], _warnings(dataset))
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001  pydicom's text may quote the file: neither it nor its chain travels on
        raise ImageError(
            f"{where} could not be decoded as DICOM{_compression(data)} ({type(error).__name__}): it is truncated, "
            "damaged, or of a kind that is not read. Export it again, or convert it to PNG with the window you want."
        ) from None


def _compression(data: bytes) -> str:
    """The compressed transfer syntax that the head of the file names, for messages."""
    from pydicom.uid import UID

    uid = re.search(rb"1\.2\.840\.10008\.1\.2\.(4\.[0-9]+|5)", data[:4096])
    return f", compressed as {UID(uid.group().decode()).name}" if uid else ""


# pydicom logs and warns of values that break the rules of their kind, and quotes them. Silencing it would change the
# logging and warnings of the host, so such values are refused before pydicom looks at them.
_ALLOWED = {"DS": rb"[-+0-9.eE\\ \0]*", "IS": rb"[-+0-9\\ \0]*", "CS": rb"[A-Z0-9_\\ \0]*", "UI": rb"[0-9.\\ \0]*"}


def _vet_head(data: bytes, where: str) -> None:
    """Refuse a transfer syntax and a character set that are none; pydicom interprets both while it reads."""
    for tag in (rb"\x02\x00\x10\x00UI", rb"\x08\x00\x05\x00CS", rb"\x00\x08\x00\x05CS"):
        for found in re.finditer(tag + rb"(..)", data[: 1 << 16], re.DOTALL):
            order = ">H" if tag.startswith(rb"\x00") else "<H"
            (length,) = struct.unpack(order, found.group(1))
            if not re.fullmatch(rb"[-A-Z0-9_.\\ \0]*", data[found.end() : found.end() + length]):
                raise ImageError(f"{where} has a transfer syntax or character set that DICOM does not have.")


def _vet(dataset: Any, where: str, depth: int = 0) -> None:
    """Refuse values of the elements read here, also within sequences, that hold other characters than they may."""
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    for tag in list(dataset.keys()):
        keyword = keyword_for_tag(tag)
        if keyword not in _VETTED:
            continue
        kind = dictionary_VR(tag)
        if kind == "SQ":
            for item in dataset[tag].value if depth < 4 else ():
                _vet(item, where, depth + 1)
            continue
        value = dataset.get_item(tag).value
        if kind in _ALLOWED and isinstance(value, bytes) and not re.fullmatch(_ALLOWED[kind], value):
            raise ImageError(f"{where} states {keyword} in a form that DICOM does not allow. Export it again.")


def _frame_count(dataset: Any, where: str, most: int | None) -> int:
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError(f"{where} is a DICOM file without pixels (a report, a plan, a directory). Pass an image.")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    count = int(dataset.get("NumberOfFrames") or 1)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if min(rows, columns, count, samples) < 1 or rows * columns * count * samples > MAX_PIXELS:
        raise ImageError(
            f"{where} is {columns} x {rows} with {count} frames of {samples} samples; from 1 to {MAX_PIXELS} values "
            "are decoded. Split or resize it."
        )
    if most is not None and count > most:
        raise ImageError(
            f"{where} holds {count} frames; expected one image. Pass it to predict_study(), or read its frames with "
            "runtime.reading.read_all and pass the one you want."
        )
    return count


def _check_codec(dataset: Any, count: int, where: str) -> None:
    """Refuse what no decoder here reads, by name, and frames whose own header claims another size."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder
    from pydicom.uid import ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", {})
    if "TransferSyntaxUID" not in meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset) or ImplicitVRLittleEndian
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        raise ImageError(f"{where} states a transfer syntax that DICOM does not have. Export it again.")
    if not syntax.is_encapsulated:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise ImageError(
            f"{where} is compressed as {syntax.name} ({syntax}), for which no decoder is installed. {_INSTALL} reads "
            "JPEG baseline, JPEG 2000, JPEG-LS and RLE; decompress others first, for example with DCMTK's dcmdjpeg."
        )
    expected = (int(dataset.Columns), int(dataset.Rows))
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        if b"\xff\xf7" in frame[:4096] and b"\xff\xd9" not in frame and frame.startswith(b"\xff\xd8"):
            # CharLS works for seconds on a JPEG-LS stream that has no end (ISO/IEC 14495-1 C.1.2).
            raise ImageError(f"{where} is truncated: its JPEG-LS codestream has no end. Export it again.")
        size = _codestream_size(frame)
        if size is not None and size != expected:
            # Decoders allocate what the codestream claims, which may be gigabytes.
            raise ImageError(
                f"{where} says {expected[0]} x {expected[1]}, and its compressed frame {size[0]} x {size[1]}. It is "
                "damaged: export it again."
            )


def _guessed_syntax(dataset: Any) -> Any:
    """The uncompressed transfer syntax that pydicom read the dataset as, where the file does not state one."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if little is False else ExplicitVRLittleEndian


def _codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG, JPEG-LS or JPEG 2000 codestream claims; None for what is neither (RLE)."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # SOC and SIZ, ISO/IEC 15444-1 A.5.1; a JP2 header may precede
    if start >= 0:
        x1, y1, x0, y0 = struct.unpack(">4I", frame[start + 8 : start + 24])
        return x1 - x0, y1 - y0
    if frame[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(frame):  # ISO/IEC 10918-1 B.1.1.2: marker, length, body
        if frame[position] != 0xFF:
            break
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = struct.unpack(">HH", frame[position + 5 : position + 9])
            return width, height
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    raise ValueError("no frame header")


def _warnings(dataset: Any) -> tuple[str, ...]:
    found = []
    modality = str(dataset.get("Modality") or "")
    if modality != "MR":
        # A code string (PS3.5 6.2); anything else in its place is not repeated.
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
    """axial, coronal, sagittal or oblique, by ImageOrientationPatient (PS3.3 C.7.6.2.1.1); None where not stated."""
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
