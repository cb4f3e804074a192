"""Compares slices of patients after subtracting a baseline, the mean of other patients at the same height.

The correlation of two slices is dominated by anatomy common to all patients. The baseline is the mean of the most
similar slices of other patients; the residual is specific to the patient. On the public slices, on phantoms and on
subsets of both, residuals of two patients correlate at up to 0.71 among eight patients, and at up to 0.61 among twelve
or more; residuals of neighbouring slices of one patient correlate at more than 0.85.
"""

from __future__ import annotations

import numpy as np

from stageproof.train.data.patients.thumbnails import COARSE, directions

SAME_PATIENT = 0.75
"""Minimum correlation of residuals of two slices of one patient."""
NEAR_DUPLICATE = 0.999
"""Minimum correlation of near-duplicates (slices that differ only in compression)."""
BASELINE = 40
"""Number of slices in the baseline."""
NEAR = 24
"""Number of most similar slices that the baseline excludes without ids, since they may show the same patient."""
FEWEST_SLICES = 200
"""Minimum number of slices to estimate the baseline without ids."""
_ACROSS = 8
_MANY, _KEPT, _BLOCK = 8192, 256, 256


def most_similar(
    vectors: np.ndarray, wanted: list[tuple[int, np.ndarray | None, bool]]
) -> tuple[list[np.ndarray], np.ndarray]:
    """For each of `wanted`, (N, most) int64 indices of the most similar other slices, in descending order, -1 if there
    are fewer; and (N,) int64 indices of the most similar slice of all.

    vectors: (N, D) float32 of unit norm. wanted: (most, groups, same): with `groups` ((N,) int64), only slices of the
    same group (same) or only those of other groups; None: all. The memory needed is a block of rows × N.
    """
    searched, count = _principal(vectors), len(vectors)
    found = [np.full((count, min(most, count - 1)), -1, np.int64) for most, _, _ in wanted]
    nearest = np.full(count, -1, np.int64)
    for at in range(0, count, _BLOCK):
        rows = slice(at, min(at + _BLOCK, count))
        products = searched[rows] @ searched.T
        products[np.arange(len(products)), np.arange(at, at + len(products))] = -np.inf
        nearest[rows] = products.argmax(1)
        for result, (_, groups, same) in zip(found, wanted, strict=True):
            shown = products
            if groups is not None:
                mine = groups[rows, None] == groups
                shown = np.where(mine if same else ~mine, products, -np.inf)
            result[rows] = _ranked(shown, result.shape[1])
    return found, nearest


def _ranked(products: np.ndarray, most: int) -> np.ndarray:
    """(B, most) int64 columns of the largest products of each row, in descending order; -1 for products of -inf."""
    if most < products.shape[1]:
        columns = np.argpartition(-products, most - 1, axis=1)[:, :most]
    else:
        columns = np.broadcast_to(np.arange(products.shape[1]), products.shape)
    values = np.take_along_axis(products, columns, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = np.take_along_axis(columns, order, 1)
    return np.where(np.isfinite(np.take_along_axis(values, order, 1)), ranked, -1)


def _principal(vectors: np.ndarray) -> np.ndarray:
    """The vectors; if there are many, projected on their principal directions, with nearly the same products."""
    if len(vectors) <= _MANY:
        return vectors
    axes = np.linalg.eigh(vectors.T @ vectors)[1]
    return vectors @ np.ascontiguousarray(axes[:, -_KEPT:])


def without_baseline(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, D) float32 of unit norm: residuals after subtracting the mean of the slices `others`.

    vectors: (N, D) float32 of unit norm. others: (N, K) int64 indices, -1 for none; all -1: nothing is subtracted.
    """
    left = np.empty_like(vectors)
    for at in range(0, len(vectors), _BLOCK):
        rows = slice(at, at + _BLOCK)
        there = (others[rows] >= 0)[:, :, None]
        total = np.where(there, vectors[others[rows]], 0).sum(axis=1)
        left[rows] = vectors[rows] - total / np.maximum(there.sum(axis=1), 1)
    left /= np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-6)
    return left


def correlations(vectors: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """(N, K) float32: product of each row with each of its partners ((N, K) int64 indices; -1 for a partner of -1)."""
    found = np.empty(partners.shape, np.float32)
    for at in range(0, len(vectors), _BLOCK):
        rows = slice(at, at + _BLOCK)
        found[rows] = np.einsum("nd,nkd->nk", vectors[rows], vectors[partners[rows]])
    return np.where(partners >= 0, found, -1)


def shows_patient_of(thumbnails: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) bool: slices that show a patient of the other slices, or are near-duplicates of one.

    thumbnails, others: (N, S, S) and (M, S, S) uint8, S a multiple of 32. With fewer than `FEWEST_SLICES` in total,
    only near-duplicates are found.
    """
    vectors = directions(np.concatenate([thumbnails, others]), COARSE)
    mine = np.arange(len(vectors)) < len(thumbnails)
    (near, across), _ = most_similar(vectors, [(NEAR + BASELINE, None, True), (_ACROSS, mine.astype(np.int64), False)])
    found = correlations(vectors, across) >= NEAR_DUPLICATE
    if len(vectors) >= FEWEST_SLICES:
        found |= correlations(without_baseline(vectors, near[:, NEAR:]), across) >= SAME_PATIENT
    shown = np.asarray(found.any(1))
    # Also in the other direction: the eight most similar slices may all show other patients at this height.
    reached = across[len(thumbnails) :][found[len(thumbnails) :]]
    shown[reached] = True
    return shown[: len(thumbnails)]
