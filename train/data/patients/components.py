"""Connected components and weakest links of a graph of slices."""

from __future__ import annotations

import numpy as np


def components(count: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(count,) int64 from 0: connected components of the graph with edges (start, end), (K,) int64 each."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def weakest_link(count: int, start: np.ndarray, end: np.ndarray, similarity: np.ndarray) -> float:
    """Lowest similarity in a maximum spanning forest of the pairs; NaN without pairs. similarity: (K,) float."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    if not len(start):
        return float("nan")
    # Distances from 1 to 3, because scipy treats a distance of 0 as no edge.
    graph = coo_matrix((2.0 - similarity.astype(np.float64), (start, end)), shape=(count, count))
    return float(2.0 - minimum_spanning_tree(graph.tocsr()).data.max())
