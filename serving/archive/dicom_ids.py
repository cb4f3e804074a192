"""`dicom_ids`: the patient, study and series that a DICOM header names, only to make keyed digests of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from stageproof.runtime.dicom.elements import parse
from stageproof.runtime.headers.signatures import is_dicom

_PATIENT, _STUDY, _SERIES = 0x00100020, 0x0020000D, 0x0020000E


@dataclass(frozen=True)
class DicomIds:
    """Raw values without padding; empty if the file is no DICOM or does not state them."""

    patient: bytes = b""
    """Patient ID (0010,0020)."""
    study: bytes = b""
    """Study Instance UID (0020,000D)."""
    series: bytes = b""
    """Series Instance UID (0020,000E)."""


_NONE = DicomIds()


def dicom_ids(data: bytes) -> DicomIds:
    """The ids in `data`; none for a file that is no DICOM, or has an invalid structure."""
    if not is_dicom(data):
        return _NONE
    try:
        elements = parse(data, (_PATIENT, _STUDY, _SERIES)).elements
    except (ValueError, IndexError, OverflowError, struct.error):
        return _NONE  # its row says why it is unreadable
    found = [elements[tag].value.strip(b"\0 ") if tag in elements else b"" for tag in (_PATIENT, _STUDY, _SERIES)]
    return DicomIds(*found)
