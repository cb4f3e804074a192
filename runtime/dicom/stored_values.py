"""Checks of the Image Pixel module, and extraction of the stored values (alignment to bit 0, sign extension)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stageproof.runtime.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COMPONENTS = {
    **dict.fromkeys(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 1),
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3),
}
"""Supported photometric interpretation → samples per pixel (PS3.3 C.7.6.3.1.2)."""

_ALLOCATED = (1, 8, 16, 32, 64)


def check_pixel_module(dataset: Any, where: str) -> None:
    """Raise ImageError, naming the attribute, for an unsupported or invalid Image Pixel module (PS3.3 C.7.6.3).

    dataset: without empty elements.
    """
    needed = ["Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"]
    if "PixelData" in dataset:
        needed += ["BitsStored", "PixelRepresentation"]
    missing = [name for name in needed if name not in dataset]
    if missing:
        raise ImageError(
            f"{where} has no value for {', '.join(missing)}, required to read its pixels (DICOM PS3.3 C.7.6.3). Export "
            "it again."
        )
    photometric, samples = str(dataset.PhotometricInterpretation), whole(dataset, "SamplesPerPixel", where)
    if photometric not in _COMPONENTS:
        raise ImageError(
            f"{where} has another PhotometricInterpretation than {', '.join(_COMPONENTS)}. Convert it to one of them, "
            "or to PNG."
        )
    if samples != _COMPONENTS[photometric]:
        raise ImageError(
            f"{where} has SamplesPerPixel {samples}, but PhotometricInterpretation {photometric} requires "
            f"{_COMPONENTS[photometric]}. Export it again."
        )
    if samples > 1 and "PlanarConfiguration" not in dataset:
        raise ImageError(f"{where} has no value for PlanarConfiguration, required for colour. Export it again.")
    _check_palette(dataset, photometric, where)
    _check_bits(dataset, where)


def _check_palette(dataset: Any, photometric: str, where: str) -> None:
    if photometric != "PALETTE COLOR":
        return
    for colour in ("Red", "Green", "Blue"):
        stem = f"{colour}PaletteColorLookupTable"
        data = (f"{stem}Data", f"Segmented{stem}Data")
        if f"{stem}Descriptor" not in dataset or not any(name in dataset for name in data):
            raise ImageError(f"{where} has no value for {stem}Descriptor or {stem}Data. Export it again.")


def _check_bits(dataset: Any, where: str) -> None:
    """BitsAllocated, BitsStored and HighBit (PS3.5 8.1.1)."""
    allocated = whole(dataset, "BitsAllocated", where)
    if allocated not in _ALLOCATED:
        raise ImageError(
            f"{where} has BitsAllocated {allocated}, expected {', '.join(map(str, _ALLOCATED))}. Convert it."
        )
    if "PixelData" not in dataset:
        return
    stored, high = whole(dataset, "BitsStored", where), high_bit(dataset, where)
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise ImageError(
            f"{where} has inconsistent BitsStored {stored}, HighBit {high} and BitsAllocated {allocated} (DICOM PS3.5 "
            "8.1.1). Export it again."
        )
    if whole(dataset, "PixelRepresentation", where) not in (0, 1):
        raise ImageError(f"{where} has a PixelRepresentation other than 0 and 1. Export it again.")
    if whole(dataset, "SamplesPerPixel", where) > 1 and (high != stored - 1 or allocated == 1):
        raise ImageError(
            f"{where} is a colour image with BitsAllocated {allocated}, BitsStored {stored} and HighBit {high}; "
            "for colour, HighBit must be BitsStored - 1 and BitsAllocated at least 8. Convert it."
        )


def whole(dataset: Any, name: str, where: str) -> int:
    """The integer value of the element `name`, which must exist. Raises ImageError if it is not an integer."""
    try:
        return int(dataset[name].value)
    except (TypeError, ValueError):
        raise ImageError(
            f"{where} has a value of {name} in a form that DICOM does not allow. Export it again."
        ) from None


def high_bit(dataset: Any, where: str) -> int:
    """HighBit; if missing, BitsStored - 1, which PS3.5 8.1.1 requires since 2014."""
    return whole(dataset, "HighBit", where) if "HighBit" in dataset else whole(dataset, "BitsStored", where) - 1


def native_length(dataset: Any, count: int, where: str) -> int:
    """Size of `count` uncompressed frames in bytes, without padding."""
    size = whole(dataset, "Rows", where) * whole(dataset, "Columns", where) * count
    if str(dataset.PhotometricInterpretation) == "YBR_FULL_422":
        samples = 2  # two luminances share one pair of chrominances (PS3.3 C.7.6.3.1.2)
    else:
        samples = whole(dataset, "SamplesPerPixel", where)
    return -(-size * samples * whole(dataset, "BitsAllocated", where) // 8)


def check_native_length(dataset: Any, name: str, count: int, where: str) -> None:
    """Raise ImageError for truncated pixels, or pixels of more frames than declared; remove trailing padding."""
    expected, data = native_length(dataset, count, where), dataset[name].value
    if data[:4] == b"\xfe\xff\x00\xe0" and len(data) < expected:  # the tag of an item
        raise ImageError(f"{where} has compressed pixels but no transfer syntax for them. Export it again.")
    if len(data) < expected:
        raise ImageError(
            f"{where} is truncated: its {name} has {len(data)} bytes of {expected}. Copy or export it again."
        )
    frames = len(data) * count // expected
    if frames > count and str(dataset.PhotometricInterpretation) != "YBR_FULL_422":
        raise ImageError(
            f"{where} declares {count} frame{'s' if count > 1 else ''} (NumberOfFrames), but its {name} has the size "
            f"of {frames}. It is damaged, or Rows, Columns or BitsAllocated are wrong. Export it again."
        )
    if len(data) > expected + expected % 2:
        dataset[name].value = data[: expected + expected % 2]  # otherwise pydicom warns


def aligned(values: NDArray[Any], dataset: Any, where: str) -> NDArray[Any]:
    """Stored values with their lowest bit at bit 0, sign-extended if signed (PS3.5 8.1.1).

    values: integers as in the file's pixel cells; bits outside BitsStored, where old files store overlays (PS3.5
    8.1.2), are removed. Floating-point pixels are returned unchanged.
    """
    if values.dtype.kind not in "iu":
        return values
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    cell, stored = values.dtype.itemsize * 8, whole(dataset, "BitsStored", where)
    above = cell - 1 - high_bit(dataset, where)
    if stored >= cell or above < 0:
        return values
    # Shift left to the cell's highest bit, then right: for signed types, numpy's right shift extends the sign.
    return (values << above) >> (cell - stored)


def as_stored(number: int, dataset: Any) -> int:
    """The stored pixel value equal to an element's number (VR US or SS).

    Some writers use the wrong VR for signed pixels, so the number is interpreted modulo 65536, or modulo 2**BitsStored.
    """
    bits = min(int(dataset.get("BitsStored") or 16), 16)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    for width in (16, bits):
        low = -(1 << (width - 1)) if signed else 0
        number = (number - low) % (1 << width) + low
        if not signed or -(1 << (bits - 1)) <= number < 1 << (bits - 1):
            break
    return number
