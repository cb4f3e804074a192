"""File type by magic bytes: supported image formats, DICOM, and other types with advice for error messages.

Messages never quote the file's content, which may identify a patient.
"""

from __future__ import annotations

import re
import struct
import zlib

HEAD = 4096
"""Number of bytes from the start of a file that the functions here need."""

_IMAGES: dict[str, tuple[bytes, ...]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
}
"""Format of `runtime.images.raster.FORMATS` → magic bytes; for WebP, BMP and PPM see `image_format`."""

_SLICE = "Convert one slice to PNG first."
_CONVERT = "Convert it to PNG."
_UNPACK = "Unpack it, and name the image."
_ARRAY = "Load it in Python, and pass the slice you want as a uint8 array (H, W)."

_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "is a Git LFS pointer to a file that was not downloaded",
        "Run git lfs pull in its repository.",
    ),
    (b"%PDF-", "is a PDF document", "Export the image from it as PNG."),
    (b"%!PS", "is a PostScript file", _CONVERT),
    (b"\x93NUMPY", "is a NumPy array (.npy)", _ARRAY),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file (.h5, .mat, .mnc)", _ARRAY),
    (b"MATLAB 5.0 MAT-file", "is a MATLAB file (.mat)", _ARRAY),
    (b"CDF\x01", "is a NetCDF or MINC file", _SLICE),
    (b"CDF\x02", "is a NetCDF or MINC file", _SLICE),
    (b"NRRD", "is an NRRD volume", _SLICE),
    (b"ObjectType", "is a MetaImage header (.mha, .mhd)", _SLICE),
    (b"NDims", "is a MetaImage header (.mha, .mhd)", _SLICE),
    (b"PAR1", "is a Parquet file", "Train on it with --data, or pass the bytes of one of its images."),
    (b"SQLite format 3\0", "is an SQLite database", "Pass an image."),
    (b"PK\x03\x04", "is a ZIP archive (a zipped folder, .npz or .pth)", _UNPACK),
    (b"PK\x05\x06", "is an empty ZIP archive", "Pass an image."),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "is a RAR archive", _UNPACK),
    (b"BZh", "is a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\0", "is an xz file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "is a Zstandard file", _UNPACK),
    (b"8BPS", "is a Photoshop document", _CONVERT),
    (b"\xff\x0a", "is a JPEG XL image", _CONVERT),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL image", _CONVERT),
    (b"\x1aE\xdf\xa3", "is a Matroska or WebM video", "Save one picture of it as PNG."),
    (b"\x80\x02", "is a Python pickle", "Pass an image."),
    (b"\x80\x03", "is a Python pickle", "Pass an image."),
    (b"\x80\x04", "is a Python pickle", "Pass an image."),
    (b"\x80\x05", "is a Python pickle", "Pass an image."),
)
"""Magic bytes, description, and advice for messages."""

_BRANDS = {
    # ISO/IEC 14496-12 4.3: the major brand after "ftyp".
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "a HEIC image, as phones take"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF image"),
}


def is_dicom(data: bytes) -> bool:
    """Whether `data` is a DICOM file, with the preamble of PS3.10 or, as written by old devices, without."""
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


def image_format(data: bytes) -> str | None:
    """The format of `data` among those that `runtime.images` reads, by its magic bytes; None for other files."""
    for name, starts in _IMAGES.items():
        if data.startswith(starts):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and data[15:18] == b"\0\0\0" and data[14:15] in b"\x0c\x28\x34\x38\x40\x6c\x7c":
        return "BMP"  # checked by the size of its second header
    return "PPM" if re.match(rb"P[1-6fF]\s+[#\d]", data) else None


def what_is(data: bytes) -> str | None:
    """Description and advice for messages, such as "is a PDF document; … Export the image from it as PNG."

    data: a file that is not a supported image, or its first `HEAD` bytes. None for an unknown type.
    """
    if is_dicom(data):
        return "is a DICOM file; this reader takes still images. Predictor reads it, as runtime.images.reader does."
    found = _named(data) or _volume(data) or _container(data) or _text(data)
    if found is not None:
        return f"{found[0]}; this reader takes still images. {found[1]}"
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg(data)
    name = image_format(data)
    if name is not None:
        return f"starts like {name} but is damaged, or an unsupported kind of {name}. Save it as PNG."
    if not data.strip(b"\0"):
        return "contains only zeros, as after an interrupted copy. Copy it again."
    return None


def _named(data: bytes) -> tuple[str, str] | None:
    return next(((name, step) for start, name, step in _OTHERS if data.startswith(start)), None)


def _volume(data: bytes) -> tuple[str, str] | None:
    if data[344:348] in (b"n+1\0", b"ni1\0") or data[4:8] == b"n+2\0":
        return "is a NIfTI volume", _SLICE
    if data[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and len(data) in (348, HEAD):
        return "is an Analyze volume or its header", _SLICE
    if data[:4] == b"\0\0\0\x01" and data[20:24] in (b"\0\0\0\0", b"\0\0\0\x01", b"\0\0\0\x03", b"\0\0\0\x04"):
        return "is a FreeSurfer volume (.mgh)", _SLICE
    if data[:2] != b"\x1f\x8b":
        return None
    try:
        inside = zlib.decompressobj(31).decompress(data[:HEAD], HEAD)
    except zlib.error:
        inside = b""
    found = None if inside[:2] == b"\x1f\x8b" else _volume(inside)
    return (f"{found[0]}, compressed with gzip", found[1]) if found else ("is a gzip file", _UNPACK)


def _container(data: bytes) -> tuple[str, str] | None:
    if data[4:8] == b"ftyp":
        brand = _BRANDS.get(data[8:12])
        return (
            (f"is {brand}", _CONVERT) if brand else ("is an MP4 or QuickTime video", "Save one picture of it as PNG.")
        )
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "is an AVI video", "Save one picture of it as PNG."
    if data[257:262] == b"ustar":
        return "is a tar archive", _UNPACK
    return None


def _text(data: bytes) -> tuple[str, str] | None:
    head = data[:HEAD].removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = head[:512].lower()
    if lower.startswith((b"<!doctype html", b"<html")) or (lower.startswith(b"<") and b"<html" in lower):
        return "is an HTML page, as saved by a failed download or a login page", "Download the image again."
    if lower.startswith(b"<svg") or (lower.startswith(b"<?xml") and b"<svg" in lower):
        return "is an SVG drawing", _CONVERT
    if not head or image_format(head) is not None:
        return None
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # UTF-16
    if not wide and any(byte < 9 or 13 < byte < 32 or byte == 127 for byte in head):
        return None
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # Accept a character truncated at the end of `head`, and older encodings with mostly letters.
        letters = sum(chr(byte).isalnum() or byte in b" \r\n\t" for byte in head)
        if not wide and error.start < len(head) - 3 and letters < 0.7 * len(head):
            return None
    return "is text", "Pass an image."


def _jpeg(data: bytes) -> str:
    """Why a JPEG is not supported, by its frame header (ISO/IEC 10918-1 B.2.2), with advice."""
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if data[position + 4] != 8:
                return f"is a {data[position + 4]}-bit JPEG; only 8 bits are supported. Convert it to 16-bit PNG."
            if marker in (0xC3, 0xC7, 0xCB, 0xCF):
                return "is a lossless JPEG, which is supported only in DICOM files. Convert it to PNG."
            break
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return "starts like JPEG but is damaged, or an unsupported kind of JPEG. Save it as PNG."
