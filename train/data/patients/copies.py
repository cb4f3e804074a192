"""`copy_links`: finds augmented copies of slices (rotated, flipped, shifted, zoomed) and patients scanned twice.

Candidates are pairs with similar invariant features (`train.data.patients.alignment`), and the most similar slices of
two groups. One slice is registered to the other. The pair is a copy if their residuals, after subtracting the mean of
the neighbours of the other slice, correlate; residuals of registered slices of different patients do not.
"""

from __future__ import annotations

import numpy as np

from stageproof.train.data.patients.alignment import Alignment
from stageproof.train.data.patients.rejoining import strong_level
from stageproof.train.data.patients.residual import Residuals, products, unit
from stageproof.train.data.patients.thumbnails import directions

_PROPOSED = 3  # candidates for each slice, by the most similar invariant features
_SHARE = 0.3  # minimum share of the slices of a group that have such a pair with one other group
_COPY, _FEW = 0.6, 3  # minimum residual correlation of a copy, for groups with fewer slices than _FEW
_AGAIN = 0.45  # the same for whole stacks, which are copied or from a second scan of the patient


def copy_links(
    thumbnails: np.ndarray, slices: Residuals, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K,) int64 each: copies and their originals (the original is the slice that is more similar to its neighbours);
    and (L, 2) int64 pairs with a strong link after registration, which may be one patient in two head positions.

    thumbnails: (N, S, S) uint8. groups: (N,) int64; pairs within a group are ignored.
    """
    alignment = Alignment(thumbnails)
    signatures = alignment.signatures()
    one, other = [], []
    for at, similarity in products(signatures, signatures):
        rows = np.arange(at.start, at.stop)
        similarity[rows - at.start, rows] = -2
        taken = min(_PROPOSED, similarity.shape[1] - 1)
        near = np.argpartition(-similarity, taken - 1, axis=1)[:, :taken]
        one.append(np.repeat(rows, taken))
        other.append(near.ravel())
    for at, similarity in products(slices.raw, slices.raw):
        similarity[groups[at, None] == groups] = -2
        one.append(np.arange(at.start, at.stop))
        other.append(similarity.argmax(axis=1))
    first, second = np.concatenate(one), np.concatenate(other)
    keys = np.unique(np.minimum(first, second) * len(groups) + np.maximum(first, second))
    first, second = keys // len(groups), keys % len(groups)
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    # The slice that is more similar to its neighbours is in the usual pose, so their mean is that of its height.
    swap = slices.typical[first] < slices.typical[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    side = round(slices.raw.shape[1] ** 0.5)
    left = np.empty(len(first), np.float32)
    for start in range(0, len(first), 512):
        part = slice(start, start + 512)
        registered = directions(alignment.registered(first[part], second[part]), side)
        left[part] = (unit(registered - slices.means[first[part]]) * slices.left[first[part]]).sum(axis=1)
    alone = np.bincount(groups)[groups]
    alone = np.minimum(alone[first], alone[second]) < _FEW
    maybe = np.stack([first, second], axis=1)[left > strong_level(slices)]
    found = left > np.where(alone, _COPY, _AGAIN)
    first, second = first[found], second[found]
    kept = _by_many(first, second, groups)
    return second[kept], first[kept], maybe


def _by_many(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(K,) bool: pairs of two groups for which at least `_SHARE` of the slices of one group have a pair.

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
