"""`safe_loader`: decodes and resizes all images into one uint8 array, with the same preprocessing as in prediction."""

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
from stageproof.train.terminal.bars import bar


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Slices:
    """Decoded slices at the input size of the network. All fields have one entry for each slice, in the same order."""

    pixels: np.ndarray
    """(N, channels, H, W) uint8; one channel if all images are greyscale, else three."""
    thumbnails: np.ndarray
    """(N, 64, 64) uint8, of the original images, to compare patients by; (0, 64, 64) if not needed."""
    labels: np.ndarray
    """(N,) int64, indices in `Samples.classes`."""
    names: tuple[str, ...]
    groups: np.ndarray | None
    """(N,) int64, equal for slices of one patient; None if the source has no patients."""
    ids: Ids | None = None
    """Patient ids found in the source; None if it has none."""

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
    """All slices that can be read, decoded and resized, and the files that cannot.

    max_unreadable: share of unreadable files, in [0, 1], above which DatasetError is raised.
    allocate: allocates the uint8 pixel array from its shape; None: in memory.
    thumbnails: whether to compute thumbnails; for 128 × 128 slices they take a quarter of the memory of the pixels.
    """
    allocate = allocate or (lambda shape: np.empty(shape, np.uint8))
    size, count = (spec.height, spec.width), len(samples)
    pixels = allocate((count, 1, *size))
    small = np.empty((count if thumbnails else 0, THUMBNAIL, THUMBNAIL), np.uint8)
    kept: list[int] = []
    unreadable: list[Unreadable] = []
    # Pillow releases the GIL while decoding.
    with ThreadPoolExecutor(available_cpus()) as pool, bar("reading slices", count) as advance:
        for index, item in enumerate(pool.map(lambda index: _decode(samples, index, spec, thumbnails), range(count))):
            advance()
            if isinstance(item, Unreadable):
                unreadable.append(item)
                continue
            image, reduced = item
            if image.ndim == 3 and pixels.shape[1] == 1:  # first colour image: replicate the greyscale ones before it
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
            f"{max_unreadable:.0%}. The first: {first}. Repair or remove them, or raise --max-unreadable."
        )
    if not kept:
        raise DatasetError(f"{samples.source} contains no readable image.")
    samples = samples.select(np.array(kept, np.int64))
    number = len(kept)
    slices = Slices(pixels[:number], small[:number], samples.labels, tuple(samples.names), samples.groups, samples.ids)
    return slices, tuple(unreadable)


def thumbnails_only(samples: Samples, max_unreadable: float) -> tuple[Slices, tuple[Unreadable, ...]]:
    """As `safe_loader`, for code that needs thumbnails and names only: the pixels have a size of 1 × 1."""
    return safe_loader(samples, InputSpec.imagenet(1), max_unreadable)


def _decode(
    samples: Samples, index: int, spec: InputSpec, thumbnails: bool
) -> tuple[np.ndarray, np.ndarray | None] | Unreadable:
    """(H, W) or (H, W, 3) uint8 and the thumbnail (None if not wanted), or Unreadable with the reason."""
    try:
        image = read_isolated(samples.read(index)).image  # as in prediction, DICOM files included
        return resize(image, spec), thumbnail(image) if thumbnails else None
    except (ImageError, OSError) as error:
        return Unreadable(samples.names[index], str(error))
