"""`residuals`: residual similarity of slices, after subtracting the mean of other patients at the same height.

Most of the correlation of two slices comes from anatomy common to all patients. It is estimated by the mean of the most
similar slices of other patients. The residual is specific to the patient, and correlates only between slices of one
patient that are at most a few slices apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK, _PRODUCTS = 512, 512 * 20_000  # maximum number of rows, and of products, in a block: bounds the memory
_OWN = 6  # nearest slices excluded, as those of the same patient
_MOST, _LEAST = 60, 8  # maximum and minimum number of slices in the mean


@dataclass(frozen=True)
class Residuals:
    """Directions of N slices, before and after subtracting the mean of their neighbours."""

    raw: np.ndarray
    """(N, D) float32, zero mean and unit norm."""
    means: np.ndarray
    """(N, D) float32, mean of the neighbours of each slice."""
    left: np.ndarray
    """(N, D) float32, residuals: `raw` minus `means`, scaled to unit norm."""
    near: np.ndarray
    """(N, K) int32, indices of these neighbours, mostly of other patients."""
    typical: np.ndarray
    """(N,) float32, mean correlation of each slice with these neighbours: low for an atypical slice."""
    centre: float
    """Median residual correlation of slices at similar height."""
    spread: float
    """Robust standard deviation of residual correlations between slices of different patients."""


def products(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (rows of the block, (block, N) float32 products) of rows @ columns.T.

    rows: (K, D) float32. columns: (N, D) float32.
    """
    block = _rows_in_block(len(columns))
    for start in range(0, len(rows), block):
        at = slice(start, min(start + block, len(rows)))
        yield at, rows[at] @ columns.T


def _rows_in_block(columns: int) -> int:
    return max(1, min(_BLOCK, _PRODUCTS // max(columns, 1)))


def unit(vectors: np.ndarray) -> np.ndarray:
    """The rows scaled to unit norm; zero rows do not change."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def residuals(raw: np.ndarray) -> Residuals:
    """Residuals of (N, D) float32 directions, N at least 16.

    The mean is over up to 60 slices, fewer in a small set (about two for each patient with 32 slices), excluding the 6
    nearest, which are mostly of the same patient.
    """
    from scipy.sparse import csr_matrix

    count = len(raw)
    taken = int(np.clip(count // 16, _LEAST, _MOST))
    near = np.empty((count, min(_OWN + taken, count - 1)), np.int64)
    typical = np.empty(count, np.float32)
    means = np.empty_like(raw)
    for at, similarity in products(raw, raw):
        similarity[np.arange(len(similarity)), np.arange(at.start, at.stop)] = -2
        found = np.argpartition(-similarity, near.shape[1] - 1, axis=1)[:, : near.shape[1]]
        values = np.take_along_axis(similarity, found, 1)
        near[at] = np.take_along_axis(found, np.argsort(-values, axis=1, kind="stable"), 1)
        others = near[at][:, _OWN:]
        typical[at] = np.take_along_axis(similarity, others, 1).mean(axis=1)
        ends = np.arange(0, others.size + 1, others.shape[1])
        weights = np.full(others.size, 1 / others.shape[1], np.float32)
        means[at] = csr_matrix((weights, others.ravel(), ends), shape=similarity.shape) @ raw
    left = unit(raw - means)
    sample = _among_others(raw, left)
    low, centre, high = np.quantile(sample, (0.1587, 0.5, 0.8413))
    # Slices of the same patient are in one tail only, so the spread is taken from the narrower side.
    spread = max(float(min(centre - low, high - centre)), 1e-3)
    return Residuals(raw, means, left, near[:, _OWN:].astype(np.int32), typical, float(centre), spread)


def _among_others(raw: np.ndarray, left: np.ndarray) -> np.ndarray:
    """(K,) float32 residual correlations of some slices with the nearest third of the others, excluding the nearest 10;
    mostly between different patients. raw, left: (N, D) float32."""
    rows = np.arange(0, len(raw), max(len(raw) // 1000, 1))
    mine = np.ascontiguousarray(left[rows])
    found = []
    for at, similarity in products(np.ascontiguousarray(raw[rows]), raw):
        order = np.argsort(-similarity, axis=1)[:, 11 : max(len(raw) // 3, 14)]
        found.append(np.take_along_axis(mine[at] @ left.T, order, 1).ravel())
    return np.concatenate(found)


def close_pairs(vectors: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K,) int64, int64 and float32: indices first < second of pairs with a product above `level`, and the products.

    vectors: (N, D) float32.
    """
    first, second, values = [], [], []
    block = _rows_in_block(len(vectors))
    for start in range(0, len(vectors), block):
        similarity = vectors[start : start + block] @ vectors[start:].T
        row, column = np.nonzero(similarity > level)
        keep = row < column
        row, column = row[keep], column[keep]
        first.append(row + start)
        second.append(column + start)
        values.append(similarity[row, column])
    return np.concatenate(first), np.concatenate(second), np.concatenate(values)
