"""Augmented copies: slices that show another slice turned, mirrored, shifted or zoomed.

Candidates share a signature that these changes leave alone (`train.data.alignment`). A candidate is laid onto the other
slice and counts as a copy when what is left after the mean of that slice's neighbours is subtracted correlates: heads
of different people that are merely laid onto each other do not.
"""

from __future__ import annotations

import numpy as np

from train.data.alignment import Alignment
from train.data.residual import Residuals, products, unit

_PROPOSED = 3  # slices with the most similar signature that are looked at, for each slice
_IN_PLACE = 0.9  # correlation as they lie from which two slices need no alignment
_COPY = 0.6  # residual correlation of a copy laid onto its original, at least


def copy_links(thumbnails: np.ndarray, slices: Residuals, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) int64 each: the copy, or the less usual of the two slices, and the slice that it shows.

    thumbnails: (N, S, S) uint8. groups: (N,) int64; pairs within one of these are left alone.
    """
    from train.data.patients import directions

    alignment = Alignment(thumbnails)
    signatures = alignment.signatures()
    one, other = [], []
    for at, likeness in products(signatures, signatures):
        rows = np.arange(at.start, at.stop)
        likeness[rows - at.start, rows] = -2
        taken = min(_PROPOSED, likeness.shape[1] - 1)
        near = np.argpartition(-likeness, taken - 1, axis=1)[:, :taken]
        one.append(np.repeat(rows, taken))
        other.append(near.ravel())
    first, second = np.concatenate(one), np.concatenate(other)
    keys = np.unique(np.minimum(first, second) * len(groups) + np.maximum(first, second))
    first, second = keys // len(groups), keys % len(groups)
    still = (slices.raw[first] * slices.raw[second]).sum(axis=1)
    open_ = (groups[first] != groups[second]) & (still < _IN_PLACE)
    first, second = first[open_], second[open_]
    # The more usual one is in the common pose, so that the mean of its neighbours is that of its height.
    swap = slices.typical[first] < slices.typical[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    side = round(slices.raw.shape[1] ** 0.5)
    left = np.empty(len(first), np.float32)
    for start in range(0, len(first), 512):
        rows = slice(start, start + 512)
        laid = directions(alignment.laid(first[rows], second[rows]), side)
        left[rows] = (unit(laid - slices.means[first[rows]]) * slices.left[first[rows]]).sum(axis=1)
    found = left > _COPY
    return second[found], first[found]
