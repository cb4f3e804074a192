"""Who is the same patient, told from the pixels where the dataset publishes no ids.

Neighbouring slices of one head are nearly the same picture, and so is an augmented copy once it is laid onto its
original. Joined by a chain of most-alike pairs, the slices of a dataset fall into patients, if there is a level of
likeness that clearly parts pairs within a head from pairs across heads. That level is looked for in the data itself;
where the data has none, nobody is told apart and that is said.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

import numpy as np
from PIL import Image

THUMBNAIL = 64
COARSE = 32
_NEAR = 0.999  # correlation of pictures that differ by no more than another compression makes them
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
    """At most how probable a gap as clear, and where one was found a parting as even, is by chance, in [0, 1]."""
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
    spanning tree are searched for gaps (`train.data.gap`). The clearest counts when two tests with nothing in common
    together leave it a chance below 0.01: how probable so wide a gap is where links spread at random around it, and how
    probable it is that as many links drawn at random part the slices as evenly. And it must part them as patients do:
    no group holds more than half of them, and no more than a quarter of them are alone.
    """
    from train.data.gap import SAME, part
    from train.data.linking import components, link

    count = len(thumbnails)
    tree, seen = link(thumbnails)
    likeness = np.sort(tree.likeness)
    gap, parted = part(count, tree)
    moved = np.zeros(count, bool)
    if gap is not None and parted is not None:
        moved = _moved(parted, components(count, seen.select(seen.still > gap.below)))
    repeats = components(count, seen.select(seen.still >= _NEAR))
    below, above, strength, chance = astuple(gap) if gap is not None else (math.nan, math.nan, 0.0, 1.0)
    groups = components(count, tree.select(tree.likeness >= SAME)) if parted is None else parted
    return Patients(groups, parted is not None, below, above, likeness, strength, chance, moved, repeats)


def directions(thumbnails: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """(N, D) float32, each row mean-free and of unit norm, so that products are correlations.

    thumbnails: (N, S, S) uint8, S a multiple of 32. D is the square of `side`, or of S where that is less.
    """
    count, full, _ = thumbnails.shape
    step = max(full // side, 1)
    vectors = np.empty((count, (full // step) ** 2), np.float32)
    for at in range(0, count, 4096):
        part = thumbnails[at : at + 4096].reshape(-1, full // step, step, full // step, step)
        rows = vectors[at : at + 4096]
        rows[:] = part.mean(axis=(2, 4), dtype=np.float32).reshape(len(part), -1)
        rows -= rows.mean(axis=1, keepdims=True)
        # An image of one even tone has no direction; the floor keeps it alone.
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return vectors


def _moved(groups: np.ndarray, still: np.ndarray) -> np.ndarray:
    """(N,) bool: slices that are not of the largest part of their group that holds together as it lies.

    groups, still: (N,) int64 from 0.
    """
    sizes = np.bincount(still)[still]
    order = np.lexsort((still, -sizes, groups))
    largest = still[order[np.unique(groups[order], return_index=True)[1]]]
    return still != largest[groups]
