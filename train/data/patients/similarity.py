"""How similar two heads are once what all heads share at one height is taken away.

The correlation of two slices is mostly that of any two heads cut at the same height. The mean of the most similar
slices of other people shows what is shared; what is left of a slice after that mean is its own head. On the public
slices, on phantoms and on parts of both, what is left correlates up to 0.71 between two people where eight people are
compared, and up to 0.61 where twelve or more are; neighbouring slices of one head stay above 0.85.
"""

from __future__ import annotations

import numpy as np

from stageproof.train.data.patients.thumbnails import COARSE, directions

SAME_HEAD = 0.75
"""Correlation of what is left from which two slices are of one head."""
SAME_PICTURE = 0.999
"""Correlation of two slices that differ by no more than another compression makes them differ."""
BASELINE = 40
"""Slices whose mean shows what heads share at one height."""
NEAR = 24
"""Most similar slices that may show the same head, where there are no ids: no baseline is made of them."""
FEWEST_SLICES = 200
"""Slices from which on what heads share at one height can be seen without ids."""
_ACROSS = 8
_MANY, _KEPT, _BLOCK = 8192, 256, 256


def most_similar(
    vectors: np.ndarray, wanted: list[tuple[int, np.ndarray | None, bool]]
) -> tuple[list[np.ndarray], np.ndarray]:
    """For each of `wanted`, (N, most) int64: the most similar other slices, the most similar first, -1 where there are
    fewer; and (N,) int64, the one most similar of all.

    vectors: (N, D) float32 of unit norm. wanted: (most, groups, same): of groups ((N,) int64) only slices of the same
    one, or only those of others; None for groups takes all. Memory is a block of rows × N.
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
    """(B, most) int64 columns of the largest products of each row, the largest first; -1 for those that are -inf."""
    if most < products.shape[1]:
        columns = np.argpartition(-products, most - 1, axis=1)[:, :most]
    else:
        columns = np.broadcast_to(np.arange(products.shape[1]), products.shape)
    values = np.take_along_axis(products, columns, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = np.take_along_axis(columns, order, 1)
    return np.where(np.isfinite(np.take_along_axis(values, order, 1)), ranked, -1)


def _principal(vectors: np.ndarray) -> np.ndarray:
    """The vectors, or of many the part that their principal directions hold: products nearly the same, for less."""
    if len(vectors) <= _MANY:
        return vectors
    axes = np.linalg.eigh(vectors.T @ vectors)[1]
    return vectors @ np.ascontiguousarray(axes[:, -_KEPT:])


def own_head(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, D) float32 of unit norm: what is left of each slice after the mean of the slices `others`.

    vectors: (N, D) float32 of unit norm. others: (N, K) int64 positions, -1 for none; a slice without any stays whole.
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
    """(N, K) float32: products of each row with its partners ((N, K) int64, -1 gives -1)."""
    found = np.empty(partners.shape, np.float32)
    for at in range(0, len(vectors), _BLOCK):
        rows = slice(at, at + _BLOCK)
        found[rows] = np.einsum("nd,nkd->nk", vectors[rows], vectors[partners[rows]])
    return np.where(partners >= 0, found, -1)


def coarse(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 1024) float32 directions of 32 × 32 thumbnails. thumbnails: (N, S, S) uint8, S a multiple of 32."""
    return directions(thumbnails, COARSE)


def shows_head_of(thumbnails: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) bool: which slices show the head of one of the other slices, or are the same picture as one.

    thumbnails, others: (N, S, S) and (M, S, S) uint8, S a multiple of 32. Of fewer than `FEWEST_SLICES` together, only
    the same picture is found.
    """
    vectors = coarse(np.concatenate([thumbnails, others]))
    mine = np.arange(len(vectors)) < len(thumbnails)
    (near, across), _ = most_similar(vectors, [(NEAR + BASELINE, None, True), (_ACROSS, mine.astype(np.int64), False)])
    found = correlations(vectors, across) >= SAME_PICTURE
    if len(vectors) >= FEWEST_SLICES:
        found |= correlations(own_head(vectors, near[:, NEAR:]), across) >= SAME_HEAD
    shown = np.asarray(found.any(1))
    # The other way round too: the eight most similar of a slice may all be of other people at its height.
    reached = across[len(thumbnails) :][found[len(thumbnails) :]]
    shown[reached] = True
    return shown[: len(thumbnails)]
