"""Who is the same patient, told from the pixels where the dataset publishes no ids.

Neighbouring slices of one head are nearly the same picture. Joined by a chain of most-alike pairs, the slices of a
dataset fall into patients, if there is a level of likeness that clearly parts pairs within a head from pairs across
heads. That level is looked for in the data itself; where the data has none, nobody is told apart and that is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

THUMBNAIL = 32
_CHANCE = 1e-3
_SHARE = 0.1
_ENDS = ("below", "above")


@dataclass(frozen=True)
class Patients:
    """Who is who among N slices, and how clearly it shows."""

    groups: np.ndarray
    """(N,) int64 from 0, equal for slices of one patient; when `found` is False, equal for identical pictures only."""
    found: bool
    """Whether the data has a level of likeness that parts patients."""
    below: float
    """Correlation of the most alike pair that links two patients; of the clearest gap, when none is clear enough."""
    above: float
    """Correlation of the least alike pair that holds a patient together."""
    links: np.ndarray
    """(N - 1,) correlations of the pairs that hold all slices together, ascending."""
    strength: float
    """Width of the gap between the two, in mean spacings of the links around it."""

    def likeness(self) -> dict[str, bool | float | None]:
        """How clearly patients show, JSON-ready: found, below, above (None where there are too few links), strength."""
        ends = {name: value if math.isfinite(value) else None for name, value in vars(self).items() if name in _ENDS}
        return {"found": self.found, **ends, "strength": self.strength}


def thumbnail(image: Image.Image) -> np.ndarray:
    """(32, 32) uint8: the image, grey, each pixel the mean of the area it stands for."""
    return np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def tell_apart(thumbnails: np.ndarray) -> Patients:
    """The patients among the slices, at a likeness chosen from the data.

    thumbnails: (N, 32, 32) uint8, from `thumbnail` of the original images: who is who must not depend on the size that
        a network happens to be trained at.

    The links of a maximum spanning tree over the correlations, sorted by Fisher's z (variance-stabilised correlation),
    are searched for the gap that is widest against the spacing of the links on both its sides. It counts when links
    spread at random would show its like anywhere with a chance below 0.001, and when it spans a tenth of the
    range that 98 % of the links take: a few slices that are unusually alike make a gap as well, but a narrow one.
    """
    vectors = directions(thumbnails)
    start, end, likeness = _spanning_tree(vectors)
    order = np.argsort(likeness)
    z = np.arctanh(np.clip(likeness[order], -1 + 1e-7, 1 - 1e-7))
    cut, strength = _clearest_gap(z)
    found = (
        cut is not None
        and strength > math.log(len(z) / _CHANCE)
        and bool(z[cut + 1] - z[cut] > _SHARE * (np.quantile(z, 0.99) - np.quantile(z, 0.01)))
    )
    below, above = (math.tanh(z[cut]), math.tanh(z[cut + 1])) if cut is not None else (math.nan, math.nan)
    kept = order[cut + 1 :] if found and cut is not None else order[likeness[order] > 1 - 1e-6]
    return Patients(_components(len(vectors), start[kept], end[kept]), found, below, above, likeness[order], strength)


def directions(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 1024) float32, each row mean-free and of unit norm, so that products are correlations."""
    vectors = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    # An image of one even tone has no direction; the floor keeps it alone.
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return vectors


def _spanning_tree(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N - 1,) starts, ends and correlations of the maximum spanning tree (Prim 1957); memory stays linear in N."""
    count = len(vectors)
    best, origin = np.full(count, -np.inf, np.float32), np.zeros(count, np.int64)
    waiting = np.ones(count, bool)
    starts, ends, likeness = np.empty((3, max(count - 1, 0)))
    current = 0
    for step in range(count - 1):
        waiting[current] = False
        correlation = vectors @ vectors[current]
        closer = waiting & (correlation > best)
        best[closer], origin[closer] = correlation[closer], current
        current = int(np.where(waiting, best, -np.inf).argmax())
        starts[step], ends[step], likeness[step] = origin[current], current, best[current]
    return starts.astype(np.int64), ends.astype(np.int64), likeness


def _clearest_gap(z: np.ndarray) -> tuple[int | None, float]:
    """Position before the gap that is widest against the spacing around it, and how many spacings it measures."""
    gaps = np.diff(z)
    around = max(5, len(z) // 50)  # links on either side that say what spacing is usual there
    if len(gaps) < 2 * around + 1:
        return None, 0.0
    middle = np.arange(around, len(gaps) - around)
    below = (z[middle] - z[middle - around]) / around
    above = (z[middle + 1 + around] - z[middle + 1]) / around
    strength = gaps[middle] / np.maximum(np.maximum(below, above), 1e-9)
    best = int(strength.argmax())
    return int(middle[best]), float(strength[best])


def _components(count: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(count,) int64 numbers of the connected components of the given links."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)
