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
_NEAR = 0.999  # correlation of pictures that differ by no more than another compression makes them
_ENDS = ("below", "above")


@dataclass(frozen=True)
class Patients:
    """Which of N slices are of one patient, as far as image similarity shows it."""

    groups: np.ndarray
    """(N,) int64 from 0. Slices of one group belong together; what a group is, `verdict` says."""
    verdict: str
    """What a group is: "patients": exactly one person. "groups": one or more whole people, how many is not known; a
    split by group puts nobody on both sides. "unknown": near-identical pictures only, so that the other slices of a
    person may be in other groups."""
    error: float
    """Upper bound of the probability that the slices of some person are in two groups, in [0, 1]; 1 when unknown."""
    below: float
    """Similarity of the most similar pair in two groups; NaN where there is none."""
    above: float
    """Similarity of the least similar pair that joins two slices into one group; NaN where there is none."""
    links: np.ndarray
    """(K,) similarities of the pairs that join slices or groups most strongly, ascending: what a histogram shows."""
    moved: np.ndarray
    """(N,) bool, slices that show their patient turned, mirrored, shifted or zoomed: copies made by augmentation."""
    repeats: np.ndarray
    """(N,) int64 from 0, equal for slices that differ by no more than another compression makes them differ."""

    @property
    def found(self) -> bool:
        """Whether a split by `groups` keeps every person on one side."""
        return self.verdict != "unknown"

    @property
    def count(self) -> int | None:
        """Number of people; None unless each group is one person."""
        return int(self.groups.max(initial=-1)) + 1 if self.verdict == "patients" else None

    def similarity(self) -> dict[str, str | int | float | None]:
        """What image similarity shows, JSON-ready: verdict, groups (number of groups; at least so many people, and None
        when unknown), error, below, above (None where there is no such pair)."""
        ends = {name: value if math.isfinite(value) else None for name, value in vars(self).items() if name in _ENDS}
        groups = int(self.groups.max(initial=-1)) + 1 if self.found else None
        return {"verdict": self.verdict, "groups": groups, "error": self.error, **ends}


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
    below, above = (gap.below, gap.above) if gap is not None else (math.nan, math.nan)
    groups, verdict, error = components(count, tree.select(tree.likeness >= SAME)), "unknown", 1.0
    if gap is not None and parted is not None and _whole(thumbnails, parted, repeats):
        groups, verdict, error = parted, "patients", gap.chance
    return Patients(groups, verdict, error, below, above, likeness, moved, repeats)


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


def _whole(thumbnails: np.ndarray, groups: np.ndarray, repeats: np.ndarray) -> bool:
    """Whether no two groups look like parts of one person.

    What all heads share at one height is taken away: the mean of the 60 most similar slices of other groups. What is
    left of two slices of one person still correlates when slices between them are missing. groups, repeats: (N,) int64.
    """
    first = np.unique(repeats, return_index=True)[1]
    vectors, groups = directions(thumbnails[first], COARSE * 2), groups[first]
    raw = vectors @ vectors.T
    own = groups[:, None] == groups
    nearest = np.argpartition(-np.where(own, -1, raw), min(60, len(raw) - 1), axis=1)[:, :60]
    left = vectors - vectors[nearest].mean(axis=1)
    left /= np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-6)
    likeness = left @ left.T
    np.fill_diagonal(likeness, -1)
    within, across = np.where(own, likeness, -1).max(axis=1), np.where(own, -1, likeness)
    return bool(across.max() < 0.5 * np.quantile(within[within > -1], 0.05))


def _moved(groups: np.ndarray, still: np.ndarray) -> np.ndarray:
    """(N,) bool: slices that are not of the largest part of their group that holds together as it lies.

    groups, still: (N,) int64 from 0.
    """
    sizes = np.bincount(still)[still]
    order = np.lexsort((still, -sizes, groups))
    largest = still[order[np.unique(groups[order], return_index=True)[1]]]
    return still != largest[groups]
