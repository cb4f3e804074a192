"""Groups of slices that pairs join."""

from __future__ import annotations

import numpy as np


def components(count: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(count,) int64 numbers, from 0, of the groups that the pairs (start, end), (K,) int64 each, join."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def weakest_link(count: int, start: np.ndarray, end: np.ndarray, similarity: np.ndarray) -> float:
    """Lowest similarity that a maximum spanning forest of the pairs needs; NaN without pairs. similarity: (K,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    if not len(start):
        return float("nan")
    # Distances of 1 to 3: a distance of 0 would be no link.
    graph = coo_matrix((2.0 - similarity.astype(np.float64), (start, end)), shape=(count, count))
    return float(2.0 - minimum_spanning_tree(graph.tocsr()).data.max())
