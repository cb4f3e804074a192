"""The one pixel contract: a decoded image becomes the float32 array that the model was trained on.

Training, parity checks, benchmarks and prediction all call `preprocess`, so they cannot drift apart. Its values are,
bit for bit, those of torchvision's ``Compose([Resize((height, width)), ToTensor(), Normalize(mean, std)])``.
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
"""Red, green and blue, on a scale of 0 to 1: what torchvision's pretrained weights expect."""

IMAGENET_STD: tuple[float, ...] = (0.229, 0.224, 0.225)

_TOGETHER = 1 << 18
"""Pixels that are normalised in one go: more are no faster, and would only need more memory."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class InputSpec:
    """What a model takes: size, channels, normalisation and the filter that resizes.

    Raises InputError where a value makes no sense.
    """

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    channels: int
    """1 or 3. A grey image is repeated into 3; a colour image is made grey for 1."""
    mean: tuple[float, ...]
    """By channel, of pixels on a scale of 0 to 1."""
    std: tuple[float, ...]
    """By channel, above zero."""
    interpolation: str = "bilinear"
    """bilinear, bicubic, nearest or lanczos, as Pillow computes them (with antialiasing, on uint8)."""

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels"):
            object.__setattr__(self, name, _whole_number(name, getattr(self, name)))
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}; expected 1 (grey) or 3 (colour).")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _channel_values(name, getattr(self, name), self.channels))
        # Checked as float32, in which the division is done: 1e-50 would divide by zero.
        if min(np.float32(value) for value in self.std) <= 0:
            raise InputError(f"std is {self.std}; every value must be above zero.")
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
        """The spec that `to_dict` wrote. Raises BundleError naming what is unknown, missing or out of range."""
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
    """Pixels at the model's size: uint8, (height, width) for grey or (height, width, 3) for colour.

    image: mode L or RGB, as `runtime.images.read_image` gives it. For a one-channel spec colour becomes grey
    first, by ITU-R 601 luma, as torchvision's Grayscale does. A grey image is resized once and stays single here.
    """
    # A copy, because the array over Pillow's bytes is read-only, which torch.from_numpy warns about.
    return resized(image, spec).copy()


def normalise(
    pixels: NDArray[np.uint8], spec: InputSpec, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """float32 (channels, height, width): (pixel / 255 - mean) / std by channel, C-contiguous, or `out` filled.

    pixels: uint8, (height, width), or (height, width, 3) for a three-channel spec, as `resize` gives it.
    out: float32 (channels, height, width), for example one row of a batch.
    Raises InputError where a shape or dtype differs.
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
    """As `normalise`, of N images that `resize` or `resized` made for this `spec`, into the first N of `out`.

    out: float32 (N or more, channels, height, width). In a quarter less time than one by one, for small images, and
    with a tenth as many calls at whose end one thread waits for another to let go of Python.
    """
    together = max(1, _TOGETHER // (spec.height * spec.width))
    at = 0
    for _, alike in groupby(images, key=np.ndim):
        remaining = iter(alike)
        while some := list(islice(remaining, together)):
            _normalise(np.stack(some), spec, out[at : at + len(some)])
            at += len(some)


def _normalise(pixels: NDArray[np.uint8], spec: InputSpec, out: NDArray[np.float32]) -> None:
    """`out`, (N, channels, height, width), filled from (N, height, width) or (N, height, width, 3)."""
    planes = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    # The same three float32 operations in the same order as ToTensor and Normalize, hence the same bits. Each runs over
    # whole planes: numpy does that with vector instructions, which it does not for a table of the 256 values. What is
    # grey is scaled once for all channels.
    scaled = planes.astype(np.float32, order="C")
    np.divide(scaled, np.float32(255), out=scaled)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    standardise(scaled, mean, std, out, out)


def standardise(scaled: Any, mean: Any, std: Any, between: Any, out: Any, arrays: Any = np) -> None:
    """`out` filled with (scaled - mean) / std in float32: how prediction and training alike normalise a pixel.

    scaled: float32, on a scale of 0 to 1. mean, std: float32, of a shape that broadcasts to it; never Python numbers,
    by whose reciprocal a GPU would multiply. between: float32 of the shape of `out`, filled with scaled - mean; may be
    `out` itself.
    arrays: numpy, or torch for tensors, on whatever device: a module with `subtract` and `divide`.
    """
    arrays.subtract(scaled, mean, out=between)
    arrays.divide(between, std, out=out)


def preprocess(image: Image.Image, spec: InputSpec, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """float32 (channels, height, width), C-contiguous: the image as the model takes it; or `out` filled with that.

    image: mode L or RGB, any size. Raises InputError for any other mode.
    """
    return normalise(resized(image, spec), spec, out)


def resized(image: Image.Image, spec: InputSpec) -> NDArray[np.uint8]:
    """As `resize`, and not to be written to."""
    if image.mode not in ("L", "RGB"):
        raise InputError(f"the image has mode {image.mode}; expected L or RGB. Read it with runtime.images.read_image.")
    if spec.channels == 1 and image.mode != "L":
        image = image.convert("L")
    if image.size != (spec.width, spec.height):  # Pillow would copy it three times to leave it as it is
        image = image.resize((spec.width, spec.height), _FILTERS[spec.interpolation])
    pixels = np.frombuffer(image.tobytes(), np.uint8)
    return pixels.reshape((spec.height, spec.width) if image.mode == "L" else (spec.height, spec.width, 3))


def _whole_number(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} is {value!r}; expected a whole number of at least 1.")
    return int(value)


def _channel_values(name: str, values: object, channels: int) -> tuple[float, ...]:
    if not isinstance(values, (tuple, list)) or len(values) != channels:
        raise InputError(f"{name} is {values!r}; expected {channels} numbers, one a channel.")
    for value in values:
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or abs(value) > _FLOAT32_MAX:
            raise InputError(f"{name} is {values!r}; expected finite numbers that fit float32.")
    return tuple(float(value) for value in values)


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


class _CallableModule(ModuleType):
    """`runtime.preprocess` names this module and is a function that `runtime` offers; so the module can be called.

    Else ``import runtime.preprocess as p`` would give the function, which hides the module of its name.
    """

    def __call__(
        self, image: Image.Image, spec: InputSpec, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        return preprocess(image, spec, out)

    def __reduce__(self) -> str | tuple[Any, ...]:  # functions can be sent to another process, and modules cannot
        return importlib.import_module, (self.__name__,)


_CallableModule.__call__.__doc__ = preprocess.__doc__
sys.modules[__name__].__class__ = _CallableModule
