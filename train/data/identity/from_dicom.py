"""Patient ids from DICOM headers, as numbers; the PatientID itself is never returned.

PatientID is a direct identifier (PS3.15 E.1). It is immediately replaced by a keyed digest (HMAC-SHA256, RFC 2104) with
a random key that is generated for one call and never stored. The returned numbers only show which slices belong to the
same patient.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from stageproof.runtime.dicom.elements import parse
from stageproof.runtime.errors import DatasetError
from stageproof.runtime.headers.signatures import is_dicom
from stageproof.runtime.images.source_bytes import encoded
from stageproof.runtime.system.regular_files import open_regular
from stageproof.train.data.ids import Ids, numbered, session_numbers

_TAGS = (0x00100020, 0x0020000D, 0x00200013)  # PatientID, StudyInstanceUID, InstanceNumber
_RASTER = {".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".jp2", ".pgm", ".ppm"}
_HEAD = 1 << 17
"""Bytes of a file to parse first; the whole file is read only if the elements are not found."""


@dataclass(frozen=True)
class _Header:
    patient: bytes | None
    """Keyed digest of PatientID; None if the file is not DICOM or has no PatientID."""
    study: str | None
    number: int
    dicom: bool


def from_dicom(images: Sequence[bytes | Path]) -> tuple[Ids | None, str]:
    """The patient ids of DICOM files, None unless every file has one; and a note on ids that are not used.

    images: (N,) encoded images or paths; files with the suffix of a raster format are not opened.

    Raises DatasetError if there are DICOM files and pydicom is not installed.
    """
    if not any(_may_be_dicom(image) for image in images):
        return None, ""
    key = secrets.token_bytes(32)
    with ThreadPoolExecutor(8) as pool:
        headers = list(pool.map(lambda image: _header(image, key), images))
    dicom = np.array([header.dicom for header in headers], bool)
    if not dicom.any():
        return None, ""
    named = np.array([header.patient is not None for header in headers], bool)
    if not named.all():
        bare = int((dicom & ~named).sum())
        if not named.any():
            return None, f"none of {int(dicom.sum())} DICOM files has a PatientID"
        return None, (
            f"of {len(headers)} files, {int(named.sum())} are DICOM files with a PatientID, {bare} without, and "
            f"{int((~dicom).sum())} are not DICOM files: not used"
        )
    subjects = [header.patient for header in headers]
    if len(set(subjects)) < 2:
        return None, f"all {len(headers)} DICOM files have the same PatientID: not used"
    studies = session_numbers(subjects, [header.study for header in headers])
    positions = np.array([header.number for header in headers], np.int64)
    origin = "PatientID of the DICOM headers, as a keyed digest; StudyInstanceUID is the session"
    return Ids("dicom", origin, numbered(subjects), studies, positions), ""


def _may_be_dicom(image: bytes | Path) -> bool:
    """Whether the first bytes need to be read to find out whether the file is DICOM."""
    if isinstance(image, bytes):
        return is_dicom(image[:256])
    return image.suffix.lower() not in _RASTER


def _header(image: bytes | Path, key: bytes) -> _Header:
    nothing = _Header(None, None, -1, dicom=False)
    if not _may_be_dicom(image):
        return nothing
    try:
        if isinstance(image, bytes):
            head = image
        else:
            with open_regular(image) as file:
                head = file.read(_HEAD)
    except OSError:
        return nothing  # the loader reports the reason
    if not is_dicom(head):
        return nothing
    if find_spec("pydicom") is None:
        raise DatasetError(
            "The data contains DICOM files, which need the package pydicom: pip install 'stageproof[dicom]'."
        )
    try:
        try:
            values = _raw(head)
        except Exception:
            if isinstance(image, bytes):
                raise
            values = _raw(encoded(image)[0])
    except Exception:  # noqa: BLE001  a damaged header has no ids; the loader reports what is wrong with the file
        return _Header(None, None, -1, dicom=True)
    patient, study, number = values
    digest = hmac.new(key, patient, hashlib.sha256).digest() if patient else None
    session = hmac.new(key, study, hashlib.sha256).hexdigest() if study else None
    position = int(number) if number.isdigit() and len(number) < 10 else -1
    return _Header(digest, session, position, dicom=True)


def _raw(data: bytes) -> list[bytes]:
    """The stored bytes of PatientID, StudyInstanceUID and InstanceNumber; empty if absent."""
    elements = parse(data, _TAGS).elements
    return [elements[tag].value.strip(b" \0") if tag in elements else b"" for tag in _TAGS]
