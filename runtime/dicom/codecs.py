"""Compressed DICOM files: supported transfer syntaxes, required plug-ins, and consistency of frame headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from stageproof.runtime.dicom import jpeg_lossless
from stageproof.runtime.dicom.stored_values import high_bit, whole
from stageproof.runtime.errors import ImageError
from stageproof.runtime.headers.checks import check_jpeg, check_jpeg2000, check_rle

INSTALL = "pip install 'stageproof[dicom]'"

_JPEG_LOSSLESS = {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}

_RLE = "1.2.840.10008.1.2.5"

_YOUNGER = {
    # Newer than the dictionary of some pydicom versions (PS3.6, annex A).
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}

_PLUGINS = {
    # Transfer syntax → packages that pydicom needs for it. Permissive licences only.
    "1.2.840.10008.1.2.4.50": "pillow",
    "1.2.840.10008.1.2.4.51": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg pylibjpeg-openjpeg",
}

_READ = "JPEG 8-bit, JPEG Lossless, JPEG-LS, JPEG 2000, HTJ2K and RLE"

_PROCESSES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive", 0xC3: "lossless", 0xF7: "JPEG-LS"}
"""Frame marker → process of a JPEG codestream (ISO/IEC 10918-1 table B.1, 14495-1 C.2.2)."""


@dataclass(frozen=True)
class _Codestream:
    """The header of a compressed frame."""

    width: int
    height: int
    bits: int
    process: str
    """One of `_PROCESSES`, `JPEG 2000`, or `another`."""


def check_codec(dataset: Any, count: int, where: str) -> None:
    """Raise ImageError for an unsupported transfer syntax, naming it, and for frames whose header contradicts the
    dataset.

    Afterwards `pydicom.pixels.pixel_array` can decode the dataset: JPEG Lossless is decoded here, in place.
    """
    from pydicom.encaps import generate_frames
    from pydicom.uid import ExplicitVRLittleEndian

    syntax = _syntax(dataset, where)
    if not syntax.is_encapsulated:
        return
    if "PixelData" not in dataset:
        raise ImageError(f"{where} is compressed as {syntax.name} but has floating-point pixels. Export it again.")
    if syntax not in _JPEG_LOSSLESS:
        _check_available(syntax, where)
    _check_fragments(dataset, count, where)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    if len(frames) < count:
        raise ImageError(f"{where} is truncated: it has {len(frames)} of {count} frames. Export it again.")
    for frame in frames:
        _check_frame(frame, dataset, syntax, where)
    if syntax in _JPEG_LOSSLESS:
        dataset.PixelData = b"".join(_lossless(frame, dataset, where) for frame in frames)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if "PlanarConfiguration" in dataset:
            dataset.PlanarConfiguration = 0
        dataset["PixelData"].is_undefined_length = False


def _syntax(dataset: Any, where: str) -> Any:
    """The transfer syntax, inferred if missing. Raises ImageError for unknown and private ones."""
    from pydicom.uid import ImplicitVRLittleEndian

    if not str(dataset.file_meta.get("TransferSyntaxUID") or ""):
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset) or ImplicitVRLittleEndian
    syntax = dataset.file_meta.TransferSyntaxUID
    if str(syntax) in _YOUNGER:
        raise ImageError(_unread(where, f"{_YOUNGER[str(syntax)]} ({syntax})", ""))
    if not str(syntax).startswith("1.2.840.10008."):
        # The value is not quoted: it may contain anything.
        raise ImageError(
            f"{where} has a private transfer syntax, which is not supported. Convert it, or export it again."
        )
    if not syntax.is_transfer_syntax:
        raise ImageError(f"{where} has a transfer syntax that DICOM does not define. Export it again.")
    return syntax


def _check_available(syntax: Any, where: str) -> None:
    from pydicom.pixels import get_decoder

    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise ImageError(_unread(where, f"{syntax.name} ({syntax})", _PLUGINS.get(str(syntax), "")))


def _unread(where: str, name: str, plugins: str) -> str:
    if plugins:
        return (
            f"{where} is compressed as {name}, for which no decoder is installed. It needs "
            f"{plugins.replace(' ', ' and ')}: pip install {plugins}, or {INSTALL}."
        )
    return (
        f"{where} is compressed as {name}, which is not supported. Supported are {_READ}; decompress others first, for "
        "example with GDCM's gdcmconv --raw or DCMTK's dcmdjpeg."
    )


def _check_fragments(dataset: Any, count: int, where: str) -> None:
    """Raise ImageError if NumberOfFrames is 1 but there are several images, which pydicom would join into one."""
    from pydicom.encaps import generate_fragments

    if count > 1:
        return
    begun = sum(
        1 for part in generate_fragments(dataset.PixelData) if part.startswith((b"\xff\xd8", b"\xff\x4f\xff\x51"))
    )
    # Counted by start markers, because generate_fragments also yields the offset table.
    if begun > 1:
        raise ImageError(
            f"{where} declares 1 frame (NumberOfFrames), but has {begun} compressed images. Export it again."
        )


def _check_frame(frame: bytes, dataset: Any, syntax: Any, where: str) -> None:
    if str(syntax) == _RLE:
        allocated = whole(dataset, "BitsAllocated", where)
        planes = whole(dataset, "SamplesPerPixel", where) * -(-allocated // 8)
        check_rle(frame, planes, whole(dataset, "Rows", where) * whole(dataset, "Columns", where), where)
        return
    if b"\xff\xf7" in frame[:4096] and b"\xff\xd9" not in frame and frame.startswith(b"\xff\xd8"):
        # CharLS takes seconds for a JPEG-LS stream without an end marker (ISO/IEC 14495-1 C.1.2).
        raise ImageError(f"{where} is truncated: its JPEG-LS codestream has no end. Export it again.")
    check_jpeg(frame, where)
    found = _codestream(frame)
    expected = (whole(dataset, "Columns", where), whole(dataset, "Rows", where))
    if (found.width, found.height) != expected:
        # Decoders allocate the size that the codestream declares, possibly gigabytes.
        raise ImageError(
            f"{where} declares {expected[0]} x {expected[1]}, but its compressed frame {found.width} x {found.height}. "
            "It is damaged: export it again."
        )
    check_jpeg2000(frame, where, expected[0] * expected[1])
    if (found.process == "lossless") != (syntax in _JPEG_LOSSLESS):
        raise ImageError(
            f"{where} has the transfer syntax {syntax.name}, but its compressed frame is {found.process} JPEG. "
            "Export it again."
        )
    stored, allocated = whole(dataset, "BitsStored", where), whole(dataset, "BitsAllocated", where)
    if high_bit(dataset, where) != stored - 1 and found.bits != allocated:
        raise ImageError(
            f"{where} has HighBit {high_bit(dataset, where)} with BitsStored {stored}, but its compressed frame has "
            f"{found.bits} bits: the position of the pixel bits is ambiguous. Export it again."
        )
    if found.process in ("baseline", "extended", "progressive") and found.bits > 8 and not _reads_twelve_bits(syntax):
        raise ImageError(
            f"{where} is {found.bits}-bit JPEG ({syntax.name}, {syntax}); without a plug-in, only 8 bits are "
            "supported. Install one: pip install python-gdcm. Or decompress it first, for example with gdcmconv --raw."
        )


def _reads_twelve_bits(syntax: Any) -> bool:
    from pydicom.pixels import get_decoder

    return bool(set(get_decoder(syntax).available_plugins) - {"pillow"})


def _lossless(frame: bytes, dataset: Any, where: str) -> bytes:
    """The samples of a JPEG Lossless frame, in BitsAllocated bits each, little endian."""
    try:
        samples, bits = jpeg_lossless.decode(frame)
    except ValueError:
        raise ImageError(
            f"{where} is truncated or damaged: its JPEG Lossless frame does not decode. Export it again."
        ) from None
    allocated, components = whole(dataset, "BitsAllocated", where), whole(dataset, "SamplesPerPixel", where)
    shape = samples.shape[:2] if components == 1 else (*samples.shape[:2], components)
    if samples.shape != shape or allocated not in (8, 16) or bits > allocated:
        raise ImageError(
            f"{where} declares {components} samples of {allocated} bits per pixel, but its JPEG Lossless frame has "
            f"{1 if samples.ndim == 2 else samples.shape[2]} of {bits}. Export it again."
        )
    if whole(dataset, "PixelRepresentation", where) == 1 and bits < 16:
        # Two's complement in the codestream's number of bits, which may be fewer than BitsStored.
        samples = ((samples.astype(np.int16) << (16 - bits)) >> (16 - bits)).astype(np.uint16)
    return samples.astype("<u2" if allocated == 16 else np.uint8).tobytes()


def _guessed_syntax(dataset: Any) -> Any:
    """The uncompressed transfer syntax as which pydicom read a dataset without TransferSyntaxUID."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if little is False else ExplicitVRLittleEndian


def _codestream(frame: bytes) -> _Codestream:
    """The header of a JPEG, JPEG-LS or JPEG 2000 frame. Raises ValueError for anything else."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # SOC and SIZ, ISO/IEC 15444-1 A.5.1; a JP2 header may precede
    if start >= 0:
        x1, y1, x0, y0 = struct.unpack(">4I", frame[start + 8 : start + 24])
        return _Codestream(x1 - x0, y1 - y0, (frame[start + 42] & 0x7F) + 1, "JPEG 2000")
    position = 2
    while frame[:2] == b"\xff\xd8" and position + 9 <= len(frame):  # ISO/IEC 10918-1 B.1.1.2: marker, length, body
        if frame[position] != 0xFF:
            break
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, height, width = struct.unpack(">BHH", frame[position + 4 : position + 9])
            return _Codestream(width, height, bits, _PROCESSES.get(marker, "another"))
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    raise ValueError("no frame header")
