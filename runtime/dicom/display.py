"""DICOM display pipeline: stored values of a frame to 8-bit grey or RGB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stageproof.runtime.dicom.stored_values import aligned, as_stored
from stageproof.runtime.dicom.tables import apply_lut, apply_palette
from stageproof.runtime.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # PS3.3 C.11.2.1.3

_PADDINGS = ("", "Float", "DoubleFloat")
"""Prefixes of PixelPaddingValue and PixelPaddingRangeLimit, by the type of the pixels (PS3.3 C.7.5.1.1.2)."""


@dataclass(frozen=True)
class Shown:
    """A frame from `display_frames`."""

    image: Image.Image
    """Mode L or RGB."""
    transforms: tuple[str, ...]
    """Transforms applied to the stored values, in order."""
    notes: tuple[str, ...] = ()
    """Attributes of the file that were not applied, with reasons."""


def display_frames(dataset: Any, count: int, where: str) -> Iterator[Shown]:
    """The `count` frames after the standard's display pipeline: modality, VOI, then inversion (PS3.4 N.2).

    dataset: a pydicom Dataset without empty elements that passed `check_pixel_module`. Does not catch pydicom's
    exceptions.
    """
    photometric = str(dataset.PhotometricInterpretation)
    grey = photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    options: dict[str, Any] = {"correct_unused_bits": False} if grey else {}
    for index, stored in enumerate(_stored(dataset, count, options)):
        yield _shown(stored, dataset, index, photometric, where)


def modality_frames(dataset: Any, count: int, where: str) -> Iterator[NDArray[np.float32]]:
    """(H, W) of each frame: the values after the modality transform, before any window; padding has the lowest value.

    dataset: as for `display_frames`, with grey pixels that are not inverted. Does not catch pydicom's exceptions.
    """
    big_endian = not dataset.file_meta.TransferSyntaxUID.is_little_endian
    for index, frame in enumerate(_stored(dataset, count, {"correct_unused_bits": False})):
        pipeline = _Monochrome(_described(dataset, index), where, big_endian=big_endian)
        yield pipeline.modality_values(aligned(frame, dataset, where))


def _stored(dataset: Any, count: int, options: dict[str, Any]) -> Iterator[NDArray[Any]]:
    """Each frame, decoded sequentially: `pixel_array` would search for each frame from the start of the data."""
    from pydicom.pixels import iter_pixels, pixel_array

    if count == 1:
        yield pixel_array(dataset, index=0, **options)
    else:
        yield from islice(iter_pixels(dataset, **options), count)


def _shown(stored: NDArray[Any], dataset: Any, index: int, photometric: str, where: str) -> Shown:
    big_endian = not dataset.file_meta.TransferSyntaxUID.is_little_endian
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        pipeline = _Monochrome(_described(dataset, index), where, big_endian=big_endian)
        return pipeline.shown(aligned(stored, dataset, where), inverted=photometric == "MONOCHROME1")
    if photometric == "PALETTE COLOR":
        colours, bits = apply_palette(aligned(stored, dataset, where), dataset, where, big_endian=big_endian)
        transforms: tuple[str, ...] = ("palette",)
    else:
        colours = stored
        transforms = ("YBR to RGB",) if photometric.startswith("YBR") else ()
        bits = int(dataset.BitsStored)
    if colours.ndim != 3 or colours.shape[2] != 3 or colours.dtype.kind != "u":
        raise ImageError(f"{where} has {photometric} pixels of shape {colours.shape}; expected grey or RGB.")
    eight_bits = (colours >> max(bits - 8, 0)).astype(np.uint8)
    image = Image.frombytes("RGB", eight_bits.shape[1::-1], eight_bits.tobytes())
    if (eight_bits == eight_bits[:, :, :1]).all():
        return Shown(image.getchannel(0), transforms)
    return Shown(image, transforms)


class _Monochrome:
    """The grey display pipeline of one frame, with a record of the applied and omitted transforms."""

    def __init__(self, about: Any, where: str, *, big_endian: bool) -> None:
        self._about = about
        self._where = where
        self._big_endian = big_endian
        self._done: list[str] = []
        self._notes: list[str] = []

    def shown(self, stored: NDArray[Any], *, inverted: bool) -> Shown:
        """The displayed frame. stored: (H, W). inverted: whether it is MONOCHROME1."""
        if stored.ndim != 2:
            raise ImageError(f"{self._where} has grey pixels of shape {stored.shape}; expected rows and columns.")
        padding = self._padding(stored)
        values, step = self._modality(stored)
        inside = values if padding is None else values[~padding]
        if not np.isfinite(inside).all():
            raise ImageError(f"{self._where} has pixels that are not finite numbers. Export it again.")
        if padding is not None:
            values = np.where(padding, inside.min() if inside.size else 0.0, values)
        grey = np.rint(np.clip(self._voi(values, step), 0.0, 1.0) * 255.0).astype(np.uint8)
        grey = self._inverted(grey, inverted)
        if padding is not None:
            grey[padding] = 0  # padding is outside the scanned region: black background
            self._done.append("padding black")
        return Shown(Image.frombytes("L", grey.shape[::-1], grey.tobytes()), tuple(self._done), tuple(self._notes))

    def modality_values(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """The values after the modality transform, with padding at the lowest of the others. stored: (H, W)."""
        padding = self._padding(stored)
        with np.errstate(over="ignore", invalid="ignore"):  # a rescale beyond float32 gives infinities
            values = self._modality(stored)[0].astype(np.float32)
        if padding is not None:
            values[padding] = values[~padding].min() if not padding.all() else 0.0
        return values

    def _padding(self, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Mask of padding: one value, or the range between it and the limit, in any order (PS3.3 C.7.5.1.1.2)."""
        prefix = "" if stored.dtype.kind in "iu" else _PADDINGS[stored.dtype.itemsize // 4]
        value, limit = (
            _first(self._about.get(f"{prefix}PixelPadding{name}", None)) for name in ("Value", "RangeLimit")
        )
        if value is None:
            return None
        ends = sorted((value, value if limit is None else limit))
        if not prefix:
            ends = sorted(as_stored(int(end), self._about) for end in ends)
        padding = (stored >= ends[0]) & (stored <= ends[1])
        if prefix and np.isnan(value):
            padding = np.isnan(stored)
        return padding if padding.any() else None

    def _modality(self, stored: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
        """The values in the modality's unit (PS3.3 C.11.1), and their step size (0 for floating-point pixels)."""
        about = self._about
        if "ModalityLUTSequence" in about:
            self._done.append("modality LUT")
            return self._lut("ModalityLUTSequence", stored)[0], 1.0
        values = stored.astype(np.float64)
        slope, intercept = (_first(about.get(f"Rescale{name}")) for name in ("Slope", "Intercept"))
        step = 1.0 if stored.dtype.kind in "iu" else 0.0
        if slope == 0.0:
            self._notes.append("RescaleSlope is 0, which would make every pixel the same; it was not applied")
        elif slope is not None or intercept is not None:
            slope, intercept = (1.0 if slope is None else slope), intercept or 0.0
            self._done.append(f"rescale {slope:g} x + {intercept:g}")
            values, step = values * slope + intercept, step * abs(slope)
        return values, step

    def _voi(self, values: NDArray[np.float64], step: float) -> NDArray[np.float64]:
        """The values after the VOI transform, scaled to [0, 1] (PS3.3 C.11.2)."""
        about = self._about
        if "VOILUTSequence" in about:
            self._done.append("VOI LUT")
            entries, bits = self._lut("VOILUTSequence", np.rint(values))
            return entries / (2.0**bits - 1.0)
        centres, widths = _numbers(about.get("WindowCenter")), _numbers(about.get("WindowWidth"))
        usable = [(centre, width) for centre, width in zip(centres, widths, strict=False) if width > 0]
        if usable:
            # If there are several windows, displays use the first by default.
            centre, width = usable[0]
            function = self._function(width, step)
            self._done.append(f"window {centre:g} ± {width / 2:g} {function}")
            return window(values, centre, width, function)
        if centres or widths:
            wrong = "has no width above 0" if centres and widths else f"has no {'width' if centres else 'centre'}"
            self._notes.append(f"the stated window {wrong}; the whole range of values is shown")
        # Not defined by the standard: the full range of the values is shown.
        low, high = float(values.min()), float(values.max())
        self._done.append(f"no VOI stated: {low:g} to {high:g}")
        span = high - low
        return (values - low) / span if span > 0 else np.zeros_like(values)

    def _function(self, width: float, step: float) -> str:
        """LINEAR, LINEAR_EXACT or SIGMOID (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
        stated = str(self._about.get("VOILUTFunction") or "LINEAR").strip()
        if stated not in _FUNCTIONS:
            self._notes.append("VOILUTFunction is none that DICOM defines; LINEAR was used")
            stated = "LINEAR"
        # LINEAR is defined for integer values: its width is at least 1, and width 1 is a threshold. A width below 1, or
        # of 1 with steps below 1, is therefore meant as a range of values.
        if stated == "LINEAR" and (width < 1.0 or (width == 1.0 and step < 1.0)):
            return "LINEAR_EXACT"
        if stated == "LINEAR" and width < 2.0 and step < 1.0:
            self._notes.append(
                f"the window is {width:g} wide for values in steps of {step:g}: LINEAR, as stated, makes it narrower"
            )
        return stated

    def _lut(self, name: str, values: NDArray[Any]) -> tuple[NDArray[np.float64], int]:
        """Values mapped by the first table of the sequence `name`, and the bits of an entry."""
        item = self._about[name].value[0]
        descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
        return apply_lut(values, descriptor, data, f"{self._where} has a {name}", big_endian=self._big_endian)

    def _inverted(self, grey: NDArray[np.uint8], monochrome1: bool) -> NDArray[np.uint8]:
        """Invert for MONOCHROME1 (PS3.3 C.7.6.3.1.2) or PresentationLUTShape INVERSE; both mean one inversion."""
        if monochrome1:
            self._done.append("MONOCHROME1 inverted")
        elif str(self._about.get("PresentationLUTShape") or "") == "INVERSE":
            self._done.append("PresentationLUTShape INVERSE inverted")
        else:
            return grey
        return 255 - grey


def window(values: NDArray[np.float64], centre: float, width: float, function: str = "LINEAR") -> NDArray[np.float64]:
    """Values scaled to [0, 1] and clipped, by the VOI LUT function (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    width: above 0. For LINEAR, a width of 1 is a threshold, and a smaller one is treated as LINEAR_EXACT.
    function: LINEAR, LINEAR_EXACT or SIGMOID; other names are treated as LINEAR.
    """
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -60.0, 60.0)))
    if function == "LINEAR_EXACT" or width < 1.0:
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width == 1.0:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _described(dataset: Any, index: int) -> Any:
    """The attributes that apply to frame `index`; in an enhanced file, from its functional groups (PS3.3 C.7.6.16)."""
    from pydicom.dataset import Dataset

    shared, each = (dataset.get(f"{kind}FunctionalGroupsSequence") for kind in ("Shared", "PerFrame"))
    if not shared and not each:
        return dataset
    about = Dataset()
    names = [f"{prefix}PixelPadding{part}" for prefix in _PADDINGS for part in ("Value", "RangeLimit")]
    names += ["BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "PresentationLUTShape"]
    for name in (*names, "WindowCenter", "WindowWidth", "VOILUTFunction", "ModalityLUTSequence", "VOILUTSequence"):
        if name in dataset:
            about[name] = dataset[name]
    for group in (shared[0] if shared else None, each[index] if each and index < len(each) else None):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in (group.get(name) or [])[:1] if group is not None else []:
                about.update(item)
    return about


def _first(value: Any) -> float | None:
    numbers = _numbers(value)
    return numbers[0] if numbers else None


def _numbers(value: Any) -> list[float]:
    """The numbers of an element that may be missing, single or multi-valued."""
    if value is None or value == "":
        return []
    several = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    return [float(number) for number in several if number not in (None, "")]
