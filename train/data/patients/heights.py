"""`heights`: estimates the height of each slice in the head, in units of the typical slice spacing.

Slices of different patients at the same height are similar. The graph of these similarities has one long axis, and the
second eigenvector of its random walk orders the slices along it (Belkin & Niyogi 2003). Adjacent slices of one patient
convert this order to distances; across a position without adjacent slices, distances are unknown.
"""

from __future__ import annotations

import numpy as np

from stageproof.train.data.patients.components import components
from stageproof.train.data.patients.residual import Residuals

FAR = 8.0
"""Distance, in spacings, from which heights are not compared any more: larger ones are treated as equally far."""
_SMOOTH = 1.5  # maximum median ratio of path length to range of heights over the slices of a group
_BRIDGES = 4  # minimum number of groups with adjacent slices on both sides of a position


def heights(slices: Residuals, fragments: np.ndarray) -> np.ndarray:
    """(N,) float64 heights of the slices, in spacings; unknown distances are set to more than `FAR`.

    fragments: (N,) int64 from 0, equal for slices of one patient.
    """
    along, part = _axis(slices)
    rank = np.empty(len(along), np.int64)
    rank[np.lexsort((along, part))] = np.arange(len(along))
    low, high, ways = [], [], []
    for group in in_order(fragments):
        if len(group) < 3:
            continue
        steps = np.diff(rank[ordered(group, slices)])
        ways.append(np.abs(steps).sum() / max(abs(steps.sum()), 1))
        line = np.sort(rank[group])
        low.append(line[:-1])
        high.append(line[1:])
    if not ways or np.median(ways) > _SMOOTH:
        return np.arange(len(along)) * 2 * FAR
    start, end = np.concatenate(low), np.concatenate(high)
    count, rate = np.zeros((2, len(along) + 1))
    for sums, one in ((count, np.ones(len(start))), (rate, 1 / (end - start))):
        np.add.at(sums, start, one)
        np.add.at(sums, end, -one)
    count, rate = np.cumsum(count)[:-2], np.cumsum(rate)[:-2]  # between rank r and r + 1
    steps = np.where(count > _BRIDGES - 0.5, rate / np.maximum(count, 1), 2 * FAR)
    return np.r_[0, np.cumsum(steps)][rank]


def in_order(groups: np.ndarray) -> list[np.ndarray]:
    """The indices of the members of each group. groups: (N,) int64 from 0."""
    return np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])


def ordered(members: np.ndarray, slices: Residuals) -> np.ndarray:
    """The members of a group, ordered by height with the Fiedler vector of their residual correlations."""
    if len(members) < 3:
        return members
    near = np.clip(slices.left[members] @ slices.left[members].T, 0, 1) ** 2
    np.fill_diagonal(near, 0)
    return members[np.argsort(np.linalg.eigh(np.diag(near.sum(axis=1)) - near)[1][:, 1], kind="stable")]


def gaps(line: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(G, G) float32, minimum distance in height between slices of two groups; 0 on and below the diagonal."""
    members = [np.sort(line[group]) for group in in_order(groups)]
    every, starts = np.concatenate(members), np.cumsum([0, *map(len, members)])[:-1]
    found = np.empty((len(members), len(members)), np.float32)
    for g, own in enumerate(members):
        at = np.searchsorted(own, every)
        below, above = own[np.maximum(at - 1, 0)], own[np.minimum(at, len(own) - 1)]
        found[g] = np.minimum.reduceat(np.minimum(np.abs(every - below), np.abs(every - above)), starts)
    return np.triu(found, 1)


def _axis(slices: Residuals) -> tuple[np.ndarray, np.ndarray]:
    """(N,) positions of the slices along the long axis of their connected component; (N,) int64 components."""
    from scipy.sparse import coo_matrix, csr_matrix, diags
    from scipy.sparse.linalg import eigsh

    count, width = slices.near.shape
    pairs = np.repeat(np.arange(count), width), slices.near.ravel()
    part = components(count, *pairs)
    graph = csr_matrix(coo_matrix((np.ones(len(pairs[0])), pairs), shape=(count, count)))
    graph = graph.maximum(graph.T)
    along = np.zeros(count)
    for one in range(int(part.max()) + 1):
        own = np.flatnonzero(part == one)
        if len(own) < 16:
            continue
        inner = graph[own][:, own]
        root = np.sqrt(np.asarray(inner.sum(axis=1)).ravel())
        walk = diags(1 / root) @ inner @ diags(1 / root)
        values, vectors = eigsh(walk, k=2, which="LA", v0=root)
        along[own] = vectors[:, np.argsort(values)[0]] / root
    return along, part
