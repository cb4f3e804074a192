"""Encoded images → one uint8 array in memory: decoded once, through the pixel contract that prediction uses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from stageproof.runtime.decoding.pool import read_isolated
from stageproof.runtime.errors import DatasetError, ImageError
from stageproof.runtime.preprocess import InputSpec, resize
from stageproof.runtime.system.cpus import available_cpus
from stageproof.train.data.ids import Ids
from stageproof.train.data.patients.thumbnails import THUMBNAIL, thumbnail
from stageproof.train.data.samples import Samples


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
    """(N, 64, 64) uint8, of the original images, to compare heads by; (0, 64, 64) where nobody needs them."""
    labels: np.ndarray
    """(N,) int64, positions in LABELS."""
    names: tuple[str, ...]
    groups: np.ndarray | None
    """(N,) int64, equal for slices of one patient; None when the source does not say."""
    ids: Ids | None = None
    """Whose each slice is by what the source names; None where it names nobody."""

    def __len__(self) -> int:
        return len(self.labels)


def safe_loader(
    samples: Samples,
    spec: InputSpec,
    max_unreadable: float = 0.05,
    allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None,
    *,
    thumbnails: bool = True,
) -> tuple[Slices, tuple[Unreadable, ...]]:
    """Every slice that can be read, decoded and resized, and a list of those that cannot.

    max_unreadable: share of the files, in [0, 1], above which DatasetError is raised: then it is not a stray file.
    allocate: gives the uint8 array of a shape that the pixels are kept in; None takes memory.
    thumbnails: whether to make them; those of 128 × 128 slices take a quarter of what the pixels do.
    """
    allocate = allocate or (lambda shape: np.empty(shape, np.uint8))
    size, count = (spec.height, spec.width), len(samples)
    pixels = allocate((count, 1, *size))
    small = np.empty((count if thumbnails else 0, THUMBNAIL, THUMBNAIL), np.uint8)
    kept: list[int] = []
    unreadable: list[Unreadable] = []
    with ThreadPoolExecutor(available_cpus()) as pool:  # Pillow decodes outside the interpreter's lock
        for index, item in enumerate(pool.map(lambda index: _decode(samples, index, spec, thumbnails), range(count))):
            if isinstance(item, Unreadable):
                unreadable.append(item)
                continue
            image, reduced = item
            if image.ndim == 3 and pixels.shape[1] == 1:  # the first colour image: grey ones so far are replicated
                wider = allocate((count, 3, *size))
                wider[: len(kept)] = pixels[: len(kept)]
                pixels = wider
            pixels[len(kept)] = image if image.ndim == 2 else image.transpose(2, 0, 1)
            if reduced is not None:
                small[len(kept)] = reduced
            kept.append(index)
    if len(unreadable) > max_unreadable * count:
        first = "; ".join(f"{item.name}: {item.reason}" for item in unreadable[:3])
        raise DatasetError(
            f"{len(unreadable)} of {count} files of {samples.source} cannot be read, allowed "
            f"{max_unreadable:.0%}. The first: {first}. Repair them, or raise --max-unreadable."
        )
    if not kept:
        raise DatasetError(f"{samples.source} holds no readable image.")
    samples = samples.select(np.array(kept, np.int64))
    number = len(kept)
    slices = Slices(pixels[:number], small[:number], samples.labels, tuple(samples.names), samples.groups, samples.ids)
    return slices, tuple(unreadable)


def thumbnails_only(samples: Samples, max_unreadable: float) -> tuple[Slices, tuple[Unreadable, ...]]:
    """As `safe_loader`, for those who look at thumbnails and names: pixels are of one by one."""
    return safe_loader(samples, InputSpec.imagenet(1), max_unreadable)


def _decode(
    samples: Samples, index: int, spec: InputSpec, thumbnails: bool
) -> tuple[np.ndarray, np.ndarray | None] | Unreadable:
    """(H, W) or (H, W, 3) uint8 and the thumbnail if it is wanted, or why not."""
    try:
        image = read_isolated(samples.read(index)).image  # DICOM files too, as prediction reads them
        return resize(image, spec), thumbnail(image) if thumbnails else None
    except (ImageError, OSError) as error:
        return Unreadable(samples.names[index], str(error))
