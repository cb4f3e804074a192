"""Training and test slices of a predefined split."""

from __future__ import annotations

import numpy as np


def in_training(part: np.ndarray) -> np.ndarray:
    """(N,) bool: the training slices of a predefined split, whose part is named train, training, ….

    part: (N,) str, from `train.data.sources.source.load_parts`.
    """
    return np.array([name.lower().startswith("train") for name in part], bool)
