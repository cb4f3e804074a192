"""Rejects small files whose headers would make a decoder allocate gigabytes or run for minutes (decompression bombs).

`runtime.images` checks the image sizes that Pillow reads from headers. This module checks other values that decoders
act on: tiles and precincts of JPEG 2000, scans of progressive JPEG, tiles and directories of TIFF, the canvas of WebP,
runs of DICOM's RLE. Counts are upper bounds of what a decoder finds: a marker is counted at any position in the data.
"""

from __future__ import annotations

import re
import struct
from itertools import pairwise

import numpy as np

from stageproof.runtime.errors import ImageError
from stageproof.runtime.headers.limits import TooLargeError

_SCANS = 100
"""Limit for one JPEG. libjpeg's default script for progressive colour has 10; each scan is a pass over all pixels."""

_COMPONENTS, _TILES, _LAYERS = 4, 1024, 100
"""Limits for JPEG 2000: OpenJPEG allocates kilobytes per component and tile before reading the data."""
_BLOCKS = 1 << 17
"""Limit on code blocks of a JPEG 2000, in all components; 4 Mpx in colour with the usual 64 x 64 blocks have 3,072."""
_PRECINCTS = 1 << 16
"""Limit on precincts times layers of a JPEG 2000, in all components and resolutions."""

_TIFF_ENTRIES = 512
"""Limit on the tags of a directory; baseline TIFF defines 36, scanners add dozens."""
_TIFF_BITS = 128
"""Limit on the bits per pixel of a TIFF: four samples of 32."""
_UNIT = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""TIFF field type → bytes per value (TIFF 6.0 section 2; BigTIFF)."""
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 322, 323

_CHUNK = 1 << 20
"""Characters of a plain PNM parsed at a time, to limit the memory."""

_DAMAGED = "is damaged, or made to exhaust a decoder"


def check_headers(data: bytes, where: str, max_pixels: int) -> bytes:
    """`data`, or the same image re-encoded for faster decoding. Raises ImageError for headers beyond the limits.

    data: an encoded image of any format.
    """
    if data.startswith(b"\xff\xd8"):
        check_jpeg(data, where)
    elif data[:4] in (b"\0\0\0\x0c", b"\xff\x4f\xff\x51"):
        check_jpeg2000(data, where, max_pixels)
    elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _check_tiff(data, where, max_pixels)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp(data, where, max_pixels)
    elif re.match(rb"P[123]\s", data):
        return _binary_pnm(data, where, max_pixels)
    return data


def check_size(width: int, height: int, where: str, max_pixels: int) -> None:
    """Raise ImageError for an empty image, and TooLargeError for more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageError(f"{where} is {width} x {height}: it has no pixels. Pass at least one.")
    if width * height > max_pixels:
        raise TooLargeError(
            f"{where} is {width} x {height}; at most {max_pixels} pixels are decoded. Resize it, or raise max_pixels."
        )


def check_jpeg(data: bytes, where: str) -> None:
    """Raise ImageError for too many scans (SOS, ISO/IEC 10918-1 B.2.3)."""
    scans = data.count(b"\xff\xda")
    if scans > _SCANS:
        raise ImageError(f"{where} is a JPEG of {scans} scans; at most {_SCANS} are decoded. It {_DAMAGED}.")


def check_jpeg2000(data: bytes, where: str, max_pixels: int) -> None:
    """Raise ImageError for a size, or a number of tiles, components, precincts, code blocks or layers (ISO/IEC 15444-1
    A.5, A.6.1), beyond those of images within `max_pixels`."""
    for found in re.finditer(rb"\xff\x4f\xff\x51", data):
        size = found.start() + 6
        if size + 36 > len(data):
            raise ImageError(f"{where} is truncated: its JPEG 2000 header is cut off. Copy or export it again.")
        x1, y1, x0, y0, tile_width, tile_height, tx, ty, count = struct.unpack_from(">8IH", data, size + 2)
        width, height = x1 - x0, y1 - y0
        check_size(width, height, where, max_pixels)
        if not 1 <= count <= _COMPONENTS or not tile_width or not tile_height or tx > x0 or ty > y0:
            raise ImageError(
                f"{where} is a JPEG 2000 of {count} components, or of tiles without a size. It {_DAMAGED}."
            )
        tiles = -(-(x1 - tx) // tile_width) * -(-(y1 - ty) // tile_height)
        if tiles > _TILES:
            raise ImageError(f"{where} is a JPEG 2000 of {tiles} tiles; at most {_TILES} are decoded. It {_DAMAGED}.")
        for style in re.finditer(rb"\xff[\x52\x53]", data[size:]):  # COD, COC, in the main header or a tile's
            _check_coding(data, size + style.start(), (width, height, count, tiles), where)
    for palette in re.finditer(rb"pclr", data):  # I.5.3.4: entries, and columns that become components
        if data[palette.end() + 2 : palette.end() + 3] > bytes((_COMPONENTS,)):
            raise ImageError(f"{where} is a JPEG 2000 whose palette has too many columns. It {_DAMAGED}.")


def _check_coding(data: bytes, at: int, image: tuple[int, int, int, int], where: str) -> None:
    """Check a coding style marker (A.6.1, A.6.2) at `at`; other bytes that match the marker are skipped. image: width,
    height, components, tiles."""
    width, height, count, tiles = image
    (length,) = struct.unpack_from(">H", data.ljust(at + 4, b"\0"), at + 2)
    whole = data[at + 1] == 0x52
    body = data[at + 4 : at + 2 + length]
    start = 5 if whole else 2  # Scod and SGcod; Ccoc and Scoc
    if len(body) < start + 5:
        return
    levels, exponents = body[start], (body[start + 1] + 2, body[start + 2] + 2)
    precincts = body[start + 5 :] if body[0 if whole else 1] & 1 else b""
    if length != 2 + start + 5 + (levels + 1 if precincts else 0) or levels > 32 or max(exponents) > 10:
        return
    layers = struct.unpack_from(">H", body, 2)[0] if whole else 1
    total, blocks = 0, 0
    for level in range(levels + 1):
        px, py = (precincts[level] & 15, precincts[level] >> 4) if precincts else (15, 15)
        shift = levels - level
        columns, rows = -(-width >> shift) or 1, -(-height >> shift) or 1
        total += count * (tiles + (-(-columns >> px) + 1) * (-(-rows >> py) + 1))
        across, down = min(exponents[0], max(px - (level > 0), 0)), min(exponents[1], max(py - (level > 0), 0))
        blocks += count * (tiles + (columns >> across) * (rows >> down))
    if layers > _LAYERS or total > _PRECINCTS or total * layers > 4 * _PRECINCTS or blocks > _BLOCKS:
        raise ImageError(
            f"{where} is a JPEG 2000 of {layers} layers, some {total} precincts and {blocks} code blocks, for "
            f"{width} x {height} pixels. It {_DAMAGED}: save it again with the defaults of its program."
        )


def check_rle(frame: bytes, planes: int, size: int, where: str) -> None:
    """Raise ImageError for an RLE frame (DICOM PS3.5 annex G) that does not have `planes` segments of `size` bytes.

    Run lengths are summed without decoding; two bytes can encode a run of up to 128.
    """
    if len(frame) < 64:
        raise ImageError(f"{where} is truncated: an RLE frame has no header. Export it again.")
    count, *offsets = struct.unpack_from("<16I", frame)
    starts = [*offsets[: min(count, 15)], len(frame)]
    if count != planes or starts != sorted(starts) or starts[0] < 64:
        raise ImageError(f"{where} has an RLE frame whose segments do not fit its pixels. Export it again.")
    for start, end in pairwise(starts):
        if end - start > 2 * size + 64 or _run_length(frame[start:end], 2 * size + 64) > 2 * size + 64:
            raise ImageError(f"{where} has an RLE frame that holds more than its pixels. Export it again.")


def _run_length(segment: bytes, most: int) -> int:
    """Decoded size of a segment in bytes, counted until it exceeds `most`."""
    position = total = 0
    end = len(segment)
    while position < end and total <= most:
        head = segment[position]
        if head < 128:
            total += head + 1
            position += head + 2
        elif head > 128:
            total += 257 - head
            position += 2
        else:
            position += 1
    return total


def _check_webp(data: bytes, where: str, max_pixels: int) -> None:
    """Check the canvas size, for which the decoder allocates memory (RFC 9649, 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        size = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        check_size(*size, where, max_pixels)
    for found in re.finditer(rb"VP8L....\x2f(....)", data[:4096], re.DOTALL):
        bits = int.from_bytes(found.group(1), "little")
        check_size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), where, max_pixels)
    for found in re.finditer(rb"VP8 .{7}\x9d\x01\x2a(..)(..)", data[:4096], re.DOTALL):
        width, height = (int.from_bytes(side, "little") & 0x3FFF for side in found.groups())
        check_size(max(width, 1), max(height, 1), where, max_pixels)


def _check_tiff(data: bytes, where: str, max_pixels: int) -> None:
    """Check the first directory: tiles, samples, and that its values are not larger than the file (TIFF 6.0, 2, 15)."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    entry = struct.Struct(f"{order}HHQ8s" if big else f"{order}HHI4s")
    stated: dict[int, int] = {}
    values = 0
    try:
        (at,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)
        (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, at)
        if count > _TIFF_ENTRIES:
            raise ImageError(f"{where} is a TIFF with {count} tags; at most {_TIFF_ENTRIES} are read. It {_DAMAGED}.")
        for number in range(count):
            tag, kind, length, value = entry.unpack_from(data, at + (8 if big else 2) + number * entry.size)
            size = _UNIT.get(kind, 1) * length
            values += size if size > len(value) else 0
            if length == 1 and kind in (1, 3, 4, 16):
                number = int.from_bytes(value[: _UNIT[kind]], "little" if order == "<" else "big")
                stated[tag] = max(number, stated.get(tag, 0))
            elif tag == _BITS and kind == 3:  # one value per sample
                inline = size <= len(value)
                (start,) = (0,) if inline else struct.unpack(f"{order}Q" if big else f"{order}I", value)
                bits = struct.unpack_from(f"{order}{min(length, 64)}H", value if inline else data, start)
                stated[tag] = max(bits, default=1)
    except (struct.error, OverflowError):
        raise ImageError(f"{where} is a TIFF that is truncated or damaged at its start. Export it again.") from None
    if values > len(data):
        raise ImageError(f"{where} is a TIFF whose tags claim {values} bytes, of {len(data)}. It {_DAMAGED}.")
    if _WIDTH in stated and _HEIGHT in stated:
        check_size(stated[_WIDTH], stated[_HEIGHT], where, max_pixels)
    tile = stated.get(_TILE_WIDTH, 1), stated.get(_TILE_HEIGHT, 1)
    if tile[0] * tile[1] > max_pixels:
        raise TooLargeError(
            f"{where} is a TIFF with tiles of {tile[0]} x {tile[1]}; at most {max_pixels} pixels are decoded. Save it "
            "without tiles, or raise max_pixels."
        )
    if stated.get(_SAMPLES, 1) * stated.get(_BITS, 1) > _TIFF_BITS:
        raise ImageError(f"{where} is a TIFF of {stated[_SAMPLES]} samples a pixel. Convert it to grey or RGB.")


def _binary_pnm(data: bytes, where: str, max_pixels: int) -> bytes:
    """A plain (ASCII) PBM, PGM or PPM converted to binary, which Pillow decodes 100 times as fast (pbm(5), pgm(5))."""
    text = re.sub(rb"#[^\n\r]*", b"", data) if b"#" in data else data
    numbers = 2 if data[:2] == b"P1" else 3
    head = re.match(rb"P[123]\s+" + rb"\s+".join([rb"(\d{1,9})"] * numbers) + rb"\s", text)
    if head is None:
        return data  # Pillow raises the error
    width, height, *deepest = map(int, head.groups())
    check_size(width, height, where, max_pixels)
    count = width * height * (3 if data[:2] == b"P3" else 1)
    body = text[head.end() :]
    if data[:2] == b"P1":
        bits = np.frombuffer(body, np.uint8)
        bits = bits[(bits > 32) & (bits != 127)][:count]
        if len(bits) < count or not ((bits == 48) | (bits == 49)).all():
            raise ImageError(f"{where} is a plain PBM that is truncated or damaged. Copy or export it again.")
        return b"P4 %d %d\n" % (width, height) + np.packbits(bits.reshape(height, width) == 49, axis=1).tobytes()
    (top,) = deepest
    values = _whole_numbers(body, count)
    if not 0 < top < 65536 or values is None or int(values.max()) > top:
        raise ImageError(f"{where} is a plain PGM or PPM that is truncated or damaged. Copy or export it again.")
    kind = b"P5" if data[:2] == b"P2" else b"P6"
    full = 255 if top < 256 else 65535
    if top != full:
        values = np.rint(values / top * full)
    pixels = values.astype(np.uint8 if full == 255 else ">u2").tobytes()
    return kind + b" %d %d %d\n" % (width, height, full) + pixels


def _whole_numbers(text: bytes, count: int) -> np.ndarray | None:
    """The first `count` numbers of `text`, uint32 (count,); None if there are fewer, or other characters."""
    values = np.zeros(count, np.uint32)
    done = at = 0
    while done < count and at < len(text):
        end = min(at + _CHUNK, len(text))
        while end < len(text) and text[end : end + 1].isdigit() and end < at + _CHUNK + 16:
            end += 1
        some = _numbers(np.frombuffer(text[at:end], np.uint8), count - done)
        if some is None:
            return None
        values[done : done + len(some)] = some
        done, at = done + len(some), end
    return values if done == count else None


def _numbers(characters: np.ndarray, most: int) -> np.ndarray | None:
    """Up to `most` numbers, parsed with numpy: a number starts at a digit that does not follow a digit."""
    digit = (characters >= 48) & (characters <= 57)
    blank = ((characters >= 9) & (characters <= 13)) | (characters == 32)
    starts = np.flatnonzero(digit & ~np.concatenate(([False], digit[:-1])))[:most]
    ends = np.flatnonzero(digit & ~np.concatenate((digit[1:], [False])))[:most] + 1
    used = int(ends[-1]) if len(starts) == most else len(characters)
    longest = int((ends - starts).max(initial=0))
    if not (digit | blank)[:used].all() or longest > 9:
        return None
    values = np.zeros(len(starts), np.uint32)
    for place in range(longest):
        more = starts + place < ends
        values[more] = values[more] * 10 + (characters[starts[more] + place] - 48)
    return values
