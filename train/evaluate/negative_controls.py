"""The control on shuffled labels, its power, and evidence from the images alone on who is in training and test."""

from __future__ import annotations

from typing import Any

import numpy as np

from stageproof.train.data.patients.similarity import FEWEST_SLICES, shows_head_of
from stageproof.train.metrics.classification import CLASSES, Answers
from stageproof.train.test_set.held_out import HeldOut

SHUFFLES = 1000
ALPHA = 0.01
"""A control fails at a p below this: so often, at most, one without leakage fails."""
LEAKED = 0.2
"""Share of the patients tested that the power of the control is stated for."""
POWER = 0.8
"""Power below which a control that does not fail is no evidence."""
SEEN = 0.005
"""Share of the slices tested that may match a training slice before the check fails: room for false matches."""
_SIMULATIONS, _INNER = 200, 200


def permutation_test(answers: Answers, seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
    """How the same answers score when each patient is given another patient's label; and the score of each shuffle.

    The score is balanced accuracy of slices over the classes present, all slices of a patient taken for the class that
    most of them have. p is the chance of a score as high by luck (Phipson and Smyth 2010). For a run trained on
    shuffled labels, which `answers` has too, this is the test of leakage (Ojala and Garriga 2010), and `power` is its
    chance to fail when the answers about `leaked` of the patients are remembered.
    """
    people = answers.by_patient()
    counts = answers.tally(np.eye(CLASSES)[answers.decisions])  # how often each class was answered, by patient
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
    """Whether a run on shuffled labels knew those of the patients tested. facts: of `permutation_test`."""
    return bool(facts["p"] < facts.get("alpha", 0.001))


def control_power(
    counts: np.ndarray, labels: np.ndarray, rng: np.random.Generator, leaked: float = LEAKED
) -> tuple[float, int | None]:
    """Chance, in [0, 1], that `permutation_test` has p < ALPHA when the answers about so many patients are remembered;
    and how many patients like these would give it a power of 0.8, None where that cannot be extrapolated.

    counts: (P, classes) float64, how often each class was answered. labels: (P,) int64, the patients' classes.
    Simulated on these answers: labels permuted, the answers of a random share of the patients made those labels.
    """
    from scipy import stats

    people, found = len(labels), 0
    remembered = max(1, round(leaked * people))
    above, spread = [], []
    for _ in range(_SIMULATIONS):
        truth = rng.permutation(labels)
        known = rng.permutation(people)[:remembered]
        mine = counts.copy()
        mine[known] = np.eye(CLASSES)[truth[known]] * counts[known].sum(1, keepdims=True)
        luck = balanced(mine, _permutations(truth, _INNER, rng))
        score = balanced(mine, truth[None])[0]
        found += (1 + (luck >= score - 1e-12).sum()) / (_INNER + 1) < ALPHA
        above.append(score - luck.mean())
        spread.append(luck.std())
    shift = float(np.mean(above))
    needed = None
    if shift > 0:  # the spread falls with the square root of the number, the shift stays
        reach = (stats.norm.ppf(1 - ALPHA) + stats.norm.ppf(POWER)) * float(np.mean(spread)) / shift
        needed = int(np.ceil(people * reach**2))
    return float(found / _SIMULATIONS), needed


def identity_test(data: HeldOut) -> dict[str, Any] | None:
    """Whether slices that were tested show heads of training slices, by the images: no id is used.

    `shown`: share of the slices tested whose own features (`train.data.patients.similarity`) match a training slice, in
    [0, 1]. `complete`: whether heads were compared, for which it takes 200 slices; else only identical pictures were
    found. `holds`: at most 0.5 % matched. None where the training slices are not available.
    """
    if data.training is None:
        return None
    shown = float(shows_head_of(data.slices.thumbnails, data.training.thumbnails).mean())
    slices = len(data.slices.thumbnails) + len(data.training.thumbnails)
    return {"shown": shown, "allowed": SEEN, "complete": slices >= FEWEST_SLICES, "holds": shown <= SEEN}


def _permutations(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, P) int64: the labels in random order."""
    return rng.permuted(np.broadcast_to(labels, (count, len(labels))), axis=1)


def balanced(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(B,) float64: balanced accuracy of answers counted by patient, were the patients of these classes.

    counts: (P, classes) float64. labels: (B, P) int64.
    """
    total, right, present = counts.sum(1), np.zeros(len(labels)), np.zeros(len(labels))
    for label in range(CLASSES):
        mine = (labels == label).astype(np.float64)
        slices = mine @ total
        right += np.where(slices > 0, mine @ counts[:, label] / np.maximum(slices, 1e-300), 0)
        present += slices > 0
    found: np.ndarray = right / present
    return found
