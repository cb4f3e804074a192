"""Cross-validations of cheap learners, and how often the intervals of their report hold the truth.

python -m tests.train.crossvalidation_simulation [runs]  # prints the tables of docs/statistics/crossvalidation.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from stageproof.runtime.labels import FOUR_STAGES
from stageproof.runtime.softmax import probabilities
from stageproof.train.audit.linear_baseline import cross_validated
from stageproof.train.calibration.study_fit import cross_fit_study, folds, study_evidence
from stageproof.train.crossvalidate.pooling import Folds, figures
from stageproof.train.metrics.classification import Answers
from stageproof.train.reports.formatting import pick

PEOPLE, SLICES, FOLDS = 160, 2, 5
Learner = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Training features, training labels ((N,) 1 or -1), test features → test scores."""


def ridge(features: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Linear, with a penalty of a tenth of the slices."""
    penalty = len(labels) / 10 * np.eye(features.shape[1])
    found: np.ndarray = new @ np.linalg.solve(features.T @ features + penalty, features.T @ labels)
    return found


def neighbours(features: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Labels of the training slices, weighted by their distance: a learner that remembers."""
    squares = (new**2).sum(1)[:, None] + (features**2).sum(1) - 2 * new @ features.T
    weights = np.exp(-(squares - squares.min(1, keepdims=True)) / features.shape[1])
    found: np.ndarray = weights @ labels / weights.sum(1)
    return found


def guess(features: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Learns nothing: the first feature, whatever the labels."""
    return new[:, 0]


def people(rng: np.random.Generator, features: int, signal: float) -> tuple[np.ndarray, np.ndarray]:
    """(people × slices, features) and (people,) stages, half of them 1; slices share half of their variance.

    signal: distance of the means, in standard deviations of a slice.
    """
    stage = np.arange(PEOPLE) % 2
    common, own = rng.normal(size=(PEOPLE, 1, features)), rng.normal(size=(PEOPLE, SLICES, features))
    found = (common + own) / np.sqrt(2)
    found[:, :, 0] += signal * (stage[:, None] - 0.5)
    return found.reshape(-1, features), stage


def crossed(
    rng: np.random.Generator,
    learner: Learner,
    features: int,
    signal: float = 0.0,
    *,
    shift: float = 0.0,
    rule: bool = False,
) -> Folds:
    """One cross-validation. shift: of the scores between folds, in standard deviations. rule: for studies."""
    found, stage = people(rng, features, signal)
    owner = np.repeat(np.arange(PEOPLE), SLICES)
    part = folds(stage, int(rng.integers(1 << 31)), FOLDS)
    scores = np.empty(len(owner))
    for one in range(FOLDS):
        test = part[owner] == one
        fitted = learner(found[~test], 2.0 * stage[owner][~test] - 1, found[test])
        scores[test] = fitted / max(float(fitted.std()), 1e-12) + shift * rng.normal()
    logits = np.zeros((len(owner), 4))
    logits[:, 1], logits[:, 2:] = scores, -50
    chances = probabilities(logits)
    studies = np.empty((PEOPLE, 4)) if rule else None
    for one in range(FOLDS if rule else 0):
        mine = np.flatnonzero(part == one)
        rows = np.flatnonzero(np.isin(owner, mine))
        evidence = study_evidence(chances[rows], np.searchsorted(mine, owner[rows]))
        rows_of_rule = cross_fit_study(evidence, stage[mine])
        assert studies is not None
        assert rows_of_rule is not None
        studies[mine] = rows_of_rule
    return Folds(Answers(chances, stage[owner], owner, FOUR_STAGES), part[owner], "patients", studies)


NAMES = ("positive.auc", "accuracy", "balanced_accuracy")
COLUMNS = tuple(
    (level, kind, name) for level in ("slices", "patients") for kind in ("mean", "pooled") for name in NAMES
)


def simulated(runs: int, learner: Learner, features: int, **options: float) -> np.ndarray:
    """(runs, columns, 3): value, low, high of each of `COLUMNS`, through `train.crossvalidate.pooling.figures`."""
    found = np.empty((runs, len(COLUMNS), 3))
    for run in range(runs):
        facts = figures(crossed(np.random.default_rng((7, run)), learner, features, **options))  # type: ignore[arg-type]
        for at, (level, kind, name) in enumerate(COLUMNS):
            one = facts["over_folds"][level][name] if kind == "mean" else pick(facts[level], name)
            ends = (one["mean"] if kind == "mean" else one["value"], one["low"], one["high"])
            found[run, at] = [np.nan if end is None else end for end in ends]
    return found


def baselines(runs: int, features: int, signal: float = 0.0) -> np.ndarray:
    """(runs, 2, 3): the same of AUC and accuracy of the audit's linear baseline."""
    found = np.empty((runs, 2, 3))
    for run in range(runs):
        seen, stage = people(np.random.default_rng((11, run)), features, signal)
        facts = cross_validated(seen.reshape(PEOPLE, SLICES, -1).mean(1), stage > 0)
        for at, name in enumerate(("auc", "accuracy")):
            found[run, at] = [facts[name][end] for end in ("value", "low", "high")]
    return found


def held(found: np.ndarray, truth: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of runs whose interval holds the truth, lies above it, below it. found: (runs, columns, 3)."""
    low, high = found[:, :, 1], found[:, :, 2]
    covered, above, below = (low <= truth) & (truth <= high), low > truth, high < truth
    return covered.mean(0), above.mean(0), below.mean(0)


SIGNAL = 0.9539
"""Distance of the means at which the first feature has an AUC of .75."""
CASES: tuple[tuple[str, Learner, int, dict[str, float]], ...] = (
    ("no signal, ridge, 8 features", ridge, 8, {}),
    ("no signal, ridge, 64 features", ridge, 64, {}),
    ("no signal, ridge, 400 features", ridge, 400, {}),
    ("no signal, neighbours, 16 features", neighbours, 16, {}),
    ("no signal, learns nothing", guess, 8, {}),
    ("no signal, ridge, 64 features, rule for studies", ridge, 64, {"rule": True}),
    ("signal, ridge, 64 features", ridge, 64, {"signal": 1.3}),
    ("signal, ridge, 8 features", ridge, 8, {"signal": 2.4}),
    ("AUC .75 of slices, shift of 1 SD between folds", guess, 4, {"signal": SIGNAL, "shift": 1.0}),
)


def main() -> None:
    """Print a row for each case and figure."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    some = sys.argv[2:]
    for at, (title, learner, features, options) in enumerate(CASES):
        if some and str(at) not in some:
            continue
        found = simulated(runs, learner, features, **options)
        truth = found[:, :, 0].mean(0) if "signal" in options else np.full(len(COLUMNS), 0.5)
        covered, above, below = held(found, truth)
        for column, (level, kind, name) in enumerate(COLUMNS):
            shares = " | ".join(f"{100 * one[column]:.1f}" for one in (covered, above, below))
            sd = found[:, column, 0].std()
            mean = found[:, column, 0].mean()
            print(f"| {title} | {level} | {kind} {name} | {mean:.3f} | {sd:.3f} | {shares} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
