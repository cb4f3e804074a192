"""Keeps comparison, calibration and layer-selection images disjoint: by pixel digests, and by patients."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np

from stageproof.export.data.sampling import decoded
from stageproof.train.data.samples import Samples

LEAST_PEOPLE = 4
"""Minimum number of patients for a split by patient; with fewer, slices are split one by one."""


def pixel_digests(samples: Samples) -> list[str]:
    """(N,) SHA-256 of each image's size and RGB pixels, independent of file format; greyscale is converted to RGB.

    Raises DatasetError for an image that cannot be read.
    """
    images = (image.convert("RGB") for image in decoded(samples))
    return [hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest() for image in images]


def without(samples: Samples, digests: Collection[str]) -> Samples:
    """The samples whose pixel digest is not in `digests`."""
    if not digests:
        return samples
    known = frozenset(digests)
    kept = [index for index, digest in enumerate(pixel_digests(samples)) if digest not in known]
    return samples if len(kept) == len(samples) else samples.select(np.array(kept, np.int64))


def two_halves(people: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """(N,) bool: True for the slices of every second patient of each class, so that both halves have all classes.

    None for fewer than `LEAST_PEOPLE` patients. A class with one patient is in one half only.

    people: (N,) int. labels: (N,) int; a patient's class is that of the first slice.
    """
    _, first, index = np.unique(people, return_index=True, return_inverse=True)
    if len(first) < LEAST_PEOPLE:
        return None
    half = np.zeros(len(first), bool)
    half[np.argsort(labels[first], kind="stable")[1::2]] = True
    return half[index]
