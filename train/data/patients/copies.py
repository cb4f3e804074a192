"""Copies: slices that show another one turned, mirrored, shifted or zoomed, and heads that were scanned again.

Candidates share a signature that these changes leave alone (`train.data.patients.alignment`), or are the most similar
slices of two groups. A candidate is laid onto the other
slice and counts as a copy when what is left after the mean of that slice's neighbours is subtracted correlates: heads
of different people that are merely laid onto each other do not.
"""

from __future__ import annotations

import numpy as np

from stageproof.train.data.patients.alignment import Alignment
from stageproof.train.data.patients.rejoining import strong_level
from stageproof.train.data.patients.residual import Residuals, products, unit
from stageproof.train.data.patients.thumbnails import directions

_PROPOSED = 3  # slices with the most similar signature that are looked at, for each slice
_SHARE = 0.3  # share of a group's slices that need such a pair with one other group
_COPY, _FEW = 0.6, 3  # residual correlation of a copy laid onto its original, at least, in groups of fewer than this
_AGAIN = 0.45  # the same for whole stacks: copied ones, or the same head scanned again


def copy_links(
    thumbnails: np.ndarray, slices: Residuals, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K,) int64 each: the copy, or the less usual of the two slices, and the slice that it shows; and (L, 2) int64
    slices with a strong link once they are laid onto each other: parts of a head in two positions meet there.

    thumbnails: (N, S, S) uint8. groups: (N,) int64; pairs within one of these are left alone.
    """
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
    for at, likeness in products(slices.raw, slices.raw):
        likeness[groups[at, None] == groups] = -2
        one.append(np.arange(at.start, at.stop))
        other.append(likeness.argmax(axis=1))
    first, second = np.concatenate(one), np.concatenate(other)
    keys = np.unique(np.minimum(first, second) * len(groups) + np.maximum(first, second))
    first, second = keys // len(groups), keys % len(groups)
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    # The more usual one is in the common pose, so that the mean of its neighbours is that of its height.
    swap = slices.typical[first] < slices.typical[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    side = round(slices.raw.shape[1] ** 0.5)
    left = np.empty(len(first), np.float32)
    for start in range(0, len(first), 512):
        part = slice(start, start + 512)
        laid = directions(alignment.laid(first[part], second[part]), side)
        left[part] = (unit(laid - slices.means[first[part]]) * slices.left[first[part]]).sum(axis=1)
    alone = np.bincount(groups)[groups]
    alone = np.minimum(alone[first], alone[second]) < _FEW
    maybe = np.stack([first, second], axis=1)[left > strong_level(slices)]
    found = left > np.where(alone, _COPY, _AGAIN)
    first, second = first[found], second[found]
    kept = _by_many(first, second, groups)
    return second[kept], first[kept], maybe


def _by_many(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(K,) bool: pairs of two groups between which a share of the slices of one has pairs; a copied stack has many.

    first, second: (K,) int64. groups: (N,) int64 from 0.
    """
    count, size = int(groups.max()) + 1, np.bincount(groups)
    kept = np.zeros(len(first), bool)
    for one, other in ((first, second), (second, first)):
        pair = groups[one] * count + groups[other]
        slices = np.unique(np.stack([pair, one]), axis=1)
        pairs, linked = np.unique(slices[0], return_counts=True)
        kept |= (linked / size[pairs // count] >= _SHARE)[np.searchsorted(pairs, pair)]
    return kept
