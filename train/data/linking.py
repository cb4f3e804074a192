"""The pairs that hold N slices together: a maximum spanning tree of their likeness, without looking at all N² pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.data.alignment import Alignment
from train.data.patients import COARSE, directions

_BLOCK = 256  # rows whose products with all others are held at once
_FIRST = 3  # pairs looked at closely for each slice in the first round
_LATER = 4  # and for each group of slices after it
_MANY, _KEPT = 8192, 256  # above so many slices, this many principal directions find the pairs to look at


@dataclass(frozen=True)
class Links:
    """Pairs of slices, and how alike they are."""

    start: np.ndarray
    """(K,) int64 positions, as `end`."""
    end: np.ndarray
    still: np.ndarray
    """(K,) float32 correlations of the slices as they lie."""
    likeness: np.ndarray
    """(K,) float32, the same, or that of the slices aligned where it is more."""

    def __len__(self) -> int:
        return len(self.start)

    def select(self, rows: np.ndarray) -> Links:
        """The pairs at `rows`, positions or a mask."""
        return Links(self.start[rows], self.end[rows], self.still[rows], self.likeness[rows])


def link(thumbnails: np.ndarray) -> tuple[Links, Links]:
    """The N - 1 links of the spanning tree, and every pair that was looked at closely.

    thumbnails: (N, S, S) uint8, S a multiple of 32.

    Rounds as Borůvka's (1926): each group of slices names the slices outside that are most like its own, by 32 × 32
    pixels as they lie, and by signatures that no flip, turn, shift or zoom changes. Those pairs are aligned, and each
    group joins the one it is most alike. Memory grows as N, work as N² log N products. It is the maximum spanning tree
    of the pairs that were named, not of all.
    """
    alignment = Alignment(thumbnails)
    views = (_principal(directions(thumbnails, COARSE)), alignment.signatures())
    count = len(thumbnails)
    group = np.arange(count)
    seen = Links(*np.empty((2, 0), np.int64), *np.empty((2, 0), np.float32))
    first = True
    while group.max(initial=0) > 0:
        proposed = np.concatenate([_proposals(view, group, _FIRST if first else 1) for view in views], axis=1)
        first = False
        known = seen.start * count + seen.end
        keys = np.setdiff1d(proposed.min(axis=0) * count + proposed.max(axis=0), known)
        start, end = keys // count, keys % count
        seen = joined(seen, Links(start, end, *alignment.likeness(start, end)))
        group = _contracted(group, seen)
    return seen.select(_spanning(count, seen)), seen


def components(count: int, links: Links) -> np.ndarray:
    """(count,) int64 numbers, from 0, of the groups of slices that the links join."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(links), bool), (links.start, links.end)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _principal(vectors: np.ndarray) -> np.ndarray:
    """The vectors, or of many the part that their principal directions hold: products nearly the same, for less."""
    if len(vectors) <= _MANY:
        return vectors
    axes = np.linalg.eigh(vectors.T @ vectors)[1]
    return vectors @ np.ascontiguousarray(axes[:, -_KEPT:])


def _proposals(vectors: np.ndarray, group: np.ndarray, each: int) -> np.ndarray:
    """(2, K) int64: pairs of a slice and one of the slices outside its group that are most like it.

    Only for the few slices of each group whose partners are most like them.
    """
    order = np.argsort(group, kind="stable")
    vectors, group = vectors[order], group[order]
    bounds = np.searchsorted(group, np.arange(group[-1] + 2))
    partners, scores = [], []
    for at in range(0, len(vectors), _BLOCK):
        products = vectors[at : at + _BLOCK] @ vectors.T
        for own in np.unique(group[at : at + _BLOCK]):
            first, last = bounds[own], bounds[own + 1]
            products[max(first - at, 0) : last - at, first:last] = -np.inf
        for _ in range(each):
            best = products.argmax(axis=1)
            partners.append(best)
            scores.append(products[np.arange(len(best)), best])
            products[np.arange(len(best)), best] = -np.inf
    partner, score = (_by_row(parts, each) for parts in (partners, scores))
    rank = np.lexsort((-score.max(axis=1), group))
    chosen = rank[np.arange(len(rank)) - bounds[group[rank]] < _LATER]
    chosen, column = np.nonzero(np.isfinite(score) & np.isin(np.arange(len(rank)), chosen)[:, None])
    return np.stack([order[chosen], order[partner[chosen, column]]])


def _by_row(parts: list[np.ndarray], each: int) -> np.ndarray:
    """(N, each): columns that were found block by block, put beside each other."""
    return np.concatenate([np.stack(parts[at : at + each], axis=1) for at in range(0, len(parts), each)])


def _contracted(group: np.ndarray, links: Links) -> np.ndarray:
    """(N,) int64: the groups after each has joined the one it is most alike."""
    start, end = group[links.start], group[links.end]
    outward = np.flatnonzero(start != end)
    side = np.concatenate([start[outward], end[outward]])
    row = np.concatenate([outward, outward])
    order = np.lexsort((row, -links.likeness[row], side))
    best = row[order[np.unique(side[order], return_index=True)[1]]]
    chosen = Links(start[best], end[best], links.still[best], links.likeness[best])
    return components(int(group.max()) + 1, chosen)[group]


def _spanning(count: int, links: Links) -> np.ndarray:
    """(count - 1,) positions of the links of the maximum spanning tree."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    # Ranks instead of likeness: zero and ties would drop or choose links by chance.
    rank = np.empty(len(links))
    rank[np.argsort(-links.likeness, kind="stable")] = np.arange(1, len(links) + 1)
    tree = minimum_spanning_tree(coo_matrix((rank, (links.start, links.end)), shape=(count, count)).tocsr())
    place = np.empty(len(links) + 1, np.int64)
    place[rank.astype(np.int64)] = np.arange(len(links))
    return place[tree.data.astype(np.int64)]


def joined(one: Links, other: Links) -> Links:
    """The pairs of both."""
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return Links(*(np.concatenate(pair) for pair in pairs))
