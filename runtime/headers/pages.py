"""Number of images in a file: pages of a TIFF, frames of an animation, slices of an ImageJ stack."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image

_COUNTED = 32 * 1024 * 1024
"""Largest file in bytes whose images are counted; for larger ones, only "several" is reported."""

_MOST_PAGES, _MOST_TAGS = 10_000, 64
"""Limits on counted pages and on parsed tags per page, because a file may declare millions."""

_NEW_SUBFILE, _SUBFILE, _WIDTH, _HEIGHT, _DESCRIPTION, _SAMPLES = 254, 255, 256, 257, 270, 277  # TIFF 6.0, section 8
_DEPTH = 32997  # ImageDepth, registered by SGI

_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType: a reduced-resolution version of another page, and a transparency mask."""

_NAMES = {
    "TIFF": "a multi-page TIFF or a stack",
    "GIF": "an animated GIF",
    "PNG": "an animated PNG",
    "WEBP": "an animated WebP",
    "MPO": "an MPO, several JPEG images in one",
    "PPM": "several images in one PNM file",
}


def several(image: Image.Image, data: bytes | None) -> str | None:
    """Number and kind of the images in `image`, opened and not yet decoded, for messages; None for a single image.

    data: the encoded file; None if only Pillow's image is available. Reduced versions and masks in a TIFF, and
    thumbnails in an MPO, are not counted.
    """
    if image.format not in _NAMES:
        return None
    if image.format == "TIFF" and data is not None:
        count: int | None = _tiff(data)
    elif image.format == "PPM":
        count = 1 if data is None else _pnm(image, data)
    elif image.format == "MPO":
        count = _mpo(image)
    elif not getattr(image, "is_animated", False):
        return None
    else:
        count = _frames(image) if data is None or len(data) <= _COUNTED else None
    if count is not None and count < 2:
        return None
    return f"{'several' if count is None else count} images ({_NAMES[image.format]})"


def _frames(image: Any) -> int | None:
    try:
        return int(image.n_frames)
    except Exception:  # noqa: BLE001  the file was closed, or is damaged after its first frame
        return None


def _mpo(image: Any) -> int:
    """Number of images of an MPO without thumbnails (CIPA DC-007, 5.2.3.3)."""
    kinds = [str(entry["Attribute"]["MPType"]) for entry in image.mpinfo[0xB002]]
    return 1 + sum("Thumbnail" not in kind for kind in kinds[1:])


def _pnm(image: Any, data: bytes) -> int:
    """Number of concatenated images, which netpbm's binary formats allow (pgm(5)): 1, or 2 for two or more."""
    if data[:2] not in (b"P4", b"P5", b"P6") or not image.tile:
        return 1
    width, height = image.size
    deep = re.match(rb"P[56](?:\s+(?:#[^\n]*\n\s*)*\d+){2}\s+(?:#[^\n]*\n\s*)*(\d+)", data[:1024])
    cell = 2 if deep is not None and int(deep.group(1)) > 255 else 1
    row = (width + 7) // 8 if data[:2] == b"P4" else width * cell * (3 if data[:2] == b"P6" else 1)
    behind = data[image.tile[0][2] + row * height :].lstrip()
    return 2 if re.match(rb"P[1-7]\s", behind) else 1


def _tiff(data: bytes) -> int:
    """Number of full-resolution pages, or the number of slices that the first page declares, if larger."""
    pages, stated = 0, 1
    for number, tags in enumerate(_directories(data)):
        if number == 0:
            stated = _stated(tags)
        reduced = tags.get(_NEW_SUBFILE, 0) & (_REDUCED | _MASK) or tags.get(_SUBFILE, 1) == 2
        pages += not reduced
    return max(pages, stated)


def _stated(tags: dict[int, Any]) -> int:
    """Number of slices that a directory declares: ImageJ, and optionally tifffile, write one directory per stack."""
    text = tags.get(_DESCRIPTION, b"")
    found = re.search(rb"^images=(\d{1,9})", text, re.MULTILINE) if text.startswith(b"ImageJ=") else None
    if found:
        return int(found.group(1))
    shape = re.match(rb'\{"shape": \[([0-9, ]{1,200})\]', text)
    samples = tags.get(_WIDTH, 0) * tags.get(_HEIGHT, 0) * tags.get(_SAMPLES, 1)
    if shape and samples:
        return math.prod(int(side) for side in shape.group(1).split(b",")) // samples
    return int(tags.get(_DEPTH, 1))


def _directories(data: bytes) -> Iterator[dict[int, Any]]:
    """The tags used here of each directory of a TIFF or BigTIFF, until the chain ends, is damaged or forms a loop."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count_form, entry_form, offset_form = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    count_size, entry_size, offset_size = (8, 20, 8) if big else (2, 12, 4)
    seen: set[int] = set()
    try:
        (position,) = struct.unpack_from(f"{order}{offset_form}", data, 8 if big else 4)
        while position and position not in seen and len(seen) < _MOST_PAGES:
            seen.add(position)
            (count,) = struct.unpack_from(f"{order}{count_form}", data, position)
            start = position + count_size
            if count > (len(data) - start) // entry_size:
                raise struct.error("cut off")
            tags: dict[int, Any] = {}
            for number in range(min(count, _MOST_TAGS)):
                at = start + number * entry_size
                tag, kind, length, value = struct.unpack_from(f"{order}{entry_form}", data, at)
                if tag == _DESCRIPTION:
                    inline = at + entry_size - offset_size
                    tags[tag] = data[inline if length <= offset_size else value :][: min(length, 4096)]
                elif tag in (_NEW_SUBFILE, _SUBFILE, _WIDTH, _HEIGHT, _SAMPLES, _DEPTH):
                    where = at + entry_size - offset_size
                    tags[tag] = value if kind != 3 else struct.unpack_from(f"{order}H", data, where)[0]  # 3: SHORT
            yield tags
            (position,) = struct.unpack_from(f"{order}{offset_form}", data, start + count * entry_size)
    except struct.error:
        yield {}  # a declared but truncated page is counted too
