"""Leakage of a split by slice, measured without training: nearest-neighbour accuracy and shared patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stageproof.train.data.leak_bound import TEST_SHARE
from stageproof.train.data.patients.thumbnails import COARSE, directions


@dataclass(frozen=True)
class NearestNeighbour:
    """Accuracy of predicting the label of the most similar other slice, in [0, 1]."""

    any_slice: float
    """The neighbour may show the same patient, as with a split by slice."""
    other_patients: float
    """The neighbour must show another patient, as with a split by patient."""


def nearest_neighbour(
    thumbnails: np.ndarray, labels: np.ndarray, groups: np.ndarray, block: int = 256
) -> NearestNeighbour:
    """Accuracy of the leave-one-out nearest neighbour by correlation of 32 × 32 thumbnails.

    thumbnails: (N, S, S) uint8. labels, groups: (N,) int64, at least two different groups. block: rows at a time; the
    memory needed is block × N floats.
    """
    vectors = directions(thumbnails, COARSE)
    right_any = right_other = 0
    for start in range(0, len(vectors), block):
        rows = slice(start, start + block)
        similarity = vectors[rows] @ vectors.T
        similarity[np.arange(len(similarity)), np.arange(start, start + len(similarity))] = -np.inf
        right_any += int((labels[similarity.argmax(1)] == labels[rows]).sum())
        similarity[groups[rows, None] == groups] = -np.inf
        right_other += int((labels[similarity.argmax(1)] == labels[rows]).sum())
    return NearestNeighbour(right_any / len(labels), right_other / len(labels))


def shared_patients(groups: np.ndarray, share: float = TEST_SHARE, seed: int = 0) -> float:
    """Share of test slices whose patient also has training slices, if the test set is a random `share` of slices."""
    test = np.random.default_rng(seed).permutation(len(groups))[: max(1, round(share * len(groups)))]
    training = np.delete(groups, test)
    return float(np.isin(groups[test], training).mean())
