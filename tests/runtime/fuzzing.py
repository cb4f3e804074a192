"""Mutated images and DICOM files, decoded in processes with limits: `python -m tests.runtime.fuzzing FIRST COUNT`.

Prints one JSON line. Everything follows from the number of the mutation, so that a finding can be repeated by it. Every
DICOM file, and the metadata of some images, names a patient who must not appear anywhere.
"""

from __future__ import annotations

import io
import json
import logging
import random
import resource
import struct
import sys
import traceback
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from stageproof.runtime import ImageError
from stageproof.runtime.decoding.pool import Decoders
from stageproof.runtime.images.reader import read_all
from tests.runtime import bombs

NAME = "Zyxwvut"
SECRETS = (NAME, "ZYX-4711", "19330107")
GIANT = [
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\xff\xff\0",
    b"\xff\xff\0\0",
    b"\0\0\0\0",
    b"\0\1\0\0",
    b"\0\0\x40\0",
]
NUMBERS = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 64, 127, 128, 255, 256, 1024, 4096, 32767, 32768, 65535, 1 << 20, 1 << 31]


def images() -> list[bytes]:
    rng = np.random.default_rng(5)
    grey = (np.add.outer(np.arange(24), np.arange(20)) * 5 + rng.integers(0, 40, (24, 20))).astype(np.uint8)
    colour = np.stack([grey, grey[::-1], grey // 2], -1)
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", NAME, zip=True)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = NAME, 6
    palette = Image.fromarray(colour).quantize(16)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", bits=4)
    made = [buffer.getvalue(), bombs.save(grey, "PNG", pnginfo=text), bombs.save(colour, "PNG")]
    made += [bombs.save(grey.astype(np.uint16) * 257, "PNG"), bombs.save(grey > 60, "PNG")]
    made += [bombs.save(grey, "JPEG", exif=exif), bombs.save(colour, "JPEG", progressive=True, comment=NAME.encode())]
    made += [bombs.save(grey, "BMP"), bombs.save(colour, "BMP"), bombs.bmp(20, 24, b"\x14\x07\0\0" * 24 + b"\0\1")]
    for compression in (None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "zstd", "lzma", "group4"):
        pixels = grey > 60 if compression == "group4" else grey
        try:
            made.append(bombs.save(pixels, "TIFF", compression=compression, description=NAME))
        except (OSError, KeyError):
            continue  # not in this build of libtiff
    made += [bombs.tiled_tiff(16), bombs.save(colour, "GIF"), bombs.gif(1)]
    made += [bombs.save(grey, "JPEG2000"), bombs.save(colour, "JPEG2000", tile_size=(16, 16), no_jp2=True)]
    made += [bombs.jpeg2000(levels=2, precinct=7), bombs.jp2(bombs.jpeg2000())]
    made += [bombs.save(colour, "WEBP", exif=exif), bombs.save(grey, "WEBP", lossless=True), bombs.webp(24, 20)]
    made += [bombs.save(grey, "PPM"), bombs.save(colour, "PPM"), b"P2 # x\n3 2 9\n1 2 3\n4 5 6\n", b"P1 3 2\n101010\n"]
    return made


def dicoms() -> list[bytes]:
    try:
        import pydicom
    except ImportError:
        return []
    from pydicom.dataset import Dataset

    from tests.runtime.dicoms import dataset, encoded, lut

    grey = bombs.grey(24)
    empty = bombs.item(b"")
    frames = [bombs.item(bombs.rle([b"".join(b"\x17" + row.tobytes() for row in grey)]))] * 2
    made = [
        bombs.dicom(bombs.RLE, empty + b"".join(frames), 24, 24, 2),
        bombs.dicom(bombs.J2K, empty + bombs.item(bombs.save(grey, "JPEG2000", no_jp2=True)), 24, 24),
        bombs.dicom("1.2.840.10008.1.2.4.50", empty + bombs.item(bombs.save(grey, "JPEG")), 24, 24),
        bombs.dicom(bombs.DEFLATED, grey.tobytes(), 24, 24, encapsulated=False),
        bombs.dicom("1.2.840.10008.1.2.1", grey.tobytes(), 24, 24, encapsulated=False),
    ]
    planted = dict(zip(("PatientName", "PatientID", "PatientBirthDate"), (f"{NAME}^X", *SECRETS[1:]), strict=True))
    nested = Dataset()
    nested.PatientName, nested.VOILUTSequence = NAME, [lut([0, 100, 255], 0, 8)]
    nested.WindowCenter, nested.WindowWidth = "1000", "2000"
    group = Dataset()
    group.FrameVOILUTSequence, group.ReferencedPatientSequence = [nested], [nested]
    made.append(encoded(dataset(VOILUTSequence=[lut([0, 9], 0, 8)], OtherPatientIDsSequence=[nested], **planted)))
    made.append(encoded(dataset(SharedFunctionalGroupsSequence=[group], NumberOfFrames=1, **planted)))
    shipped = Path(pydicom.__file__).parent / "data" / "test_files"
    names = ("MR_small", "MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_implicit")
    for name in (*names, "MR_small_bigendian", "SC_rgb_jpeg_gdcm", "examples_palette"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = pydicom.dcmread(shipped / f"{name}.dcm")
            for element, value in planted.items():
                setattr(one, element, value)
            buffer = io.BytesIO()
            pydicom.dcmwrite(buffer, one)
        if len(buffer.getvalue()) < 60_000:
            made.append(buffer.getvalue())
    return made


def places(data: bytes) -> list[int]:
    """Where a header's own numbers stand, by the format."""
    if data.startswith(b"\x89PNG"):
        return [*range(16, 29), *(at for at in range(8, len(data) - 8) if data[at + 4 : at + 8].isalpha())]
    if data[:2] in (b"II", b"MM"):
        (start,) = struct.unpack_from("<I", data, 4)
        return list(range(4, 8)) + list(range(min(start, len(data) - 1), min(start + 200, len(data))))
    if data.startswith(b"\xff\xd8") or b"\xff\x4f\xff\x51" in data[:2000]:
        return [
            at + more
            for at in range(len(data) - 20)
            if data[at] == 0xFF and data[at + 1] > 0x4E
            for more in range(2, 20)
        ]
    if data[128:132] == b"DICM":
        marks = [
            at for at in range(132, min(len(data), 6000) - 12) if data[at + 4 : at + 6].isalpha() or data[at] == 0xFE
        ]
        return [at + more for at in marks for more in range(12)]
    return list(range(min(len(data), 64)))


def mutate(seed: bytes, where: list[int], pick: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(pick.choice([1, 1, 1, 2, 3, 8])):
        if where and pick.random() < 0.6:
            at = min(pick.choice(where), len(data) - 1)
        else:
            at = pick.randrange(min(len(data), pick.choice([64, 400, 4000, len(data)])))
        kind = pick.randrange(8)
        if kind == 0:
            data[at] ^= 1 << pick.randrange(8)
        elif kind == 1:
            data[at] = pick.choice([0, 1, 127, 128, 255])
        elif kind == 2:
            data[at : at + 4] = pick.choice(GIANT)
        elif kind == 3:
            form = pick.choice(["<H", ">H", "<I", ">I"])
            number = pick.choice(NUMBERS) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
            data[at : at + struct.calcsize(form)] = struct.pack(form, number)
        elif kind == 4:
            del data[at : at + pick.randrange(1, 9)]
        elif kind == 5:
            data[at:at] = pick.randbytes(pick.randrange(1, 9))
        elif kind == 6:
            data[at:at] = data[at : at + pick.randrange(1, 200)]
        else:
            end = at + pick.randrange(1, 60)
            data[at:end] = bytes(reversed(data[at:end]))
        data = data or bytearray(b"\0")
    if pick.random() < 0.1:
        del data[pick.randrange(len(data)) :]
    if seed.startswith(b"\x89PNG") and pick.random() < 0.8:
        return checked(bytes(data))
    return bytes(data)


def checked(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksum again, so that damage reaches the decoder."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        length = min(length, len(data) - at - 12)
        body = data[at + 4 : at + 8 + length]
        parts.append(data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join(parts)


def main(first: int, count: int) -> None:
    seeds = images() + dicoms() * 2
    seeds += [data for data in {**bombs.refused(), **bombs.costly()}.values() if len(data) < 5000]
    marks = [places(seed) for seed in seeds]
    good = [read_all(seed)[0].image.tobytes() for seed in seeds[:4]]
    logged = io.StringIO()  # from here on: to write such files is logged too
    logging.basicConfig(level=logging.DEBUG, stream=logged)
    logging.captureWarnings(True)
    pool = Decoders()
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong: list[object] = []
    answered = lost = neighbours = 0

    def one(number: int) -> tuple[str, str]:
        pick = random.Random(number)
        if number % 25 == 0:  # a neighbour, whose answer is known
            index = number // 25 % len(good)
            same = read_all(seeds[index], pool=pool)[0].image.tobytes() == good[index]
            return ("neighbour", "") if same else ("wrong", "a neighbour's answer")
        index = number % len(seeds)
        try:
            read_all(mutate(seeds[index], marks[index], pick), pool=pool)
        except ImageError as error:
            said = "".join(traceback.format_exception(error))
            return ("lost" if "or crashed" in said else "refused"), said
        except BaseException as error:  # noqa: BLE001  this is what is looked for
            return "wrong", repr(error)[:300]
        return "answered", ""

    with ThreadPoolExecutor(2) as threads:
        numbers = range(first, first + count)
        for number, (outcome, said) in zip(numbers, threads.map(one, numbers), strict=True):
            answered, lost = answered + (outcome == "answered"), lost + (outcome == "lost")
            neighbours += outcome == "neighbour"
            if outcome == "wrong" or any(secret in said for secret in SECRETS):
                wrong.append([number, outcome, said[-300:]])
    leaked = [secret for secret in SECRETS if secret in logged.getvalue()]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
    pool.close()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "wrong": wrong[:20],
        "leaked": leaked,
        "answered": answered,
        "lost": lost,
        "neighbours": neighbours,
        "grown_mib": round(grown),
        "decoder_mib": round(used.ru_maxrss / 1024),
        "decoder_cpu_s": round(used.ru_utime + used.ru_stime),
    }
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
