"""DICOM lookup tables: modality LUT, VOI LUT and palettes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.runtime.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def apply_lut(
    values: NDArray[Any], descriptor: Any, data: Any, what: str, *, big_endian: bool
) -> tuple[NDArray[np.float64], int]:
    """The table entries for `values`, and the bits of an entry (PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5).

    values: integers; those outside the table map to its first or last entry.
    descriptor: number of entries, first mapped value, bits of an entry. data: words, or bytes as stored in the file.
    what: start of the ImageError's message, such as "'a.dcm' has a VOILUTSequence".
    """
    for name, part in (("descriptor", descriptor), ("data", data)):
        if part is None:
            raise ImageError(f"{what} without its {name}. Export it again.")
    try:
        count, first, bits = (int(number) for number in descriptor)
        count = (count & 0xFFFF) or 1 << 16  # 0 means 65536
        table = _entries(data, count, bits, big_endian=big_endian)
    except (TypeError, ValueError):
        raise ImageError(f"{what} whose descriptor and data do not fit together. Export it again.") from None
    # Files store the first mapped value as signed or unsigned; the range of `values` shows which applies.
    lowest, highest = values.min(), values.max()
    if first >= 1 << 15 and lowest < 0:
        first -= 1 << 16
    elif first < 0 and lowest >= 0 and highest >= 1 << 15:
        first += 1 << 16
    places = np.clip(values.astype(np.int64) - first, 0, count - 1)
    return table[places].astype(np.float64), max(bits, int(table.max()).bit_length())


def apply_palette(stored: NDArray[Any], dataset: Any, where: str, *, big_endian: bool) -> tuple[NDArray[Any], int]:
    """(H, W, 3) unsigned colours for (H, W) stored values of PALETTE COLOR, and their bits (PS3.3 C.7.9)."""
    if "RedPaletteColorLookupTableData" not in dataset:
        from pydicom.pixels import apply_color_lut

        colours = apply_color_lut(stored, dataset)  # segmented tables
        return colours, colours.dtype.itemsize * 8
    parts = []
    for colour in ("Red", "Green", "Blue"):
        stem = f"{colour}PaletteColorLookupTable"
        descriptor, data = dataset.get(f"{stem}Descriptor"), dataset.get(f"{stem}Data")
        parts.append(apply_lut(stored, descriptor, data, f"{where} has a {stem}", big_endian=big_endian))
    colours = np.stack([entries for entries, _ in parts], axis=-1).astype(np.uint16)
    return colours, max(bits for _, bits in parts)


def _entries(data: Any, count: int, bits: int, *, big_endian: bool) -> NDArray[np.int64]:
    """(count,) entries from words, or from bytes if an entry has at most 8 bits and the entries are packed."""
    if not 1 <= bits <= 16:
        raise ValueError("bits")
    if not isinstance(data, (bytes, bytearray)):
        table = np.atleast_1d(np.array(data, np.int64)) & 0xFFFF
    elif len(data) >= 2 * count:
        table = np.frombuffer(data, ">u2" if big_endian else "<u2", count).astype(np.int64)
    elif bits <= 8:
        table = np.frombuffer(data, np.uint8, count).astype(np.int64)
    else:
        raise ValueError("length")
    if len(table) < count:
        raise ValueError("length")
    return table[:count]
