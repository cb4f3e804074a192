"""Patients of DICOM files, from their headers; the PatientID itself never leaves this module.

PatientID is a direct identifier (PS3.15 E.1), so it is replaced at once by a keyed digest (HMAC-SHA256, RFC 2104) whose
random key is made for one call and kept nowhere: what is returned are numbers that only say which slices are alike.
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
"""Bytes of a file in which its first elements are looked for before the whole file is read."""


@dataclass(frozen=True)
class _Header:
    patient: bytes | None
    """Keyed digest of PatientID; None for a file that is no DICOM or names no patient."""
    study: str | None
    number: int
    dicom: bool


def from_dicom(images: Sequence[bytes | Path]) -> tuple[Ids | None, str]:
    """The patients of DICOM files, None where not every file names one; and what was not used, in words.

    images: (N,) encoded images or paths; files whose suffix is that of a raster format are not opened.

    Raises DatasetError where pydicom is missing and there are DICOM files.
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
            f"{int((~dicom).sum())} are no DICOM files: not used"
        )
    subjects = [header.patient for header in headers]
    if len(set(subjects)) < 2:
        return None, f"all {len(headers)} DICOM files have the same PatientID: not used"
    studies = session_numbers(subjects, [header.study for header in headers])
    positions = np.array([header.number for header in headers], np.int64)
    origin = "PatientID of the DICOM headers, as a keyed digest; StudyInstanceUID is the session"
    return Ids("dicom", origin, numbered(subjects), studies, positions), ""


def _may_be_dicom(image: bytes | Path) -> bool:
    """Whether it is worth a look at the first bytes."""
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
        return nothing  # the loader says why it cannot be read
    if not is_dicom(head):
        return nothing
    if find_spec("pydicom") is None:
        raise DatasetError(
            "The data holds DICOM files, which need the package pydicom: pip install 'stageproof[dicom]'."
        )
    try:
        try:
            told = _raw(head)
        except Exception:
            if isinstance(image, bytes):
                raise
            told = _raw(encoded(image)[0])
    except Exception:  # noqa: BLE001  a damaged header names nobody; the loader says what is wrong with the file
        return _Header(None, None, -1, dicom=True)
    patient, study, number = told
    digest = hmac.new(key, patient, hashlib.sha256).digest() if patient else None
    session = hmac.new(key, study, hashlib.sha256).hexdigest() if study else None
    position = int(number) if number.isdigit() and len(number) < 10 else -1
    return _Header(digest, session, position, dicom=True)


def _raw(data: bytes) -> list[bytes]:
    """The bytes of PatientID, StudyInstanceUID and InstanceNumber, empty where they are absent. As they are stored."""
    elements = parse(data, _TAGS).elements
    return [elements[tag].value.strip(b" \0") if tag in elements else b"" for tag in _TAGS]
