"""Answers whose true figures are known, and how often the intervals of `Summary` hold them.

python -m tests.train.interval_simulation [runs [ICCs]]  # prints the table of docs/statistics/intervals.md
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stageproof.runtime.labels import FOUR_STAGES
from stageproof.runtime.softmax import probabilities
from stageproof.train.metrics.classification import Answers, decision_scores, ranking_scores
from stageproof.train.metrics.with_intervals import Summary
from stageproof.train.reports.formatting import pick

SLICES = 4
TARGETS = (
    *(("positive.auc", target) for target in (0.75, 0.985, 0.997)),
    *(("accuracy", target) for target in (0.5, 0.88, 0.95)),
)
PATHS = {
    "positive.auc": {"positive.auc": "positive.auc"},
    "accuracy": {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced_accuracy",
        "kappa": "kappa",
        "macro.f1": "macro_f1",
        "classes.MildDemented.f1": "classes.MildDemented.f1",
        "classes.MildDemented.recall": "classes.MildDemented.recall",
    },
}
"""By what is set: path of the figure in `Summary.decisions`, and its name in the scores."""


def simulate(rng: np.random.Generator, people: tuple[int, ...], skill: float, alike: float) -> Answers:
    """Four slices of each of so many people of each class.

    The evidence for each class is normal; `alike` is the share of its variance that slices of a person have in common.
    """
    stage = np.repeat(np.arange(len(people)), people)
    patients = np.repeat(np.arange(len(stage)), SLICES)
    common, own = rng.normal(size=(len(stage), 4)), rng.normal(size=(len(patients), 4))
    logits = np.sqrt(alike) * common[patients] + np.sqrt(1 - alike) * own
    logits[np.arange(len(patients)), stage[patients]] += skill
    logits[:, len(people) :] -= 50  # classes that nobody has are never answered
    return Answers(probabilities(logits), stage[patients], patients, FOUR_STAGES)


@functools.cache
def truths(skill: float, alike: float, level: str) -> dict[str, float]:
    """Every figure of 16,000 people."""
    answers = simulate(np.random.default_rng(1), (8000, 4000, 4000), skill, alike)
    answers = answers.by_patient() if level == "patients" else answers
    one = np.ones((1, int(answers.patients.max()) + 1))
    found = decision_scores(answers, one, [0, 1, 2]) | ranking_scores(answers, one, [0, 1, 2])
    return {name: float(values[0]) for name, values in found.items()}


@functools.cache
def skill_for(name: str, target: float, alike: float, level: str) -> float:
    """The skill at which the true figure `name` is `target`."""
    low, high = 0.0, 6.0
    for _ in range(11):
        middle = (low + high) / 2
        low, high = (middle, high) if truths(middle, alike, level)[name] < target else (low, middle)
    return low


class Held(NamedTuple):
    """How often the intervals of one figure held the truth."""

    figure: str
    truth: float
    covered: float
    below: float
    """Share of intervals that lie above the truth: it is missed below them."""
    above: float
    missing: float
    """Share of data sets where the figure has no interval."""
    width: float
    """Median."""


def coverage(name: str, target: float, people: int, level: str, alike: float, runs: int) -> Iterator[Held]:
    """Of each figure that goes with `name`, over so many simulated data sets of so many people."""
    skill = skill_for(name, target, alike, level)
    ends: dict[str, list[tuple[float, float]]] = {path: [] for path in PATHS[name]}
    for seed in range(runs):
        answers = simulate(np.random.default_rng(seed), (people // 2, people // 4, people // 4), skill, alike)
        summary = Summary(answers.by_patient() if level == "patients" else answers)
        found = summary.decisions() if name == "positive.auc" else summary.classified()
        for path, pairs in ends.items():
            figure = pick(found, path)
            pairs.append((np.nan, np.nan) if figure["low"] is None else (figure["low"], figure["high"]))
    for path, pairs in ends.items():
        low, high = np.array(pairs).T
        truth = truths(skill, alike, level)[PATHS[name][path]]
        below, above, missing = (float(one.mean()) for one in (low > truth, high < truth, np.isnan(low)))
        yield Held(path, truth, 1 - below - above - missing, below, above, missing, float(np.nanmedian(high - low)))


def main() -> None:
    """Print the table, one row for each figure."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    alikes = [float(one) for one in sys.argv[2].split(",")] if len(sys.argv) > 2 else [0.3, 0.8]
    print("| level | people | ICC | figure | truth | covered | truth below | truth above | median width |")  # noqa: T201
    print("|---|---|---|---|---|---|---|---|---|")  # noqa: T201
    for level in ("slices", "patients"):
        for alike in alikes:
            for name, target in TARGETS:
                for people in (20, 40, 160):
                    for held in coverage(name, target, people, level, alike, runs):
                        shares = (f"{100 * one:.1f}" for one in (held.covered, held.below, held.above))
                        row = [level, people, alike, held.figure, f"{held.truth:.3f}", *shares, f"{held.width:.3f}"]
                        print("| " + " | ".join(map(str, row)) + " |", flush=True)  # noqa: T201
                        assert not held.missing


if __name__ == "__main__":
    main()
