"""Encoded images → one uint8 array in memory: decoded once, through the pixel contract that prediction uses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from runtime.errors import DatasetError, ImageError
from runtime.images import read_image
from runtime.preprocess import InputSpec, resize
from runtime.threads import available_cpus
from train.data.patients import thumbnail
from train.data.samples import Samples


@dataclass(frozen=True)
class Unreadable:
    """A file that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Slices:
    """Decoded slices at the network's size; position i of every field is the same slice."""

    pixels: np.ndarray
    """(N, channels, H, W) uint8; one channel when every image is grey, three otherwise."""
    thumbnails: np.ndarray
    """(N, 32, 32) uint8, of the original images, to tell patients apart by."""
    labels: np.ndarray
    """(N,) int64, positions in LABELS."""
    names: tuple[str, ...]
    groups: np.ndarray | None
    """(N,) int64, equal for slices of one patient; None when nobody has told them apart."""

    def __len__(self) -> int:
        return len(self.labels)


def safe_loader(
    samples: Samples, spec: InputSpec, max_unreadable: float = 0.05
) -> tuple[Slices, tuple[Unreadable, ...]]:
    """Every slice that can be read, decoded and resized, and a list of those that cannot.

    max_unreadable: share of the files, in [0, 1], above which DatasetError is raised: then it is not a stray file.
    """
    with ThreadPoolExecutor(available_cpus()) as pool:  # Pillow decodes outside the interpreter's lock
        decoded = list(pool.map(lambda index: _decode(samples, index, spec), range(len(samples))))
    unreadable = tuple(item for item in decoded if isinstance(item, Unreadable))
    if len(unreadable) > max_unreadable * len(samples):
        first = "; ".join(f"{item.name}: {item.reason}" for item in unreadable[:3])
        raise DatasetError(
            f"{len(unreadable)} of {len(samples)} files of {samples.source} cannot be read, allowed "
            f"{max_unreadable:.0%}. The first: {first}. Repair them, or raise --max-unreadable."
        )
    kept = np.array([index for index, item in enumerate(decoded) if not isinstance(item, Unreadable)], np.int64)
    if not len(kept):
        raise DatasetError(f"{samples.source} holds no readable image.")
    samples = samples.select(kept)
    read = [item for item in decoded if not isinstance(item, Unreadable)]
    pixels, thumbnails = _stack([pixels for pixels, _ in read]), np.stack([small for _, small in read])
    return Slices(pixels, thumbnails, samples.labels, tuple(samples.names), samples.groups), unreadable


def _decode(samples: Samples, index: int, spec: InputSpec) -> tuple[np.ndarray, np.ndarray] | Unreadable:
    """(H, W) or (H, W, 3) uint8 and the thumbnail, or why not."""
    try:
        image = read_image(samples.read(index))
        return resize(image, spec), thumbnail(image)
    except (ImageError, OSError) as error:
        return Unreadable(samples.names[index], str(error))


def _stack(images: list[np.ndarray]) -> np.ndarray:
    """(N, channels, H, W) uint8 of images that are all grey, all colour, or mixed (then grey ones are replicated)."""
    if all(image.ndim == 2 for image in images):
        return np.stack(images)[:, None]
    colour = [image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2) for image in images]
    return np.ascontiguousarray(np.stack(colour).transpose(0, 3, 1, 2))
