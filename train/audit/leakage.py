"""How much of a slice-wise score is memory: measured without any learning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stageproof.train.data.leak_bound import TEST_SHARE
from stageproof.train.data.patients.thumbnails import COARSE, directions


@dataclass(frozen=True)
class NearestNeighbour:
    """Accuracy of answering with the label of the most alike other slice, in [0, 1]."""

    any_slice: float
    """The neighbour may be a slice of the same patient, as under a slice-wise split."""
    other_patients: float
    """The neighbour must be of another patient, as under a patient-wise split."""


def nearest_neighbour(
    thumbnails: np.ndarray, labels: np.ndarray, groups: np.ndarray, block: int = 256
) -> NearestNeighbour:
    """Leave-one-out nearest neighbour by correlation of 32 × 32 thumbnails.

    thumbnails: (N, S, S) uint8. labels, groups: (N,) int64, at least two different groups. Memory is block × N.
    """
    vectors = directions(thumbnails, COARSE)
    right_any = right_other = 0
    for start in range(0, len(vectors), block):
        rows = slice(start, start + block)
        likeness = vectors[rows] @ vectors.T
        likeness[np.arange(len(likeness)), np.arange(start, start + len(likeness))] = -np.inf
        right_any += int((labels[likeness.argmax(1)] == labels[rows]).sum())
        likeness[groups[rows, None] == groups] = -np.inf
        right_other += int((labels[likeness.argmax(1)] == labels[rows]).sum())
    return NearestNeighbour(right_any / len(labels), right_other / len(labels))


def shared_patients(groups: np.ndarray, share: float = TEST_SHARE, seed: int = 0) -> float:
    """Share of test slices whose patient also has a training slice, when `share` of the slices are drawn at random."""
    test = np.random.default_rng(seed).permutation(len(groups))[: max(1, round(share * len(groups)))]
    training = np.delete(groups, test)
    return float(np.isin(groups[test], training).mean())
