"""Images for inference benchmarks: encoded, distinct, not blank, and accepted by the bundle's guard."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from stageproof.export.data.comparison import comparison
from stageproof.runtime.bundle.manifest import Manifest
from stageproof.runtime.errors import ImageError, InputError
from stageproof.runtime.guard.ood_guard import Guard
from stageproof.runtime.images.reader import read
from stageproof.train.data.phantom.__main__ import phantom_samples

LEAST = 8
"""Minimum number of distinct images."""


def jpegs(count: int = 64) -> list[bytes]:
    """Distinct phantom slices, encoded as greyscale 128 × 128 JPEG files like those of the public data sets."""
    samples = phantom_samples(patients=-(-count // 16), slices=4, seed=4242)
    return [_as_jpeg(samples.read(index)) for index in range(len(samples))][:count]


def images_for(
    manifest: Manifest, bundle: Path, run: Path | None, data: Path | None, count: int
) -> tuple[list[bytes], str]:
    """(at most `count` encoded images that the bundle's guard accepts, their source).

    data: a folder or .parquet. None: slices that the run was not trained on, or phantoms if these are not available.

    Raises InputError for images that are blank, identical, or rejected by the guard.
    """
    samples = comparison(run, count, data, classes=manifest.model.classes).samples
    # Phantoms are PNG files and are converted to JPEG, the format to be measured; other files are used unchanged.
    phantom = samples.source.startswith("phantom")
    images = [_as_jpeg(samples.read(i)) if phantom else samples.read(i) for i in range(len(samples))]
    check(images)
    # Records are shared, so they contain no paths of this machine.
    source = samples.source if phantom else Path(samples.source).name
    if manifest.guard is None:
        return images, source
    guard = Guard.read(bundle / manifest.guard.file)
    # A rejected image does not reach the engine and would be too fast.
    accepted = [image for image in images if guard.judge(guard.scores(read(image).image)) is None]
    if len(accepted) < max(LEAST, len(images) // 2):
        raise InputError(
            f"The bundle's guard rejects {len(images) - len(accepted)} of {len(images)} images of {samples.source}: "
            "they differ from the training slices. Give similar ones: --data DIR_OR_PARQUET."
        )
    return accepted, source


def check(images: list[bytes]) -> None:
    """Raise InputError for identical or blank images: engines, branch predictors and caches may be faster on them than
    on real images."""
    if len(set(images)) < min(len(images), LEAST) or len(images) < LEAST:
        raise InputError(
            f"{len(set(images))} different images were given, expected at least {LEAST}. Give more: --data, --images."
        )
    blank = 0
    for position, image in enumerate(images):
        try:
            pixels = np.asarray(read(image).image)
        except ImageError as error:
            raise InputError(f"Image {position} cannot be read: {error}") from error
        blank += bool(pixels.min() == pixels.max())
    if blank:
        raise InputError(f"{blank} of {len(images)} images are blank: all pixels are equal. Give other images: --data.")


def _as_jpeg(image: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(image)).save(file, "JPEG", quality=95)
    return file.getvalue()
