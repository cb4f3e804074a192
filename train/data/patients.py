"""Who is the same patient, told from the pixels where the dataset publishes no ids.

Neighbouring slices of one head are nearly the same picture, and so is an augmented copy once it is laid onto its
original. Joined by a chain of most-alike pairs, the slices of a dataset fall into patients, if there is a level of
likeness that clearly parts pairs within a head from pairs across heads. That level is looked for in the data itself;
where the data has none, nobody is told apart and that is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

THUMBNAIL = 64
COARSE = 32
_CHANCE = 0.05
_SHARE = 0.1
_SAME = 1 - 1e-6  # correlation of identical pictures, but for rounding
_NEAR = 0.999  # and of pictures that differ by no more than another compression makes them
_FEWEST, _AROUND = 5, 32  # links on either side that say what spacing is usual there, and what part of all at most
_ENDS = ("below", "above")


@dataclass(frozen=True)
class Patients:
    """Who is who among N slices, and how clearly it shows."""

    groups: np.ndarray
    """(N,) int64 from 0, equal for slices of one patient; when `found` is False, equal for identical pictures only."""
    found: bool
    """Whether the data has a level of likeness that parts patients."""
    below: float
    """Likeness of the most alike pair that links two patients; of the clearest gap, when none is clear enough."""
    above: float
    """Likeness of the least alike pair that holds a patient together."""
    links: np.ndarray
    """(N - 1,) likenesses of the pairs that hold all slices together, ascending."""
    strength: float
    """Width of the gap between the two, in mean spacings of the links around it."""
    chance: float
    """At most how probable a gap as clear is where links lie at random, in [0, 1]."""
    moved: np.ndarray
    """(N,) bool, slices that show their patient turned, mirrored, shifted or zoomed: copies made by augmentation."""
    repeats: np.ndarray
    """(N,) int64 from 0, equal for slices that differ by no more than another compression makes them differ."""

    def likeness(self) -> dict[str, bool | float | None]:
        """How clearly patients show, JSON-ready: found, below, above (None where there are too few links), strength,
        chance."""
        ends = {name: value if math.isfinite(value) else None for name, value in vars(self).items() if name in _ENDS}
        return {"found": self.found, **ends, "strength": self.strength, "chance": self.chance}


def thumbnail(image: Image.Image) -> np.ndarray:
    """(64, 64) uint8: the image, grey, each pixel the mean of the area it stands for."""
    return np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def tell_apart(thumbnails: np.ndarray) -> Patients:
    """The patients among the slices, at a likeness chosen from the data.

    thumbnails: (N, S, S) uint8, S a multiple of 32, from `thumbnail` of the original images: who is who must not depend
        on the size that a network happens to be trained at.

    Likeness is the correlation of two slices, as they lie or aligned (`train.data.alignment`). The links of a maximum
    spanning tree, sorted by Fisher's z (variance-stabilised correlation), are searched for gaps that span a tenth of
    the range that 98 % of the links take; there are about ten of those at most. The clearest counts when links spread
    at random around it would show its like with a chance below 0.05, and when it parts the slices as patients do: no
    group holds more than half of them, and no more than a quarter of them are alone.
    """
    from train.data.linking import components, link

    count = len(thumbnails)
    tree, seen = link(thumbnails, directions(thumbnails, COARSE))
    likeness = np.sort(tree.likeness)
    found, below, above, strength, chance = False, math.nan, math.nan, 0.0, 1.0
    groups, moved = components(count, tree.select(tree.likeness >= _SAME)), np.zeros(count, bool)
    for gap in _gaps(likeness[likeness < _SAME]):
        parted = components(count, tree.select(tree.likeness > gap[0]))
        found = gap[3] < _CHANCE and _like_patients(parted)
        if found or not math.isfinite(below):
            below, above, strength, chance = gap
        if found:
            groups, moved = parted, _moved(parted, components(count, seen.select(seen.still > below)))
            break
    repeats = components(count, seen.select(seen.still >= _NEAR))
    return Patients(groups, found, below, above, likeness, strength, chance, moved, repeats)


def directions(thumbnails: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """(N, D) float32, each row mean-free and of unit norm, so that products are correlations.

    thumbnails: (N, S, S) uint8, S a multiple of 32. D is the square of `side`, or of S where that is less.
    """
    count, full, _ = thumbnails.shape
    step = max(full // side, 1)
    vectors = np.empty((count, (full // step) ** 2), np.float32)
    for at in range(0, count, 4096):
        part = thumbnails[at : at + 4096].reshape(-1, full // step, step, full // step, step)
        vectors[at : at + 4096] = part.mean(axis=(2, 4), dtype=np.float32).reshape(len(part), -1)
    vectors -= vectors.mean(axis=1, keepdims=True)
    # An image of one even tone has no direction; the floor keeps it alone.
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return vectors


def _gaps(likeness: np.ndarray) -> list[tuple[float, float, float, float]]:
    """(below, above, strength, chance) of every gap that is wide enough, the least probable first.

    likeness: (K,) ascending, less than 1.
    """
    z = np.arctanh(np.clip(likeness.astype(np.float64), -1 + 1e-7, 1 - 1e-7))
    last = len(z) - 1
    if last < 2 * _FEWEST + 1:
        return []
    place = np.arange(_FEWEST, last - _FEWEST)
    width = z[place + 1] - z[place]
    around = max(_AROUND, len(z) // 50)
    before, after = np.minimum(place, around), np.minimum(last - place - 1, around)
    below = (z[place] - z[place - before]) / before
    above = (z[place + 1 + after] - z[place + 1]) / after
    # Spacings of points thrown at random are exponential, so that their ratio to a mean of k of them has this tail.
    tails = [k * np.log1p(width / np.maximum(k * usual, 1e-9)) for k, usual in ((before, below), (after, above))]
    chance = np.minimum(np.exp(-np.minimum(*tails)) / _SHARE, 1.0)
    strength = width / np.maximum(np.maximum(below, above), 1e-9)
    wide = np.flatnonzero(width > _SHARE * (np.quantile(z, 0.99) - np.quantile(z, 0.01)))
    order = wide[np.lexsort((-strength[wide], chance[wide]))]
    return [
        (float(likeness[place[i]]), float(likeness[place[i] + 1]), float(strength[i]), float(chance[i])) for i in order
    ]


def _like_patients(groups: np.ndarray) -> bool:
    sizes = np.bincount(groups)
    return bool(2 * sizes.max() <= len(groups) and 4 * (sizes == 1).sum() <= len(groups))


def _moved(groups: np.ndarray, still: np.ndarray) -> np.ndarray:
    """(N,) bool: slices that are not of the largest part of their group that holds together as it lies.

    groups, still: (N,) int64 from 0.
    """
    sizes = np.bincount(still)[still]
    order = np.lexsort((still, -sizes, groups))
    largest = still[order[np.unique(groups[order], return_index=True)[1]]]
    return still != largest[groups]
