"""One DICOM frame's stored values, as a display shows them: 8 bits, grey or RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from runtime.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def displayed(dataset: Any, index: int, where: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Frame `index` in mode L or RGB, and what was done to its values, in order.

    dataset: a pydicom Dataset with the pixels and what describes them. Lets pydicom's exceptions through.
    """
    from pydicom.pixels import apply_color_lut, pixel_array

    values = pixel_array(dataset, index=index)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        grey, transforms = _monochrome(values, _described(dataset, index), photometric == "MONOCHROME1", where)
        return Image.frombytes("L", grey.shape[::-1], grey.tobytes()), transforms
    if photometric == "PALETTE COLOR":
        colours, transforms = apply_color_lut(values, dataset), ("palette",)
        bits = colours.dtype.itemsize * 8
    else:
        colours, transforms = values, ("YBR to RGB",) if photometric.startswith("YBR") else ()
        bits = int(dataset.BitsStored)
    if colours.ndim != 3 or colours.shape[2] != 3 or colours.dtype.kind != "u":
        raise ImageError(f"{where} has {photometric} pixels of shape {colours.shape}; expected grey or RGB.")
    eight_bits = (colours >> max(bits - 8, 0)).astype(np.uint8)
    image = Image.frombytes("RGB", eight_bits.shape[1::-1], eight_bits.tobytes())
    if (eight_bits == eight_bits[:, :, :1]).all():
        return image.getchannel(0), transforms
    return image, transforms


def _monochrome(
    stored: NDArray[Any], about: Any, inverted: bool, where: str
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """(H, W) uint8 of (H, W) stored values: modality transform, VOI transform, inversion (PS3.4 N.2)."""
    from pydicom.pixels import apply_modality_lut

    done = []
    if stored.ndim != 2:
        raise ImageError(f"{where} has grey pixels of shape {stored.shape}; expected rows and columns.")
    padding = stored == about.PixelPaddingValue if "PixelPaddingValue" in about else None
    values = apply_modality_lut(stored, about)
    if "ModalityLUTSequence" in about:
        done.append("modality LUT")
    elif "RescaleSlope" in about and "RescaleIntercept" in about:
        done.append(f"rescale {float(about.RescaleSlope):g} x + {float(about.RescaleIntercept):g}")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError(f"{where} has pixels that are not finite numbers. Export it again.")
    shown, name = _voi(values, about, padding)
    done.append(name)
    grey = np.rint(np.clip(shown, 0.0, 1.0) * 255.0).astype(np.uint8)
    if inverted:
        grey = 255 - grey
        done.append("MONOCHROME1 inverted")
    if padding is not None and padding.any() and not padding.all():
        grey[padding] = 0  # outside what was scanned: the background, which is black
        done.append("padding black")
    return grey, tuple(done)


def _voi(values: NDArray[np.float64], about: Any, padding: NDArray[np.bool_] | None) -> tuple[NDArray[np.float64], str]:
    """The values of interest on a scale of 0 to 1, and the name of what was done (PS3.3 C.11.2)."""
    from pydicom.pixels import apply_voi

    if about.get("VOILUTSequence"):
        # Entry 2 of the descriptor: bits of an output value.
        full = 2.0 ** int(about.VOILUTSequence[0].LUTDescriptor[2]) - 1.0
        return apply_voi(np.rint(values).astype(np.int64), about).astype(np.float64) / full, "VOI LUT"
    centres, widths = _numbers(about.get("WindowCenter")), _numbers(about.get("WindowWidth"))
    if centres and widths and widths[0] > 0:
        function = str(about.get("VOILUTFunction") or "LINEAR")
        shown = window(values, centres[0], widths[0], function)
        return shown, f"window {centres[0]:g} ± {widths[0] / 2:g} {function}"
    # The standard leaves it to the display: the whole range of what was scanned.
    inside = values if padding is None or padding.all() else values[~padding]
    low, high = float(inside.min()), float(inside.max())
    return (values - low) / max(high - low, 1e-12), f"no VOI stated: {low:g} to {high:g}"


def window(values: NDArray[np.float64], centre: float, width: float, function: str = "LINEAR") -> NDArray[np.float64]:
    """Values on a scale of 0 to 1, clipped, by the VOI LUT function of PS3.3 C.11.2.1.2 and C.11.2.1.3.

    function: LINEAR (from which a width of 1 is a threshold), LINEAR_EXACT or SIGMOID; another name counts as LINEAR.
    """
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -60.0, 60.0)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width <= 1.0:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _described(dataset: Any, index: int) -> Any:
    """What describes the values of frame `index`: in an enhanced file, from its functional groups (PS3.3 C.7.6.16)."""
    from pydicom.dataset import Dataset

    shared, each = (dataset.get(f"{kind}FunctionalGroupsSequence") for kind in ("Shared", "PerFrame"))
    if not shared and not each:
        return dataset
    about = Dataset()
    names = ("PixelPaddingValue", "BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept")
    for name in (*names, "WindowCenter", "WindowWidth", "VOILUTFunction"):
        if name in dataset:
            setattr(about, name, dataset[name].value)
    for group in (shared[0] if shared else None, each[index] if each and index < len(each) else None):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in (group.get(name) or [])[:1] if group is not None else []:
                about.update(item)
    return about


def _numbers(value: Any) -> list[float]:
    """The numbers of an element that may be missing, single or multiple."""
    if value is None or value == "":
        return []
    several = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    return [float(number) for number in several if number not in (None, "")]
