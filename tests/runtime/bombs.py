"""Small files that claim or become much: by construction, one for each way that a decoder was made to work for it."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image


def save(pixels: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def grey(side: int = 64) -> np.ndarray:
    return (np.add.outer(np.arange(side) * 3, np.arange(side) * 2) % 256).astype(np.uint8)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int = 1, colour: int = 0, zeros: int = 0) -> bytes:
    """A PNG whose pixels are `zeros` bytes of zeros."""
    deflate = zlib.compressobj(9)
    body = deflate.compress(bytes(zeros)) + deflate.flush()
    palette = chunk(b"PLTE", bytes(6)) if colour == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bmp(width: int, height: int, body: bytes = b"\0\0" * 500 + b"\0\1") -> bytes:
    """A BMP of 8 bits, compressed by runs."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(body), 0, 0, 14 + len(info)) + info + body


def jpeg(scans: int, side: int = 1024) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = save(grey(side), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * scans + b"\xff\xd9"


def jpeg2000(
    size: tuple[int, int] = (64, 64),
    tile: tuple[int, int] | None = None,
    components: int = 1,
    *,
    layers: int = 1,
    levels: int = 0,
    block: int = 4,
    precinct: int | None = None,
    in_tile: bool = False,
) -> bytes:
    """A codestream with one empty tile (ISO/IEC 15444-1 annex A). in_tile: the style is the tile's own."""
    width, height = size
    across, down = tile or size
    body = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, across, down, 0, 0, components) + b"\7\1\1" * components

    def style(layers: int, levels: int, block: int, precinct: int | None) -> bytes:
        sizes = b"" if precinct is None else bytes([precinct << 4 | precinct] * (levels + 1))
        coding = struct.pack(">BBHBBBBBB", precinct is not None, 0, layers, 0, levels, block, block, 0, 1) + sizes
        return b"\xff\x52" + struct.pack(">H", 2 + len(coding)) + coding

    quantised = b"\xff\x5c" + struct.pack(">HB", 4 + 3 * levels, 0x40) + b"\x40" * (3 * levels + 1)
    bad = style(layers, levels, block, precinct)
    inside = bad if in_tile else b""
    main = style(1, levels, 4, None) if in_tile else bad
    part = b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 14 + len(inside), 0, 1) + inside + b"\xff\x93"
    return b"\xff\x4f\xff\x51" + struct.pack(">H", 2 + len(body)) + body + main + quantised + part + b"\xff\xd9"


def jp2(codestream: bytes, columns: int = 1) -> bytes:
    """A JP2 file with a palette of so many columns (I.5.3.4)."""
    (width, height) = struct.unpack(">II", codestream[8:16])

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + kind + body

    header = box(b"ihdr", struct.pack(">IIHBBBB", height, width, 1, 7, 7, 0, 0))
    header += box(b"colr", b"\1\0\0" + struct.pack(">I", 17))
    header += box(b"pclr", struct.pack(">HB", 1, columns) + b"\7" * columns + bytes(columns))
    header += box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, column) for column in range(columns)))
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", header) + box(b"jp2c", codestream)


def tiff(entries: dict[int, tuple[int, int, int]], size: int = 0) -> bytes:
    """A TIFF of one directory: tag → type, count, value; padded to `size`."""
    body = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)).ljust(size, b"\0")


def tiled_tiff(side: int) -> bytes:
    values = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 200, 325: 16}
    return tiff({tag: (4 if value > 65535 else 3, 1, value) for tag, value in values.items()}, 216)


def webp(width: int, height: int) -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body += save(grey(), "WEBP", lossless=True)[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr in (b"UI", b"OB", b"OW") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return (
        head
        + (struct.pack("<HI", 0, len(value)) if vr in (b"OB", b"OW", b"SQ") else struct.pack("<H", len(value)))
        + value
    )


def dicom(
    syntax: str, pixels: bytes, rows: int, columns: int, frames: int = 1, *, encapsulated: bool = True, zeros: int = 0
) -> bytes:
    """A DICOM file of 8-bit grey, which names a patient. pixels: items, or all bytes."""
    meta = element(0x00020010, b"UI", syntax.encode())
    numbers = {0x00280002: 1, 0x00280010: rows, 0x00280011: columns}
    bits = {0x00280100: 8, 0x00280101: 8, 0x00280102: 7, 0x00280103: 0}
    body = element(0x00080060, b"CS", b"MR") + element(0x00100010, b"PN", b"Zyxwvut^Qponml")
    body += element(0x00280002, b"US", struct.pack("<H", 1)) + element(0x00280004, b"CS", b"MONOCHROME2 ")
    body += element(0x00280008, b"IS", str(frames).encode())
    for tag, number in {**numbers, **bits}.items():
        if tag != 0x00280002:
            body += element(tag, b"US", struct.pack("<H", number))
    if encapsulated:
        body += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + pixels + b"\xfe\xff\xdd\xe0" + bytes(4)
    else:
        body += element(0x7FE00010, b"OW", pixels)
    if syntax == "1.2.840.10008.1.2.1.99":
        body = deflated(body, zeros)
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta + body


def deflated(body: bytes, zeros: int = 0) -> bytes:
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    return deflate.compress(body) + deflate.compress(bytes(zeros)) + deflate.flush()


def item(fragment: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment)) + fragment


def rle(segments: list[bytes]) -> bytes:
    starts = [64 + sum(map(len, segments[:index])) for index in range(len(segments))]
    return struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


RLE, J2K, DEFLATED = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1.99"


@cache
def refused() -> dict[str, bytes]:
    """Files whose headers alone say that they are not to be decoded."""
    side = 200_000
    empty = item(b"")
    return {
        "PNG of 200,000 x 200,000": png(side, side),
        "PNG of 1 bit, 60,000 x 60,000": png(60_000, 60_000, zeros=1 << 23),
        "PNG palette of 1 bit, 8,000 x 8,000": png(8000, 8000, 1, 3, zeros=1 << 23),
        "BMP of 200,000 x 200,000": bmp(side, side),
        "BMP RLE of 20,000 x 20,000": bmp(20_000, 20_000, b"\xff\0" * 16_000 + b"\0\1"),
        "PGM of 200,000 x 200,000": b"P5 200000 200000 255\n" + bytes(100),
        "plain PGM of 200,000 x 200,000": b"P2 200000 200000 255\n" + b"1 " * 50_000,
        "TIFF of 200,000 x 200,000": tiff({256: (4, 1, side), 257: (4, 1, side), 258: (3, 1, 8), 262: (3, 1, 1)}),
        "TIFF tile of 46,000 x 46,000": tiled_tiff(46_000),
        "TIFF of 65,535 samples": tiff({256: (3, 1, 64), 257: (3, 1, 64), 258: (3, 1, 8), 277: (3, 1, 65535)}),
        "TIFF tags that claim 4 GB": tiff(dict.fromkeys(range(300, 360), (1, 1 << 26, 8)), 5000),
        "GIF of 65,535 x 65,535": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3) + b"," + bytes(4)
        + struct.pack("<HH", 65535, 65535) + b"\0\2\2\x4c\1\0;",
        "WebP canvas of 16,000 x 16,000": webp(16_000, 16_000),
        "JPEG of 65,500 x 65,500": save(grey(), "JPEG").replace(b"\0\x40\0\x40", b"\xff\xdc\xff\xdc"),
        "progressive JPEG of 1,000 scans": jpeg(1000, 64),
        "JPEG 2000 of 200,000 x 200,000": jpeg2000((side, side)),
        "JPEG 2000 of 65,535 tiles": jpeg2000((2048, 2048), (8, 8)),
        "JPEG 2000 of 16,384 components": jpeg2000((512, 512), components=16384),
        "JPEG 2000 of 1 x 1 precincts": jpeg2000((2048, 2048), levels=5, precinct=0),
        "JPEG 2000 of 1 x 1 precincts in a tile": jpeg2000((2048, 2048), precinct=0, in_tile=True),
        "JPEG 2000 of 65,535 layers": jpeg2000((2048, 2048), layers=65535, precinct=8),
        "JPEG 2000 of 4 x 4 code blocks": jpeg2000((2048, 2048), block=0),
        "JP2 palette of 255 columns": jp2(jpeg2000((2048, 2048)), 255),
        "DICOM of 65,535 x 65,535": dicom("1.2.840.10008.1.2.1", bytes(64), 65535, 65535, encapsulated=False),
        "DICOM of 100,000 frames": dicom(RLE, empty * 100_001, 1, 1, 100_000),
        "DICOM JPEG 2000 of 65,535 tiles": dicom(J2K, empty + item(jpeg2000((2048, 2048), (8, 8))), 2048, 2048),
        "DICOM JPEG 2000 of 1 x 1 precincts": dicom(J2K, empty + item(jpeg2000((2048, 2048), precinct=0)), 2048, 2048),
        "DICOM JPEG of 1,000 scans": dicom("1.2.840.10008.1.2.4.50", empty + item(jpeg(1000, 512)), 512, 512),
        "DICOM RLE that runs on": dicom(RLE, empty + item(rle([b"\x81\0" * 500_000])), 1000, 1000),
        "DICOM deflated to 200 MB": dicom(DEFLATED, b"", 9, 9, encapsulated=False, zeros=200 << 20).replace(
            b"\x02\0\x10\0UI", element(0x00020001, b"OB", bytes(4096)) + b"\x02\0\x10\0UI"
        ),
    }  # fmt: skip


@cache
def costly() -> dict[str, bytes]:
    """Files within the limits that take as much of a decoder as there is to take."""
    noise = np.random.default_rng(1).integers(0, 256, (2048, 2048), dtype=np.uint8)
    frames = item(b"") + item(rle([b"\xff\0" * 8])) * 10_000
    return {
        "PNG of 1 bit": png(2048, 2048, zeros=1 << 20),
        "PNG palette": png(2048, 2048, 8, 3, zeros=5 << 20),
        "PNG of 16 bits, RGBA": png(2048, 2048, 16, 6, zeros=33 << 20),
        "BMP RLE": bmp(2048, 2048, b"\1\0\0\0" * 2048 + b"\0\1"),
        "plain PGM": b"P2 700 700 255\n" + b"17 " * 490_000,
        "plain PGM of one long word": b"P2 700 700 255\n" + b"1" * 1_000_000,
        "plain PGM of comments": b"P2 700 700 255\n" + b"#\n" * 500_000,
        "progressive JPEG of 90 scans": jpeg(80, 2048),
        "JPEG 2000 of noise": save(noise, "JPEG2000"),
        "JPEG 2000 of empty tiles": jpeg2000((2048, 2048), (64, 64), 4),
        "TIFF of one tile": tiled_tiff(2048),
        "GIF of 20,000 images": gif(20_000),
        "DICOM RLE of 10,000 frames": dicom(RLE, frames, 4, 4, 10_000),
        "DICOM of a million items": dicom(RLE, item(b"") * 1_000_000, 32, 32, 10_000),
        "DICOM of 60 MB": dicom("1.2.840.10008.1.2.1", bytes(60 << 20), 1024, 1024, 60, encapsulated=False),
    }


def gif(images: int) -> bytes:
    one = b"," + bytes(4) + struct.pack("<HH", 64, 64) + b"\0\2\2\x4c\1\0"
    return b"GIF89a" + struct.pack("<HH", 64, 64) + bytes(3) + one * images + b";"
