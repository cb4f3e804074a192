"""Lookup tables of DICOM files: modality LUT, VOI LUT and palettes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.runtime.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def looked_up(
    values: NDArray[Any], descriptor: Any, data: Any, what: str, *, big_endian: bool
) -> tuple[NDArray[np.float64], int]:
    """What a table has for `values`, and the bits of an entry (PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5).

    values: whole numbers; those outside of the table get its first or last entry.
    descriptor: number of entries, value of the first, bits of an entry. data: words, or bytes as the file has them.
    what: begins the message of the ImageError, such as "'a.dcm' has a VOILUTSequence".
    """
    for name, part in (("descriptor", descriptor), ("data", data)):
        if part is None:
            raise ImageError(f"{what} without its {name}. Export it again.")
    try:
        count, first, bits = (int(number) for number in descriptor)
        count = (count & 0xFFFF) or 1 << 16  # 0 stands for 65536
        table = _entries(data, count, bits, big_endian=big_endian)
    except (TypeError, ValueError):
        raise ImageError(f"{what} whose descriptor and data do not fit together. Export it again.") from None
    # Files write the first value as signed or unsigned at will; which it is follows from what is looked up.
    lowest, highest = values.min(), values.max()
    if first >= 1 << 15 and lowest < 0:
        first -= 1 << 16
    elif first < 0 and lowest >= 0 and highest >= 1 << 15:
        first += 1 << 16
    places = np.clip(values.astype(np.int64) - first, 0, count - 1)
    return table[places].astype(np.float64), max(bits, int(table.max()).bit_length())


def coloured(stored: NDArray[Any], dataset: Any, where: str, *, big_endian: bool) -> tuple[NDArray[Any], int]:
    """(H, W, 3) unsigned colours of (H, W) stored values of PALETTE COLOR, and the bits of each (PS3.3 C.7.9)."""
    if "RedPaletteColorLookupTableData" not in dataset:
        from pydicom.pixels import apply_color_lut

        colours = apply_color_lut(stored, dataset)  # segmented tables
        return colours, colours.dtype.itemsize * 8
    parts = []
    for colour in ("Red", "Green", "Blue"):
        stem = f"{colour}PaletteColorLookupTable"
        descriptor, data = dataset.get(f"{stem}Descriptor"), dataset.get(f"{stem}Data")
        parts.append(looked_up(stored, descriptor, data, f"{where} has a {stem}", big_endian=big_endian))
    colours = np.stack([entries for entries, _ in parts], axis=-1).astype(np.uint16)
    return colours, max(bits for _, bits in parts)


def _entries(data: Any, count: int, bits: int, *, big_endian: bool) -> NDArray[np.int64]:
    """(count,) entries: words, or bytes where an entry has 8 bits or fewer and they are packed so."""
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
