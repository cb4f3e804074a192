"""Negative controls: permutation test of the labels with its power, and a check by image similarity for patients that
appear in both training and test."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.train.data.patients.similarity import FEWEST_SLICES, shows_patient_of
from stageproof.train.metrics.classification import Answers
from stageproof.train.test_set.held_out import HeldOut

SHUFFLES = 1000
ALPHA = 0.01
"""Significance level of the control: its false-positive rate without leakage."""
LEAKED = 0.2
"""Share of memorised patients for which the power of the control is computed."""
POWER = 0.8
"""Minimum power: below it, a control that does not fail is no evidence against leakage."""
SEEN = 0.005
"""Share of test slices that may match a training slice before the check fails, to allow for false matches."""
_SIMULATIONS, _INNER = 200, 200


def permutation_test(answers: Answers, seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
    """Permutation test of the labels over patients; its result, JSON-serialisable, and the score of each permutation.

    The score is the balanced accuracy of slices over the classes present; all slices of a patient get the majority
    label of the patient. p is the permutation p-value (Phipson and Smyth 2010). For a run trained on shuffled labels
    (`answers` has the same labels), it tests for leakage (Ojala and Garriga 2010), and `power` is the power of that
    test if the network has memorised a share `leaked` of the patients.
    """
    people = answers.by_patient()
    counts = answers.tally(np.eye(len(answers.classes))[answers.decisions])  # predictions of each class, by patient
    rng = np.random.default_rng(seed)
    shuffled = balanced(counts, _permutations(people.labels, SHUFFLES, rng))
    score = float(balanced(counts, people.labels[None])[0])
    present = len(np.unique(people.labels))
    power, needed = control_power(counts, people.labels, rng)
    facts = {
        "score": score,
        "shuffles": SHUFFLES,
        "shuffled_mean": float(shuffled.mean()),
        "shuffled_95": float(np.quantile(shuffled, 0.95)),
        "chance": 1 / present,
        "p": float((1 + (shuffled >= score - 1e-12).sum()) / (SHUFFLES + 1)),
        "alpha": ALPHA,
        "leaked": LEAKED,
        "power": power,
        "has_power": power >= POWER,
        "patients_needed": None if power >= POWER else needed,
    }
    return facts, shuffled


def control_fails(facts: dict[str, Any]) -> bool:
    """Whether a run on shuffled labels predicts the labels of test patients. facts: result of `permutation_test`."""
    return bool(facts["p"] < facts.get("alpha", 0.001))


def control_power(
    counts: np.ndarray, labels: np.ndarray, rng: np.random.Generator, leaked: float = LEAKED
) -> tuple[float, int | None]:
    """Power of `permutation_test` at level ALPHA, in [0, 1], if a share `leaked` of the patients is memorised; and the
    number of patients that would give a power of 0.8, None if that cannot be extrapolated.

    counts: (P, classes) float64, predictions of each class. labels: (P,) int64, classes of the patients.
    Simulation: permute the labels, then set the predictions of a random share of the patients to these labels.
    """
    from scipy import stats

    people, found = len(labels), 0
    remembered = max(1, round(leaked * people))
    above, spread = [], []
    for _ in range(_SIMULATIONS):
        truth = rng.permutation(labels)
        known = rng.permutation(people)[:remembered]
        mine = counts.copy()
        mine[known] = np.eye(counts.shape[1])[truth[known]] * counts[known].sum(1, keepdims=True)
        luck = balanced(mine, _permutations(truth, _INNER, rng))
        score = balanced(mine, truth[None])[0]
        found += (1 + (luck >= score - 1e-12).sum()) / (_INNER + 1) < ALPHA
        above.append(score - luck.mean())
        spread.append(luck.std())
    shift = float(np.mean(above))
    needed = None
    if shift > 0:  # the spread is proportional to 1 / sqrt(patients), the shift is constant
        reach = (stats.norm.ppf(1 - ALPHA) + stats.norm.ppf(POWER)) * float(np.mean(spread)) / shift
        needed = int(np.ceil(people * reach**2))
    return float(found / _SIMULATIONS), needed


def identity_test(data: HeldOut) -> dict[str, Any] | None:
    """Check by image similarity, without ids, whether test slices show patients of the training set; JSON-serialisable.

    `shown`: share of test slices that match a training slice (`train.data.patients.similarity`), in [0, 1]. `complete`:
    whether patients were compared, which needs 200 slices; otherwise only identical images are found. `holds`: at most
    0.5 % matched. None if the training slices are not available.
    """
    if data.training is None:
        return None
    shown = float(shows_patient_of(data.slices.thumbnails, data.training.thumbnails).mean())
    slices = len(data.slices.thumbnails) + len(data.training.thumbnails)
    return {"shown": shown, "allowed": SEEN, "complete": slices >= FEWEST_SLICES, "holds": shown <= SEEN}


def _permutations(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, P) int64: random permutations of the labels."""
    return rng.permuted(np.broadcast_to(labels, (count, len(labels))), axis=1)


def balanced(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(B,) float64: balanced accuracy of slices for each of B label vectors.

    counts: (P, classes) float64, predictions of each class by patient. labels: (B, P) int64, classes of the patients.
    """
    total, right, present = counts.sum(1), np.zeros(len(labels)), np.zeros(len(labels))
    for label in range(counts.shape[1]):
        mine = (labels == label).astype(np.float64)
        slices = mine @ total
        right += np.where(slices > 0, mine @ counts[:, label] / np.maximum(slices, 1e-300), 0)
        present += slices > 0
    return right / present
