"""JPEG Lossless decoder (ISO/IEC 10918-1, process 14), bit-exact, in numpy only.

MR DICOM files often use this compression (transfer syntaxes 1.2.840.10008.1.2.4.57 and .70). Pillow does not support
it; of pydicom's plug-ins for it, one is under the GPL, and the other crashes the process on some damaged files. Here, a
damaged codestream raises ValueError, and array accesses are bounds-checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 1 << 16
"""Bytes of entropy-coded data decoded at a time, to limit the memory."""


_Table: TypeAlias = "tuple[NDArray[np.uint8], NDArray[np.uint8]]"
"""(65536,) each: for any 16 bits, the length of the code that they start with (0: none), and its category."""


@dataclass
class _Header:
    """Parameters from the markers before a scan (B.2)."""

    precision: int = 0
    height: int = 0
    width: int = 0
    components: list[int] = field(default_factory=list)  # identifiers, in order
    tables: dict[int, _Table] = field(default_factory=dict)
    restart: int = 0


def decode(codestream: bytes) -> tuple[NDArray[np.uint16], int]:
    """The samples of one frame, uint16 (H, W) or (H, W, components), and their precision in bits (2 to 16).

    Raises ValueError for damaged, truncated or subsampled data, and for other JPEG processes.
    """
    header = _Header()
    planes: dict[int, NDArray[np.uint16]] = {}
    position = 2
    if codestream[:2] != b"\xff\xd8":
        raise ValueError("no SOI marker")
    while not header.components or len(planes) < len(header.components):
        marker, body, position = _segment(codestream, position)
        if marker == 0xC4:
            _huffman_tables(body, header)
        elif marker == 0xC3:
            _frame(body, header)
        elif marker == 0xDD:
            header.restart = int.from_bytes(body[:2], "big")
        elif marker == 0xDA:
            end = _end_of_scan(codestream, position)
            planes.update(_scan(body, codestream[position:end], header))
            position = end
        elif 0xC0 <= marker <= 0xCF or marker in (0xD9, 0xDC, 0xDE, 0xDF):
            raise ValueError("not the sequential lossless process, or an end before all components")
    ordered = [planes[component] for component in header.components]
    return (ordered[0] if len(ordered) == 1 else np.stack(ordered, axis=-1)), header.precision


def _segment(data: bytes, position: int) -> tuple[int, bytes, int]:
    """The next marker, its body without the length, and its end position (B.1.1)."""
    while data[position : position + 2] == b"\xff\xff":  # fill bytes
        position += 1
    if position + 2 > len(data) or data[position] != 0xFF:
        raise ValueError("a marker is missing")
    marker = data[position + 1]
    if marker == 0xD9:
        return marker, b"", position + 2
    length = int.from_bytes(data[position + 2 : position + 4], "big")
    end = position + 2 + length
    if length < 2 or end > len(data):
        raise ValueError("a segment is cut off")
    return marker, data[position + 4 : end], end


def _end_of_scan(data: bytes, position: int) -> int:
    """End position of the entropy-coded data: the first marker other than a restart marker."""
    found = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]").search(data, position)
    if found is None:
        raise ValueError("the scan has no end")
    return found.start()


def _frame(body: bytes, header: _Header) -> None:
    """Parse SOF3 (B.2.2)."""
    if len(body) < 6 or header.components:
        raise ValueError("a bad frame header")
    header.precision = body[0]
    header.height, header.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    header.components = [body[at] for at in range(6, 6 + 3 * body[5], 3) if at + 2 < len(body)]
    sampling = {body[at + 1] for at in range(6, 6 + 3 * len(header.components), 3)}
    distinct = len(set(header.components)) == len(header.components) == body[5] > 0
    if not (2 <= header.precision <= 16 and header.height and header.width and distinct and len(sampling) == 1):
        raise ValueError("a frame header that is not supported")


def _huffman_tables(body: bytes, header: _Header) -> None:
    """Parse DHT (B.2.4.2, annex C) into a `_Table`."""
    while body:
        counts = list(body[1:17])
        total = sum(counts)
        symbols = body[17 : 17 + total]
        if len(counts) < 16 or len(symbols) < total or max(symbols, default=0) > 16:
            raise ValueError("a bad Huffman table")
        lengths, categories = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
        code = taken = 0
        for length, count in enumerate(counts, 1):
            for symbol in symbols[taken : taken + count]:
                start, end = code << (16 - length), (code + 1) << (16 - length)
                if end > 1 << 16:
                    raise ValueError("a Huffman table with too many codes")
                lengths[start:end], categories[start:end] = length, symbol
                code += 1
            taken += count
            code <<= 1
        header.tables[body[0] & 15] = lengths, categories
        body = body[17 + total :]


def _scan(body: bytes, data: bytes, header: _Header) -> dict[int, NDArray[np.uint16]]:
    """The components of one scan (B.2.3), each (H, W)."""
    count = body[0] if body else 0
    if not header.components or not 1 <= count <= 4 or len(body) < 4 + 2 * count:
        raise ValueError("a bad scan header")
    names = [body[1 + 2 * at] for at in range(count)]
    tables = [header.tables.get(body[2 + 2 * at] >> 4) for at in range(count)]
    predictor, transform = body[1 + 2 * count], body[3 + 2 * count] & 15
    known = [table for table in tables if table is not None]
    if not set(names) <= set(header.components) or len(known) < count or not 1 <= predictor <= 7:
        raise ValueError("a scan without its table, or of another process")
    if transform >= header.precision or (header.restart and header.restart % header.width):
        raise ValueError("a point transform or a restart interval that is not allowed")
    rows = header.restart // header.width or header.height
    parts = re.split(rb"\xff[\xd0-\xd7]", data)
    planes = np.empty((count, header.height, header.width), np.uint16)
    if len(parts) < -(-header.height // rows):
        raise ValueError("restart intervals are missing")
    for number, top in enumerate(range(0, header.height, rows)):
        height = min(rows, header.height - top)
        differences = _differences(parts[number].replace(b"\xff\x00", b"\xff"), known, height * header.width)
        for plane, values in zip(planes, differences, strict=True):
            start = 1 << (header.precision - transform - 1)
            plane[top : top + height] = _undo(values.reshape(height, header.width), predictor, start)
    if int(planes.max()) >> (header.precision - transform):
        raise ValueError("samples beyond their precision")
    return dict(zip(names, planes << np.uint16(transform), strict=True))


def _differences(data: bytes, tables: list[_Table], count: int) -> NDArray[np.int32]:
    """(components, count) differences decoded from one restart interval (H.1.2.2).

    The start bit of a code depends on the previous code. Therefore the code length at every bit of a chunk is looked up
    in one vectorised step, which leaves one addition per sample for the sequential part.
    """
    each = len(tables)
    if all(table is tables[0] for table in tables):
        tables = tables[:1]
    result = np.empty(count * each, np.int32)
    position = done = 0
    for first in range(0, len(data), _CHUNK):
        part = np.frombuffer(data[first : first + _CHUNK + 8].ljust(_CHUNK + 8, b"\xff"), np.uint8).astype(np.uint64)
        end = 8 * min(_CHUNK, len(data) - first)
        windows = _windows(part, np.arange(end), 16)
        steps = [_steps(table, windows).tolist() for table in tables]
        starts, position = _chain(steps, position, end, done, count * each - done)
        at = np.array(starts, np.int64)
        for number, table in enumerate(tables):
            # Sample `done` belongs to component `done % each`.
            own = slice((number - done) % len(tables), None, len(tables))
            result[done : done + len(at)][own] = _values(part, at[own], table)
        done += len(at)
        if done == len(result):
            if 8 * first + position > 8 * len(data):
                break
            return result.reshape(count, each).T
        position -= end
    raise ValueError("the entropy-coded data ends early")


def _chain(steps: list[list[int]], position: int, end: int, done: int, left: int) -> tuple[list[int], int]:
    """Start bits of at most `left` codes before `end`, and the start of the next one."""
    starts: list[int] = []
    append = starts.append
    if len(steps) == 1:
        (only,) = steps
        while position < end and left:
            append(position)
            position += only[position]
            left -= 1
        return starts, position
    component = done % len(steps)
    while position < end and left:
        append(position)
        position += steps[component][position]
        component = (component + 1) % len(steps)
        left -= 1
    return starts, position


def _windows(part: NDArray[np.uint64], at: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """The `width` (at most 32) bits starting at each bit position in `at`."""
    byte = at >> 3
    taken = (width + 14) // 8
    word = np.zeros(len(at), np.uint64)
    for offset in range(taken):
        word = (word << np.uint64(8)) | part[byte + offset]
    spare = 8 * taken - width - (at & 7)
    return ((word >> spare.astype(np.uint64)) & np.uint64((1 << width) - 1)).astype(np.int64)


def _steps(table: _Table, windows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Bits of a code plus its additional bits; category 16 has none (H.1.2.2)."""
    lengths, categories = table
    return (lengths + np.where(categories < 16, categories, 0).astype(np.uint8))[windows]


def _values(part: NDArray[np.uint64], at: NDArray[np.int64], table: _Table) -> NDArray[np.int64]:
    """The differences whose codes start at the bits `at` (F.2.2.1, EXTEND)."""
    windows = _windows(part, at, 32)
    lengths = table[0][windows >> 16].astype(np.int64)
    categories = table[1][windows >> 16].astype(np.int64)
    if not lengths.all():
        raise ValueError("a code that the Huffman table does not have")
    extra = np.where(categories < 16, categories, 0)
    value = (windows >> (32 - lengths - extra)) & ((1 << extra) - 1)
    negative = (extra > 0) & (value < (1 << np.maximum(extra - 1, 0)))
    value = np.where(negative, value - (1 << extra) + 1, value)
    return np.where(categories == 16, 32768, value)


def _undo(differences: NDArray[np.int32], predictor: int, start: int) -> NDArray[np.int32]:
    """The samples, modulo 65536, from (rows, columns) prediction differences (H.1.2.1, table H.1)."""
    values = differences.copy()  # 32-bit overflow does not affect the result modulo 65536
    values[0, 0] += start
    if predictor == 1:  # left; the first of a row is predicted from above
        values[:, 0] = np.cumsum(values[:, 0], dtype=np.int32)
        return np.cumsum(values, axis=1, dtype=np.int32) & 0xFFFF
    values[0] = np.cumsum(values[0], dtype=np.int32) & 0xFFFF
    if predictor == 2:  # above
        return np.cumsum(values, axis=0, dtype=np.int32) & 0xFFFF
    for row in range(1, len(values)):
        above, line = values[row - 1], values[row]
        line[0] = (above[0] + line[0]) & 0xFFFF
        if predictor == 3:  # above left
            line[1:] = (above[:-1] + line[1:]) & 0xFFFF
        elif predictor in (4, 5):  # left + above - above left, or half of that difference
            gradient = np.diff(above) >> (predictor - 4)
            line[1:] += gradient
            values[row] = np.cumsum(line, dtype=np.int32) & 0xFFFF
        else:
            values[row] = _undo_row(line.tolist(), above.tolist(), predictor)
    return values


def _undo_row(line: list[int], above: list[int], predictor: int) -> list[int]:
    """One row for predictors 6 and 7: above + (left - above left) / 2, or (left + above) / 2."""
    left = line[0]
    for column in range(1, len(line)):
        half = (left - above[column - 1]) >> 1 if predictor == 6 else (left - above[column]) >> 1
        left = line[column] = (above[column] + half + line[column]) & 0xFFFF
    return line
