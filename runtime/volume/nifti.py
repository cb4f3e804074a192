"""A NIfTI-1 or NIfTI-2 file, gzipped or not: layout and voxels, and what its BIDS sidecar states.

nibabel reads the 348 or 540 bytes of the header. This module reads the voxels itself, so that extensions of the header,
which may hold a patient's DICOM elements, are never parsed, and no more is decompressed than the header declares.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.runtime.errors import ImageError, VolumeError
from stageproof.runtime.headers.limits import ALL_FRAMES, MAX_PIXELS
from stageproof.runtime.system.regular_files import read_regular
from stageproof.runtime.volume.volume import SeriesFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_VOXELS = ALL_FRAMES * MAX_PIXELS
"""Limit on the voxels of a volume, as on the values of a DICOM file."""
_MAX_OFFSET = 16 << 20
"""Limit on the bytes of header and extensions."""
_MAX_SIDECAR = 1 << 20
_HEADERS = {348: "Nifti1Header", 540: "Nifti2Header"}
_GZIP = b"\x1f\x8b"
SUFFIXES = (".nii", ".nii.gz")


def is_nifti(head: bytes) -> bool:
    """Whether these first bytes, 4096 or the whole file, are those of a NIfTI file, gzipped or not."""
    return _header_size(_inflated(head, 1024) if head[:2] == _GZIP else head) is not None


@dataclass(frozen=True)
class NiftiLayout:
    """What the header of a NIfTI file states about its voxels."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    """(4, 4) index to mm in RAS coordinates: the sform where its code is above 0, otherwise the qform."""
    dtype: np.dtype
    offset: int
    """Bytes before the voxels."""
    slope: float | None
    intercept: float | None
    notes: tuple[str, ...]
    """What was assumed."""


def nifti_layout(data: bytes, where: str) -> NiftiLayout:
    """The layout of a NIfTI file.

    Raises VolumeError (``geometry_missing``, ``unreadable``) for a file without orientation, or that is damaged, no 3D
    volume, or above the limits.
    """
    import nibabel

    head = _inflated(data, 1024) if data[:2] == _GZIP else data[:1024]
    size = _header_size(head)
    if size is None or len(head) < size:
        raise VolumeError("unreadable", f"{where} is not a NIfTI file, or damaged. Copy or export it again.")
    try:
        header = getattr(nibabel, _HEADERS[size])(head[:size], check=False)
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
        offset = int(header["vox_offset"]) or size + 4
        slope, intercept = header.get_slope_inter()
        affine, notes = _affine(header, where)
    except VolumeError:
        raise
    except Exception as error:  # noqa: BLE001  nibabel raises many kinds for damaged headers
        raise VolumeError("unreadable", f"{where} has a damaged NIfTI header ({type(error).__name__}).") from None
    shape = shape[:3] if all(n == 1 for n in shape[3:]) else shape
    if len(shape) != 3 or min(shape) < 2 or math.prod(shape) > MAX_VOXELS or dtype.kind not in "iuf":
        raise VolumeError(
            "unreadable",
            f"{where} has shape {shape} of type {dtype}; expected three dimensions of 2 or more, at most {MAX_VOXELS} "
            "voxels of integers or floats. Pass one 3D volume.",
        )
    if not size <= offset <= _MAX_OFFSET:
        raise VolumeError("unreadable", f"{where} has a damaged NIfTI header (vox_offset).")
    return NiftiLayout(shape, affine, dtype, offset, slope, intercept, notes)


def nifti_voxels(data: bytes, layout: NiftiLayout, where: str) -> NDArray[np.float32]:
    """Voxels (I, J, K) after the file's scaling. Raises VolumeError (``unreadable``) for a truncated file."""
    count = math.prod(layout.shape)
    end = layout.offset + count * layout.dtype.itemsize
    content = _inflated(data, end) if data[:2] == _GZIP else data
    if len(content) < end:
        raise VolumeError("unreadable", f"{where} is truncated: {len(content)} of {end} bytes. Copy it again.")
    values = np.frombuffer(content, layout.dtype, count, layout.offset).reshape(layout.shape, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by `gate.check_content`
        voxels = values.astype(np.float32)
        if layout.slope is not None and (layout.slope != 1.0 or layout.intercept):
            voxels = voxels * np.float32(layout.slope) + np.float32(layout.intercept or 0.0)
    return voxels


def sidecar_facts(path: Path | None, name: str) -> SeriesFacts:
    """What the JSON file beside a NIfTI file states (BIDS), and its suffix ``_T1w``. Modality is taken as MR.

    Raises ImageError for a sidecar that is not a JSON object.
    """
    own = path.name if path is not None else name.rpartition(": ")[2].rpartition("/")[2]
    stem = next((own[: -len(end)] for end in reversed(SUFFIXES) if own.lower().endswith(end)), own)
    suffix = stem.rsplit("_", 1)[-1] if "_" in stem else ""
    beside = None if path is None else path.with_name(stem + ".json")
    found: dict[str, Any] = {}
    if beside is not None and beside.is_file():
        try:
            found = json.loads(read_regular(beside, _MAX_SIDECAR))
        except (OSError, ValueError, RecursionError) as error:
            raise ImageError(f"{str(beside)!r} is not readable as JSON ({type(error).__name__}).") from None
        if not isinstance(found, dict):
            raise ImageError(f"{str(beside)!r} is not a JSON object, as a BIDS sidecar is.")
    described = (_word(found.get("SeriesDescription")) or _word(found.get("ProtocolName")), suffix)
    return SeriesFacts(
        modality=_word(found.get("Modality")) or "MR",
        description=" / ".join(dict.fromkeys(text for text in described if text)),
        age=None,
        image_type=_words(found.get("ImageType")),
        acquisition=_word(found.get("MRAcquisitionType")) or None,
        # dcm2niix joins codes: GR_IR, or GR\\IR.
        sequence=tuple(code for word in _words(found.get("ScanningSequence")) for code in re.split(r"[\\_]", word)),
        repetition_time=_milliseconds(found.get("RepetitionTime")),
        echo_time=_milliseconds(found.get("EchoTime")),
        inversion_time=_milliseconds(found.get("InversionTime")),
    )


def _header_size(head: bytes) -> int | None:
    for size in _HEADERS:
        if head[:4] in (size.to_bytes(4, "little"), size.to_bytes(4, "big")):
            magic = head[344:348] if size == 348 else head[4:8]
            return size if magic in (b"n+1\0", b"n+2\0") else None
    return None


def _inflated(data: bytes, most: int) -> bytes:
    """At most `most` decompressed bytes; fewer if the data ends or is damaged before."""
    try:
        return zlib.decompressobj(31).decompress(data, most)
    except zlib.error:
        return b""


def _affine(header: Any, where: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    notes = []
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    affine = sform if sform is not None else qform
    if affine is None:
        raise VolumeError(
            "geometry_missing",
            f"{where} states no orientation (sform_code and qform_code are 0), so left, front and top are unknown. "
            "Convert the series again with a converter that writes one.",
        )
    if sform is not None and qform is not None and not np.allclose(sform, qform, atol=0.5):
        notes.append("sform and qform differ; the sform was used")
    unit = header.get_xyzt_units()[0]
    if unit not in ("mm", "meter", "micron"):
        notes.append("the unit of length is not stated; mm was assumed")
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not ((sizes >= 0.05) & (sizes <= 20.0)).all():
        raise VolumeError(
            "geometry_missing", f"{where} has voxels that are not between 0.05 and 20 mm. Convert it again."
        )
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < 0.1:
        raise VolumeError("geometry_missing", f"{where} has voxel axes that are not independent. Convert it again.")
    return affine, tuple(notes)


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(one if " " <= one <= "~" else "?" for one in text[:64])


def _words(value: Any) -> tuple[str, ...]:
    several = value if isinstance(value, list) else [value]
    return tuple(word for word in map(_word, several[:32]) if word)


def _milliseconds(seconds: Any) -> float | None:
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and math.isfinite(seconds)
    return seconds * 1000.0 if number else None
