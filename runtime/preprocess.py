"""Preprocessing: `preprocess` resizes and normalises a decoded image into the model's float32 input.

Training, parity checks, benchmarks and prediction all call it, so their inputs are identical. The result is bit-exact
with torchvision's ``Compose([Resize((height, width)), ToTensor(), Normalize(mean, std)])``.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby, islice
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stageproof.runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGENET_MEAN: tuple[float, ...] = (0.485, 0.456, 0.406)
"""Red, green and blue, for pixels scaled to [0, 1]: the normalisation of torchvision's pretrained weights."""

IMAGENET_STD: tuple[float, ...] = (0.229, 0.224, 0.225)

_PIXELS_PER_CALL = 1 << 18
"""Pixels normalised per numpy call: more are no faster and need more memory."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class InputSpec:
    """Input of a model: size, channels, normalisation and interpolation.

    Raises InputError for invalid values.
    """

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    channels: int
    """1 or 3. For 3, a grey image is repeated; for 1, a colour image is converted to grey."""
    mean: tuple[float, ...]
    """Per channel, for pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """Per channel, above 0, for pixels scaled to [0, 1]."""
    interpolation: str = "bilinear"
    """bilinear, bicubic, nearest or lanczos, as Pillow computes them (with antialiasing, on uint8)."""

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels"):
            object.__setattr__(self, name, _whole_number(name, getattr(self, name)))
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}; expected 1 (grey) or 3 (colour).")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _channel_values(name, getattr(self, name), self.channels))
        # Compared as float32, the type of the division: 1e-50 rounds to 0.
        if min(np.float32(value) for value in self.std) <= 0:
            raise InputError(f"std is {self.std}; expected values above zero.")
        if not isinstance(self.interpolation, str) or self.interpolation not in _FILTERS:
            raise InputError(f"interpolation is {self.interpolation!r}; expected one of {', '.join(_FILTERS)}.")

    @classmethod
    def imagenet(cls, size: int, interpolation: str = "bilinear") -> InputSpec:
        """The spec of torchvision's pretrained networks: size x size pixels, 3 channels, ImageNet's mean and std."""
        return cls(size, size, 3, IMAGENET_MEAN, IMAGENET_STD, interpolation)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width), the shape that `preprocess` returns."""
        return self.channels, self.height, self.width

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InputSpec:
        """The spec that `to_dict` wrote. Raises BundleError naming unknown or missing keys, or an invalid value."""
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(map(str, set(data) - names)), sorted(names - set(data))
        if unknown or missing:
            raise BundleError(
                f"the input spec has unknown keys: {', '.join(unknown) or 'none'}; missing keys: "
                f"{', '.join(missing) or 'none'}. Export the bundle again, or upgrade stageproof."
            )
        try:
            return cls(**data)
        except InputError as error:
            raise BundleError(f"the input spec is not valid: {error} Export the bundle again.") from error


def resize(image: Image.Image, spec: InputSpec) -> NDArray[np.uint8]:
    """uint8 pixels at the model's size: (height, width) for grey, (height, width, 3) for colour.

    image: mode L or RGB, as `runtime.images.read_image` returns it. For a one-channel spec, colour is first converted
    to grey (ITU-R 601 luma, as torchvision's Grayscale). A grey image keeps one channel here, also for a
    three-channel spec.
    """
    # Copied: the array over Pillow's bytes is read-only, which torch.from_numpy warns about.
    return resized(image, spec).copy()


def normalise(
    pixels: NDArray[np.uint8], spec: InputSpec, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """float32 (channels, height, width), C-contiguous: (pixel / 255 - mean) / std per channel.

    pixels: uint8, (height, width), or (height, width, 3) for a three-channel spec, as `resize` returns it.
    out: float32 (channels, height, width) to write the result to and return, for example one row of a batch.
    Raises InputError for another shape or dtype.
    """
    size = (spec.height, spec.width)
    accepted = (size,) if spec.channels == 1 else (size, (*size, 3))
    if pixels.dtype != np.uint8 or pixels.shape not in accepted:
        raise InputError(f"pixels is {_describe(pixels)}; expected uint8 {' or '.join(map(str, accepted))}.")
    if out is None:
        out = np.empty(spec.shape, np.float32)
    elif out.dtype != np.float32 or out.shape != spec.shape:
        raise InputError(f"out is {_describe(out)}; expected float32 {spec.shape}.")
    _normalise(pixels[None], spec, out[None])
    return out


def normalise_all(images: Sequence[NDArray[np.uint8]], spec: InputSpec, out: NDArray[np.float32]) -> None:
    """As `normalise`, for N images from `resize` or `resized` with this `spec`, written to the first N rows of `out`.

    out: float32 (at least N, channels, height, width). For small images, takes 25 % less time than one by one,
    with a tenth of the calls after which a thread waits for the GIL.
    """
    per_call = max(1, _PIXELS_PER_CALL // (spec.height * spec.width))
    done = 0
    for _, same_channels in groupby(images, key=np.ndim):
        remaining = iter(same_channels)
        while some := list(islice(remaining, per_call)):
            _normalise(np.stack(some), spec, out[done : done + len(some)])
            done += len(some)


def _normalise(pixels: NDArray[np.uint8], spec: InputSpec, out: NDArray[np.float32]) -> None:
    """Fill `out`, (N, channels, height, width), from (N, height, width) or (N, height, width, 3)."""
    planes = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    # The three float32 operations of ToTensor and Normalize in the same order, so that the result is bit-exact. Each
    # runs over whole planes, which numpy vectorises; it does not vectorise a lookup table of the 256 values. Grey
    # pixels are scaled once for all channels.
    scaled = planes.astype(np.float32, order="C")
    np.divide(scaled, np.float32(255), out=scaled)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    standardise(scaled, mean, std, out, out)


def standardise(scaled: Any, mean: Any, std: Any, between: Any, out: Any, arrays: Any = np) -> None:
    """Fill `out` with (scaled - mean) / std in float32; shared by prediction and training.

    scaled: float32 in [0, 1]. mean, std: float32, broadcastable to `scaled`; no Python numbers, because a GPU would
    multiply by their reciprocal. between: float32 of the shape of `out`, filled with scaled - mean; may be `out`.
    arrays: numpy, or torch for tensors on any device: a module with `subtract` and `divide`.
    """
    arrays.subtract(scaled, mean, out=between)
    arrays.divide(between, std, out=out)


def preprocess(image: Image.Image, spec: InputSpec, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """float32 (channels, height, width), C-contiguous: the model's input for one image.

    image: mode L or RGB, any size.
    out: array of that shape and dtype to write the result to and return.
    Raises InputError for any other mode.
    """
    return normalise(resized(image, spec), spec, out)


def resized(image: Image.Image, spec: InputSpec) -> NDArray[np.uint8]:
    """As `resize`, but read-only."""
    if image.mode not in ("L", "RGB"):
        raise InputError(f"the image has mode {image.mode}; expected L or RGB. Read it with runtime.images.read_image.")
    if spec.channels == 1 and image.mode != "L":
        image = image.convert("L")
    if image.size != (spec.width, spec.height):  # even without a change of size, Pillow would copy it three times
        image = image.resize((spec.width, spec.height), _FILTERS[spec.interpolation])
    pixels = np.frombuffer(image.tobytes(), np.uint8)
    return pixels.reshape((spec.height, spec.width) if image.mode == "L" else (spec.height, spec.width, 3))


def _whole_number(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} is {value!r}; expected an integer of at least 1.")
    return int(value)


def _channel_values(name: str, values: object, channels: int) -> tuple[float, ...]:
    if not isinstance(values, (tuple, list)) or len(values) != channels:
        raise InputError(f"{name} is {values!r}; expected {channels} numbers, one per channel.")
    for value in values:
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or abs(value) > _FLOAT32_MAX:
            raise InputError(f"{name} is {values!r}; expected finite numbers that fit float32.")
    return tuple(float(value) for value in values)


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


class _CallableModule(ModuleType):
    """A module that can be called as its function: `runtime.preprocess` is the name of both.

    If `runtime` exported the function itself, ``import runtime.preprocess as p`` would return it and hide the module.
    """

    def __call__(
        self, image: Image.Image, spec: InputSpec, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        return preprocess(image, spec, out)

    def __reduce__(self) -> str | tuple[Any, ...]:  # picklable, as the function is; modules are not
        return importlib.import_module, (self.__name__,)


_CallableModule.__call__.__doc__ = preprocess.__doc__
sys.modules[__name__].__class__ = _CallableModule
