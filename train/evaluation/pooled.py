"""Figures of a cross-validation: of each fold, their spread, and of all patients together, each answered for by the
network that was not trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.calibration import probabilities
from runtime.errors import CheckpointError
from runtime.labels import LABELS
from train.evaluation.bootstrap import LEVEL
from train.evaluation.calibration import cross_fit
from train.evaluation.heldout import HeldOut, ask, class_counts, held_out, read_split, recorded_verdict
from train.evaluation.scores import Answers, decision_scores, ranking_scores
from train.evaluation.summary import Summary, no_interval, over_units
from train.evaluation.words import CALIBRATION, ROWS, joined, number, spoken
from train.record import read_record

SCHEMA = 1
_OF_FOLDS = ("accuracy", "balanced_accuracy", "kappa", "demented.accuracy", "demented.auc")
_LEVELS = ("slices", "patients")


def pool(runs: Sequence[Path]) -> dict[str, Any]:
    """The content of `crossvalidation.json`, from the run of each fold and the data that they were trained on.

    Probabilities are at temperature 1. Only `calibration` tells what a temperature does: each fold's is fitted on half
    of the patients that it held out, and judged on the other half. A patient's answer is the mean of the probabilities
    over its slices, of whichever fold each slice was held out in. The intervals are over patients, and do not vary
    the training. Macro figures of all levels and folds are over one set of classes.

    Raises CheckpointError for runs that are no folds of one cross-validation, DatasetError when the data has changed.
    """
    records = [read_record(run) for run in runs]
    _check_together(runs, records)
    who = {name: patient for name, (patient, _) in read_split(runs[0]).items()}
    names: list[str] = []
    chances, calibrated, labels, fold_of = [], [], [], []
    for number_of, (run, record) in enumerate(zip(runs, records, strict=True)):
        held = held_out(run, record, None)
        names += held.slices.names
        logits = ask(run, record, held.slices)
        chances.append(probabilities(logits))
        calibrated.append(_calibrated(logits, held))
        labels.append(held.slices.labels)
        fold_of.append(np.full(len(held.slices), number_of))
    if len(set(names)) < len(names):
        raise CheckpointError(f"{runs[0].parent}: a slice is held out in two folds. Train all folds with one --seed.")
    fold, unit = np.concatenate(fold_of), _unit(records[0])
    known = unit == "patients"
    people = np.unique([who[name] if unit else name for name in names], return_inverse=True)[1].astype(np.int64)
    answers = Answers(np.concatenate(chances), np.concatenate(labels), people)
    slices = Summary(answers, unit).decisions()
    counted = [LABELS.index(label) for label in slices["counted"]]
    folds = [_fold(answers, fold == number_of, known, counted) for number_of in range(len(runs))]
    return {
        "schema": SCHEMA,
        "recipe": records[0]["recipe"],
        "start": records[0]["start"],
        "data": {
            "source": Path(records[0]["data"]["source"]).name,
            "digest": records[0]["data"]["digest"],
            "slices": len(names),
            "slices_by_class": class_counts(answers.labels),
            "verdict": unit or "unknown",
            "groups": int(people.max()) + 1 if unit == "groups" else None,
            "patients": int(people.max()) + 1 if known else None,
            "patients_by_class": class_counts(answers.by_patient().labels) if known else None,
        },
        "split": {
            "by": records[0]["split"]["by"],
            "seed": records[0]["split"]["seed"],
            "folds": len(runs),
            "leaked": [record["split"]["leaked"] for record in records] if unit else None,
        },
        "shuffled_labels": records[0]["split"].get("shuffled_labels"),
        "method": {
            "level": LEVEL,
            "intervals": no_interval() if unit is None else f"{over_units(unit)}; the training is not varied",
        },
        "folds": folds,
        "over_folds": {level: _spread([one[level] for one in folds]) for level in _LEVELS if folds[0][level]},
        "slices": slices,
        "patients": Summary(answers.by_patient(), counted=counted).decisions() if known else None,
        "calibration": _calibration(answers, calibrated, unit),
    }


def _unit(record: dict[str, Any]) -> str | None:
    """What figures are resampled by: ``patients`` or ``groups``; None where patients are unknown."""
    verdict = recorded_verdict(record)
    return None if verdict == "unknown" else verdict


def _calibrated(logits: np.ndarray, held: HeldOut) -> np.ndarray | None:
    """(N, classes) float64: probabilities of one fold's slices, each patient's at a temperature fitted on others.

    None where patients are unknown or were trained on, or where a half of them would be too few.
    """
    if held.unit is None or held.patients is None or held.leaked:
        return None
    crossed = cross_fit(logits, held.slices.labels, held.patients)
    return crossed.probabilities if crossed else None


def _calibration(answers: Answers, calibrated: Sequence[np.ndarray | None], unit: str | None) -> dict[str, Any] | None:
    """Calibration of slices before and after; None unless every fold has both. calibrated: by fold."""
    told = [one for one in calibrated if one is not None]
    if len(told) < len(calibrated):
        return None
    after = Summary(Answers(np.concatenate(told), answers.labels, answers.patients), unit)
    return {
        "before": Summary(answers, unit).calibration(),
        "after": after.calibration(),
        "change": after.change(answers),
    }


def _check_together(runs: Sequence[Path], records: Sequence[dict[str, Any]]) -> None:
    """Raises CheckpointError unless all runs learned from the same data, dealt alike, in the same way."""
    for run, record in zip(runs[1:], records[1:], strict=True):
        first = records[0]
        same = [record["data"]["digest"] == first["data"]["digest"], record["recipe"] == first["recipe"]]
        same += [record["split"].get(key) == first["split"].get(key) for key in ("by", "seed", "shuffled_labels")]
        if not all(same):
            raise CheckpointError(f"{run} has other data, another recipe or another split than {runs[0]}.")


def _fold(answers: Answers, rows: np.ndarray, known: bool, counted: Sequence[int]) -> dict[str, Any]:
    """Point figures of one fold, by level; None at the level of patients where nobody knows them.

    counted: the classes that balanced accuracy is the mean over, those of all folds together.
    """
    people = np.unique(answers.patients[rows], return_inverse=True)[1].astype(np.int64)
    mine = Answers(answers.probabilities[rows], answers.labels[rows], people)
    told: dict[str, Any] = {"slices": _points(mine, counted)}
    told["patients"] = _points(mine.by_patient(), counted) if known else None
    return {"held_out": {"slices": int(rows.sum()), "patients": int(people.max()) + 1 if known else None}, **told}


def _points(answers: Answers, counted: Sequence[int]) -> dict[str, float | None]:
    """Name → value; None where it is not defined, as balanced accuracy is not for a fold without a class of `counted`:
    a mean over other classes would be another figure under the same name."""
    one = np.ones((1, int(answers.patients.max()) + 1))
    values = decision_scores(answers, one, counted) | ranking_scores(answers, one, counted)
    found = {name: float(values[name][0]) for name in _OF_FOLDS}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def _spread(folds: Sequence[dict[str, float | None]]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over the folds that have a figure."""
    found: dict[str, Any] = {}
    for name in _OF_FOLDS:
        values = [value for fold in folds if (value := fold[name]) is not None]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        found[name] = {"mean": float(np.mean(values)) if values else None, "sd": sd, "folds": len(values)}
    return found


def lines(facts: dict[str, Any]) -> list[str]:
    """The figures for a terminal: mean ± SD over the folds, and all patients together with the interval."""
    unit = "groups" if facts["data"]["groups"] is not None else "patients"
    titles = {path: (title, share) for title, path, share in ROWS}
    text = []
    for level in _LEVELS:
        if not facts[level]:
            continue
        count = facts["data"][level]
        text += ["", f"{f'{count} {level}':<33}{'mean ± SD of folds':<24}all together, 95 % interval"]
        for name in _OF_FOLDS:
            title, share = titles[name]
            together = facts[level]
            for key in name.split("."):
                together = together[key]
            spread = _said(facts["over_folds"][level][name], share, facts["split"]["folds"])
            text.append(f"{title:<33}{spread:<24}{spoken(together, share)}")
        text.append(f"{'always the largest class':<33}{'':<24}{number(facts[level]['largest_class'], True)}")
    if facts["calibration"]:
        text += ["", f"{'slices, at a temperature of other ' + unit:<45}{'before':<25}after"]
        for title, name in CALIBRATION[
            1:
        ]:  # the first needs what calibrated probabilities would show, and is not pooled
            before, after = (spoken(facts["calibration"][side][name], False) for side in ("before", "after"))
            text.append(f"{title:<45}{before:<25}{after}")
    return [*text[1:], "", *_explained(facts)]


def _explained(facts: dict[str, Any]) -> list[str]:
    """What the two columns are."""
    counted = facts["slices"]["counted"]
    left = [label for label in LABELS if label not in counted]
    text = ["mean ± SD of folds: each fold's own figure. all together: one figure over what all folds held out."]
    if counted and left:
        text.append(f"balanced accuracy: in both columns the mean recall of {joined(counted)},")
        text.append(f"without {joined(left)}, too few to estimate a recall.")
    return text


def _said(spread: dict[str, Any], share: bool, folds: int) -> str:
    if spread["mean"] is None or spread["sd"] is None:
        return "not estimable"
    only = "" if spread["folds"] == folds else f" ({spread['folds']} folds)"
    if share:
        return f"{100 * spread['mean']:.1f} ± {100 * spread['sd']:.1f} %{only}"
    return f"{spread['mean']:.3f} ± {spread['sd']:.3f}{only}"
