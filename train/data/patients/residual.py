"""Residual similarity: what two slices share beyond what all heads share at their height.

Most of the correlation of two slices is anatomy that everybody has. The mean of a slice's neighbours in other heads
estimates it; what is left after it is subtracted is the person's own, and correlates only within a person, up to a
few slices away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK = 512  # rows whose products with all others are held at once
_OWN, _MOST, _LEAST = 6, 60, 8  # nearest slices left out as the person's own; how many of the next make the mean


@dataclass(frozen=True)
class Residuals:
    """N slices as directions, before and after the mean of their neighbours is subtracted."""

    raw: np.ndarray
    """(N, D) float32, mean-free, unit norm."""
    means: np.ndarray
    """(N, D) float32, mean of the neighbours of each slice."""
    left: np.ndarray
    """(N, D) float32, `raw` less `means`, unit norm."""
    near: np.ndarray
    """(N, K) int32, the slices whose mean that is: mostly other people's."""
    typical: np.ndarray
    """(N,) float32, mean correlation of each slice with these neighbours: low for a slice unlike all others."""
    centre: float
    """Median residual correlation of slices at similar height."""
    spread: float
    """Standard deviation of it among slices of different people."""


def products(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows @ columns.T: (K, D) and (N, D) float32 give slices of K and (block, N) float32."""
    for start in range(0, len(rows), _BLOCK):
        at = slice(start, min(start + _BLOCK, len(rows)))
        yield at, rows[at] @ columns.T


def unit(vectors: np.ndarray) -> np.ndarray:
    """The rows at unit norm; a row of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def residuals(raw: np.ndarray) -> Residuals:
    """Residuals of (N, D) float32 directions, N of 16 or more.

    The mean is over up to 60 slices, fewer in a small set (about two a head at 32 slices a head), after the 6 nearest,
    which are mostly the person's own.
    """
    from scipy.sparse import csr_matrix

    count = len(raw)
    taken = int(np.clip(count // 16, _LEAST, _MOST))
    near = np.empty((count, min(_OWN + taken, count - 1)), np.int64)
    typical = np.empty(count, np.float32)
    means = np.empty_like(raw)
    for at, likeness in products(raw, raw):
        likeness[np.arange(len(likeness)), np.arange(at.start, at.stop)] = -2
        found = np.argpartition(-likeness, near.shape[1] - 1, axis=1)[:, : near.shape[1]]
        values = np.take_along_axis(likeness, found, 1)
        near[at] = np.take_along_axis(found, np.argsort(-values, axis=1, kind="stable"), 1)
        others = near[at][:, _OWN:]
        typical[at] = np.take_along_axis(likeness, others, 1).mean(axis=1)
        ends = np.arange(0, others.size + 1, others.shape[1])
        weights = np.full(others.size, 1 / others.shape[1], np.float32)
        means[at] = csr_matrix((weights, others.ravel(), ends), shape=likeness.shape) @ raw
    left = unit(raw - means)
    sample = _among_others(raw, left)
    low, centre, high = np.quantile(sample, (0.1587, 0.5, 0.8413))
    # A person's own slices further away lie at one end; the other end is other people's alone.
    spread = max(float(min(centre - low, high - centre)), 1e-3)
    return Residuals(raw, means, left, near[:, _OWN:].astype(np.int32), typical, float(centre), spread)


def _among_others(raw: np.ndarray, left: np.ndarray) -> np.ndarray:
    """(K,) float32 residual correlations of some slices with the nearest third of the others, but for the nearest 10:
    mostly other people's. raw, left: (N, D) float32."""
    rows = np.arange(0, len(raw), max(len(raw) // 1000, 1))
    mine = np.ascontiguousarray(left[rows])
    found = []
    for at, likeness in products(np.ascontiguousarray(raw[rows]), raw):
        order = np.argsort(-likeness, axis=1)[:, 11 : max(len(raw) // 3, 14)]
        found.append(np.take_along_axis(mine[at] @ left.T, order, 1).ravel())
    return np.concatenate(found)


def close_pairs(vectors: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K,) int64, int64 and float32: pairs, the first before the second, with products above `level`, and the products.

    vectors: (N, D) float32.
    """
    first, second, values = [], [], []
    for start in range(0, len(vectors), _BLOCK):
        likeness = vectors[start : start + _BLOCK] @ vectors[start:].T
        row, column = np.nonzero(likeness > level)
        keep = row < column
        row, column = row[keep], column[keep]
        first.append(row + start)
        second.append(column + start)
        values.append(likeness[row, column])
    return np.concatenate(first), np.concatenate(second), np.concatenate(values)
