"""JPEG Lossless: what a plain encoder writes is read back bit for bit; damage is a ValueError."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from stageproof.runtime.dicom.jpeg_lossless import decode

CATEGORIES = 17


def bits_of(difference: int) -> tuple[int, str]:
    """Category and extra bits of a difference (ISO/IEC 10918-1 H.1.2.2, table H.2)."""
    if difference == 32768:
        return 16, ""
    category = abs(difference).bit_length()
    if not category:
        return 0, ""
    return category, format(difference if difference > 0 else difference + (1 << category) - 1, f"0{category}b")


def predicted(x: np.ndarray, row: int, column: int, predictor: int, first_row: int, start: int) -> int:
    """Table H.1, with the borders of H.1.2.1."""
    if row == first_row:
        return int(x[row, column - 1]) if column else start
    above = int(x[row - 1, column])
    if not column:
        return above
    left, corner = int(x[row, column - 1]), int(x[row - 1, column - 1])
    return (
        left,
        above,
        corner,
        left + above - corner,
        left + ((above - corner) >> 1),
        above + ((left - corner) >> 1),
        (left + above) >> 1,
    )[predictor - 1]


def encoded(planes: np.ndarray, precision: int, predictor: int, *, shift: int = 0, rows: int = 0, apart: bool = False):
    """A codestream of (components, H, W) samples; rows: restart interval; apart: a scan for each component."""
    components, height, width = planes.shape
    # Codes of 5 bits for all 17 categories but the last ones, in an order of their own for each table.
    orders = [list(range(CATEGORIES)), list(reversed(range(CATEGORIES)))]
    segments = [b"\xff\xd8", segment(0xE0, b"JFIF\0 and more")]
    for number, order in enumerate(orders):
        segments.append(segment(0xC4, bytes([number, 0, 0, 0, 0, CATEGORIES, *[0] * 11, *order])))
    head = struct.pack(">BHHB", precision, height, width, components)
    segments.append(segment(0xC3, head + b"".join(bytes([7 * c + 1, 0x11, 0]) for c in range(components))))
    if rows:
        segments.append(segment(0xDD, struct.pack(">H", rows * width)))
    scans = [[c] for c in range(components)] if apart else [list(range(components))]
    for scan in scans:
        tables = {c: c % 2 for c in scan}
        about = bytes([len(scan), *[v for c in scan for v in (7 * c + 1, tables[c] << 4)], predictor, 0, shift])
        segments.append(
            segment(0xDA, about) + entropy(planes >> shift, scan, tables, orders, precision - shift, predictor, rows)
        )
    return b"".join(segments) + b"\xff\xd9"


def entropy(planes, scan, tables, orders, precision, predictor, rows) -> bytes:
    _, height, width = planes.shape
    parts = []
    for top in range(0, height, rows or height):
        bits = []
        for row in range(top, min(height, top + (rows or height))):
            for column in range(width):
                for c in scan:
                    guess = predicted(planes[c], row, column, predictor, top, 1 << (precision - 1))
                    difference = (int(planes[c][row, column]) - guess + 32767) % 65536 - 32767  # -32767 to 32768
                    category, extra = bits_of(difference)
                    bits.append(format(orders[tables[c]].index(category), "05b") + extra)
        joined = "".join(bits)
        joined += "1" * (-len(joined) % 8)
        data = int(joined, 2).to_bytes(len(joined) // 8, "big").replace(b"\xff", b"\xff\x00")
        parts.append(data)
    return b"".join(
        part + (bytes([0xFF, 0xD0 + number % 8]) if number < len(parts) - 1 else b"")
        for number, part in enumerate(parts)
    )


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def samples(precision: int, components: int = 1, seed: int = 0) -> np.ndarray:
    """(components, 13, 17): smooth in part, noise over the whole range in part."""
    rng = np.random.default_rng(seed)
    top = (1 << precision) - 1
    smooth = np.add.outer(np.arange(13), np.arange(17)) * top // 40
    noise = rng.integers(0, top + 1, (components, 13, 17))
    return np.where(np.arange(17) < 9, smooth, noise).astype(np.uint16)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("precision", [2, 8, 12, 16])
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_every_predictor_and_precision(predictor: int, precision: int, rows: int) -> None:
    planes = samples(precision)
    got, bits = decode(encoded(planes, precision, predictor, rows=rows))
    assert bits == precision
    assert np.array_equal(got, planes[0])


@pytest.mark.parametrize("apart", [False, True], ids=["interleaved", "a scan each"])
@pytest.mark.parametrize("predictor", [1, 4, 7])
def test_colour(predictor: int, apart: bool) -> None:
    planes = samples(8, 3)
    got, _ = decode(encoded(planes, 8, predictor, apart=apart))
    assert np.array_equal(got, np.moveaxis(planes, 0, -1))


@pytest.mark.parametrize("shift", [1, 3])
def test_a_point_transform(shift: int) -> None:
    planes = samples(12) >> shift << shift
    assert np.array_equal(decode(encoded(planes, 12, 1, shift=shift))[0], planes[0])


def test_the_widest_difference() -> None:
    """Category 16 stands for 32768 and has no bits of its own."""
    planes = np.array([[[0, 32768, 0, 32768, 65535, 0]]], np.uint16)
    assert np.array_equal(decode(encoded(planes, 16, 1))[0], planes[0])


def test_more_than_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = samples(16, 3)
    codestream = encoded(planes, 16, 1)
    for chunk in (1, 3, 64):
        monkeypatch.setattr("runtime.dicom.jpeg_lossless._CHUNK", chunk)
        assert np.array_equal(decode(codestream)[0], np.moveaxis(planes, 0, -1))


def test_what_is_cut_off_is_never_half_an_image() -> None:
    codestream = encoded(samples(12), 12, 1, rows=4)
    for length in range(len(codestream) - 2):
        with pytest.raises(ValueError):
            decode(codestream[:length])


@pytest.mark.parametrize("predictor", [1, 6])
def test_damage_gives_samples_or_a_value_error(predictor: int) -> None:
    codestream = encoded(samples(12), 12, predictor)
    pick = random.Random(3)
    errors = 0
    for _ in range(400):
        data = bytearray(codestream)
        for _ in range(pick.randint(1, 4)):
            # The size stays: the reader of the DICOM file compares it before it decodes.
            at = pick.choice([n for n in range(len(data)) if not sof(codestream) <= n < sof(codestream) + 9])
            data[at] = pick.randrange(256)
        try:
            values, _ = decode(bytes(data))
        except ValueError:
            errors += 1
        else:
            assert values.shape[:2] == (13, 17)
    assert 50 < errors < 400


def sof(codestream: bytes) -> int:
    return codestream.index(b"\xff\xc3")


def test_other_processes_are_refused() -> None:
    codestream = encoded(samples(8), 8, 1)
    for marker in (0xC0, 0xC1, 0xC2, 0xC7, 0xCB):
        with pytest.raises(ValueError, match="not the sequential lossless process"):
            decode(codestream.replace(b"\xff\xc3", bytes([0xFF, marker])))
