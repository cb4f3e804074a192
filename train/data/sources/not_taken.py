"""`not_taken`: what a file that is no source is, by its first bytes, and what to do with it."""

from __future__ import annotations

import struct
from pathlib import Path

from stageproof.runtime.headers.signatures import HEAD, image_format, is_dicom
from stageproof.runtime.system.regular_files import open_regular

EXPECTED = (
    "a folder of class folders, a .parquet file or a folder of its shards, a folder written by save_to_disk, a .csv or "
    ".tsv file of path, label and patient, or a .zip of one of these"
)
_EXPORT = (
    "Write its images as PNG files into one folder for each class, or list them in a CSV of path, label and patient"
)
_IMAGE, _UNKNOWN = "one image", "a file of unknown type"
_UNPACK = "Unpack it, and give the folder"
_TABLE = "Save the table as CSV in UTF-8, with the columns path, label and patient"
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer to a file that was not downloaded", "Run git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _EXPORT),
    (b"MATLAB ", "a MATLAB file (.mat)", _EXPORT),
    (b"\x93NUMPY", "a NumPy array (.npy)", _EXPORT),
    (b"SQLite format 3\0", "an SQLite database", _TABLE),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls) or another Office document", _TABLE),
    (b"ARROW1", "an Arrow file", "Give the folder that save_to_disk wrote, or write the table as parquet"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "Give the folder that save_to_disk wrote, not one of its files"),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (b"%PDF-", "a PDF document", _TABLE),
    *((bytes((0x80, version)), "a Python pickle, which can run code", _EXPORT) for version in range(2, 6)),
)


def not_taken(path: Path) -> str:
    """One sentence or more: what the file is, what was expected, and the next step."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}. Expected {EXPECTED}."
    what, step = _kind(head, path.suffix.lower())
    return f"{path} is {what}; expected {EXPECTED}. {step}."


def is_of_another_kind(path: Path) -> bool:
    """Whether the file is known by its first bytes, and is neither an image nor text."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
    except OSError:
        return False
    what, _ = _kind(head, path.suffix.lower())
    return what != _IMAGE and what != _UNKNOWN and _text(head) is None and bool(head)


def _kind(head: bytes, suffix: str) -> tuple[str, str]:
    """Description and next step."""
    found = next(((what, step) for start, what, step in _STARTS if head.startswith(start)), None)
    if found is not None:
        return found
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] == b"n+2\0":
        return _volume("a NIfTI volume")
    if head[:2] == b"\x1f\x8b":
        return (
            _volume("a NIfTI volume, compressed with gzip")
            if suffix == ".gz" and _is_nifti(head)
            else ("a gzip archive, such as .tar.gz", _UNPACK)
        )
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if _is_tfrecord(head):
        return "a TFRecord file", _EXPORT
    if is_dicom(head) or image_format(head) is not None:
        return _IMAGE, "Give the folder that contains the class folders"
    if not head:
        return "empty (0 bytes)", "Copy it again"
    return _text(head) or (_UNKNOWN, _EXPORT)


def _volume(what: str) -> tuple[str, str]:
    return what, "Save its axial slices as PNG files into one folder for each class, and keep the patient in the names"


def _is_nifti(head: bytes) -> bool:
    import zlib

    try:
        inside = zlib.decompressobj(31).decompress(head, 400)
    except zlib.error:
        return False
    return inside[344:348] in (b"n+1\0", b"ni1\0") or inside[4:8] == b"n+2\0"


def _text(head: bytes) -> tuple[str, str] | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if any(byte < 9 or 13 < byte < 32 for byte in text):
        return None
    if text[:1] in (b"{", b"["):
        return "JSON or JSON lines", _TABLE
    if text[:1] == b"<":
        return "an HTML or XML page, as saved by a failed download", "Download it again"
    return "text", "If it is a table of path, label and patient, name it .csv or .tsv"


def _is_tfrecord(head: bytes) -> bool:
    """Whether the file begins with a length and its masked CRC-32C (TensorFlow, "TFRecords format details")."""
    if len(head) < 12:
        return False
    crc = 0xFFFFFFFF
    for byte in head[:8]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.unpack("<I", head[8:12])[0] == masked
