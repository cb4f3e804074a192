"""`linear_baseline`: cross-validated logistic regression on thumbnails, the baseline for a network."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.runtime.labels import LabelSet
from stageproof.train.metrics.classification import area, stages
from stageproof.train.metrics.cross_validation import DECIDED, DEPENDENCE, fold_figures, mean_of_folds
from stageproof.train.metrics.intervals import LEAST_PATIENTS

FOLDS, REPEATS = 5, 5
COMPONENTS = 120


def linear_baseline(
    thumbnails: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: LabelSet,
    left_out: np.ndarray | None = None,
) -> dict[str, Any] | None:
    """Performance of logistic regression (positive or negative class) on the mean thumbnail of each patient.

    JSON-serialisable; None with fewer than 5 positive or negative patients.

    5 × 5-fold cross-validation over patients; principal components (at most 120) and regression are fitted on the
    training patients of each fold. `auc` and `accuracy` are means over the 25 folds, with 95 % intervals that include
    the variance of the training (`train.metrics.cross_validation`).

    thumbnails: (N, S, S) uint8. labels: (N,) int64, indices in `classes.names`. groups: (N,)
    int64 from 0, the patient of each slice. left_out: (N,) bool, slices to ignore, such as augmented copies; None: use
    all.
    """
    positive = classes.is_positive[stages(labels, groups)]
    people = len(positive)
    if min(positive.sum(), people - positive.sum()) < LEAST_PATIENTS:
        return None
    mean = np.stack([_mean(thumbnails, groups == group, left_out) for group in range(people)])
    return cross_validated(mean, positive)


def cross_validated(features: np.ndarray, positive: np.ndarray) -> dict[str, Any]:
    """`linear_baseline` for given features. features: (P, D) float. positive: (P,) bool, with both."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import RepeatedStratifiedKFold
    from sklearn.pipeline import make_pipeline

    people = len(positive)
    found: list[dict[str, tuple[float, float]]] = []
    splits = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0)
    for train, test in splits.split(features, positive):
        reduced = PCA(min(COMPONENTS, len(train) - 1, features.shape[1]), random_state=0)
        model = make_pipeline(reduced, LogisticRegression(max_iter=1000)).fit(features[train], positive[train])
        found.append(_fold(model.decision_function(features[test]), positive[test]))
    figures = {}
    for name, dependence in (("auc", DEPENDENCE), ("accuracy", DECIDED)):
        values, variances = zip(*(one[name] for one in found), strict=True)
        figures[name] = mean_of_folds(values, variances, people, repeats=REPEATS, dependence=dependence)
    return {
        "patients": people,
        **figures,
        "largest": float(max(positive.mean(), 1 - positive.mean())),
    }


def _fold(odds: np.ndarray, positive: np.ndarray) -> dict[str, tuple[float, float]]:
    """AUC and accuracy of one fold, each with its variance over patients."""
    count = len(positive)
    right = (odds > 0) == positive

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"auc": area(odds, positive, np.arange(count), weights), "accuracy": weights @ right / weights.sum(1)}

    return fold_figures(scores, ("auc", "accuracy"), count)


def _mean(thumbnails: np.ndarray, mine: np.ndarray, left_out: np.ndarray | None) -> np.ndarray:
    """(S * S,) float64 in [0, 1], mean of the slices of a patient without `left_out`; of all if all are left out."""
    counting = mine if left_out is None or (left_out | ~mine).all() else mine & ~left_out
    return thumbnails[counting].mean(axis=0).ravel() / 255
