"""What happens to images before the engine: read, judged, resized, and normalised into the rows of a batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stageproof.runtime.errors import ImageError, shed
from stageproof.runtime.guard.ood_guard import Guard
from stageproof.runtime.guard.thumbnails import Thumbnail
from stageproof.runtime.headers.limits import MAX_PIXELS
from stageproof.runtime.images.reader import Picture, Source, read_all
from stageproof.runtime.preprocess import InputSpec, normalise_all, resized

if TYPE_CHECKING:
    from stageproof.runtime.decoding.pool import Decoders


@dataclass
class Prepared:
    """One image, read, judged and resized; or why not."""

    pixels: np.ndarray | None = None
    """uint8 (H, W) or (H, W, 3) of the model's size; None where the model may not speak of the image."""
    thumbnail: Thumbnail | None = None
    """What the guard is to judge; None without a guard."""
    digest: str | None = None
    """Of the image as it was read; None where it could not be, and where nobody asked."""
    code: str = ""
    reason: str = ""
    error: ImageError | None = None
    guard: dict[str, float] = field(default_factory=dict)
    transforms: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    read_ms: float = 0.0
    preprocess_ms: float = 0.0


def prepare(
    sources: Iterable[Source],
    spec: InputSpec,
    guard: Guard | None,
    digest: Callable[[Image.Image], str] | None = None,
    max_pixels: int = MAX_PIXELS,
    pool: Decoders | None = None,
) -> list[Prepared]:
    """Each of `sources` read, resized, and judged by `guard` if there is one. Raises nothing for a bad image.

    max_pixels, pool: as for `runtime.images.reader.read_all`.
    Keeps eight bits a pixel of the model's size, and nothing else of an image, however large that was.
    """
    several = [_read(source, spec, guard, digest, 1, max_pixels, pool)[0] for source in sources]
    if guard is not None:
        _judge([one for one in several if one.error is None], guard)
    return several


def prepare_frames(
    sources: Iterable[Source],
    spec: InputSpec,
    guard: Guard | None,
    digest: Callable[[Image.Image], str] | None = None,
    max_pixels: int = MAX_PIXELS,
    pool: Decoders | None = None,
) -> list[list[Prepared]]:
    """As `prepare`, and for each source a list: one for each frame of a DICOM file, one for anything else."""
    several = [_read(source, spec, guard, digest, None, max_pixels, pool) for source in sources]
    if guard is not None:
        _judge([one for frames in several for one in frames if one.error is None], guard)
    return several


def _read(
    source: Source,
    spec: InputSpec,
    guard: Guard | None,
    digest: Callable[[Image.Image], str] | None,
    most: int | None,
    max_pixels: int,
    pool: Decoders | None,
) -> list[Prepared]:
    """One or more, not yet judged. most: frames of a file, more of which are an ImageError."""
    start = time.perf_counter()
    try:
        pictures = read_all(source, most, max_pixels, pool)
    except ImageError as error:
        spent = (time.perf_counter() - start) * 1e3
        return [Prepared(code="unreadable", reason=str(error), error=shed(error), read_ms=spent)]
    read_ms = (time.perf_counter() - start) * 1e3 / len(pictures)
    pictures.reverse()
    prepared = []
    while pictures:  # each is let go as soon as it is small
        prepared.append(_prepare(pictures.pop(), spec, guard, digest, read_ms))
    return prepared


def _prepare(
    picture: Picture,
    spec: InputSpec,
    guard: Guard | None,
    digest: Callable[[Image.Image], str] | None,
    read_ms: float,
) -> Prepared:
    start = time.perf_counter()
    pixels = resized(picture.image, spec)
    small = None if guard is None else guard.thumbnail(picture.image)
    done = time.perf_counter()
    return Prepared(
        pixels,
        small,
        None if digest is None else digest(picture.image),
        transforms=picture.transforms,
        warnings=picture.warnings,
        read_ms=read_ms,
        preprocess_ms=(done - start) * 1e3,
    )


def _judge(several: list[Prepared], guard: Guard) -> None:
    """All in one, which takes a third of the time: most of judging one image is waiting for memory and for Python."""
    if not several:
        return
    start = time.perf_counter()
    thumbnails = [one.thumbnail for one in several if one.thumbnail is not None]
    for one, scores in zip(several, guard.scores_of(thumbnails), strict=True):
        one.guard = scores
        one.code, one.reason = guard.judge(scores) or ("", "")
        if one.code:
            one.pixels = None
    spent = (time.perf_counter() - start) * 1e3 / len(several)
    for one in several:
        one.preprocess_ms += spent


def fill(rows: np.ndarray, batch: Iterable[Prepared], spec: InputSpec) -> tuple[int, float]:
    """How many of `batch` the model may speak of, whose normalised pixels now stand in the first of `rows`, in order;
    and the milliseconds that each of them took.

    rows: float32 (N or more, C, H, W) of `spec`, for a batch of N.
    """
    start = time.perf_counter()
    images = [one.pixels for one in batch if one.pixels is not None]
    normalise_all(images, spec, rows)
    return len(images), (time.perf_counter() - start) * 1e3 / max(len(images), 1)


class Rows:
    """Float32 memory for batches of images of one shape, used again: fresh pages cost more than filling them."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._spare: deque[np.ndarray] = deque()

    def take(self, count: int) -> np.ndarray:
        """(count or more, C, H, W) float32 that nobody else has. Safe from several threads."""
        try:
            rows = self._spare.pop()
        except IndexError:
            return np.empty((count, *self._shape), np.float32)
        return rows if len(rows) >= count else np.empty((count, *self._shape), np.float32)

    def give_back(self, rows: np.ndarray) -> None:
        """For the next one who asks. What `take` gave and nobody gives back is let go."""
        self._spare.append(rows)
