"""What is answered for the clock: encoded images that differ from each other, none of them blank."""

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
"""Different images without which nothing is measured."""


def jpegs(count: int = 64) -> list[bytes]:
    """Different phantom slices as the bytes of grey 128 × 128 JPEG files, the form the public datasets come in."""
    samples = phantom_samples(patients=-(-count // 16), slices=4, seed=4242)
    return [_as_jpeg(samples.read(index)) for index in range(len(samples))][:count]


def images_for(
    manifest: Manifest, bundle: Path, run: Path | None, data: Path | None, count: int
) -> tuple[list[bytes], str]:
    """At most `count` encoded images that the bundle's guard lets through to the model, and where they come from.

    data: a folder, or .parquet. Without it: slices the run did not train on, phantoms where they are not at hand.

    Raises InputError for images that would measure nothing: blank, all alike, or rejected by the guard.
    """
    samples = comparison(run, count, data).samples
    # Phantoms are PNG files, and what is measured starts from JPEG; anybody's own files stay as they are.
    phantom = samples.source.startswith("phantom")
    images = [_as_jpeg(samples.read(i)) if phantom else samples.read(i) for i in range(len(samples))]
    check(images)
    # Records travel, and where files lie on the machine is nobody's business.
    source = samples.source if phantom else Path(samples.source).name
    if manifest.guard is None:
        return images, source
    guard = Guard.read(bundle / manifest.guard.file)
    # A rejected image never reaches the engine, and would count as a fast answer.
    accepted = [image for image in images if guard.judge(guard.scores(read(image).image)) is None]
    if len(accepted) < max(LEAST, len(images) // 2):
        raise InputError(
            f"The bundle's guard rejects {len(images) - len(accepted)} of {len(images)} images of {samples.source}: it "
            "was trained on other slices. Give some like those: --data DIR_OR_PARQUET."
        )
    return accepted, source


def check(images: list[bytes]) -> None:
    """Raise InputError for images that are all alike or blank: engine, branch predictor and caches may like those
    better than any real one."""
    if len(set(images)) < min(len(images), LEAST) or len(images) < LEAST:
        raise InputError(
            f"{len(set(images))} different images were given, expected at least {LEAST}. Measure on real ones."
        )
    blank = 0
    for position, image in enumerate(images):
        try:
            pixels = np.asarray(read(image).image)
        except ImageError as error:
            raise InputError(f"Image {position} cannot be measured on: {error}") from error
        blank += bool(pixels.min() == pixels.max())
    if blank:
        raise InputError(f"{blank} of {len(images)} images are blank: every pixel is the same. Measure on real ones.")


def _as_jpeg(image: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(image)).save(file, "JPEG", quality=95)
    return file.getvalue()
