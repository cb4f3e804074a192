"""What a linear model tells of people it has not seen: the figure that a network has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np

from train.evaluation.bootstrap import LEAST_PATIENTS, RESAMPLES, draw_patients, exact_interval, interval
from train.evaluation.scores import Answers, area, stages

FOLDS, REPEATS = 5, 5
COMPONENTS = 120


def linear_baseline(
    thumbnails: np.ndarray, labels: np.ndarray, groups: np.ndarray, left_out: np.ndarray | None = None
) -> dict[str, Any] | None:
    """Demented or not, by logistic regression on each patient's mean thumbnail; JSON-ready.

    Five-fold over patients, dealt five times; principal components (120 at most) and regression are fitted without the
    patients they are asked about. The score of a patient is the mean of its five log-odds; `auc` and `accuracy` are
    of these, with 95 % intervals from resamples of patients. None with fewer than five patients on either side.

    thumbnails: (N, S, S) uint8. labels: (N,) int64. groups: (N,) int64 from 0, whose each slice is. left_out: (N,)
    bool, slices that do not count, such as augmented copies; None leaves none out.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import RepeatedStratifiedKFold
    from sklearn.pipeline import make_pipeline

    stage = stages(labels, groups)
    demented, people = stage > 0, len(stage)
    if min(demented.sum(), people - demented.sum()) < LEAST_PATIENTS:
        return None
    mean = np.stack([_mean(thumbnails, groups == group, left_out) for group in range(people)])
    odds = np.zeros(people)
    for train, test in RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(mean, demented):
        reduced = PCA(min(COMPONENTS, len(train) - 1), random_state=0)
        model = make_pipeline(reduced, LogisticRegression(max_iter=1000)).fit(mean[train], demented[train])
        odds[test] += model.decision_function(mean[test]) / REPEATS
    weights = np.concatenate([np.ones((1, people)), draw_patients(people, RESAMPLES)])
    everyone = Answers(np.empty((people, 0)), stage, np.arange(people))
    right = weights @ ((odds > 0) == demented) / people
    return {
        "patients": people,
        "auc": _figure(area(odds, demented, everyone, weights), people),
        "accuracy": _figure(right, people, share=True),
        "largest": float(max(demented.mean(), 1 - demented.mean())),
    }


def _mean(thumbnails: np.ndarray, mine: np.ndarray, left_out: np.ndarray | None) -> np.ndarray:
    """(S * S,) float64 mean of the patient's slices that count, or of all of them where none does; in [0, 1]."""
    counting = mine if left_out is None or (left_out | ~mine).all() else mine & ~left_out
    mean: np.ndarray = thumbnails[counting].mean(axis=0).ravel() / 255
    return mean


def _figure(values: np.ndarray, people: int, share: bool = False) -> dict[str, float | None]:
    """values: (1 + resamples,), the first of the data itself."""
    ends = interval(values[1:], people)
    if ends is None and share:
        ends = exact_interval(float(values[0]), people)
    low, high = ends if ends is not None else (None, None)
    return {"value": float(values[0]), "low": low, "high": high}
