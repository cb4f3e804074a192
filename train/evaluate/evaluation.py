"""`evaluate`: computes the metrics of a run, writes the report and the cards, and stores the calibration in the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime import __version__
from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import LabelSet
from stageproof.runtime.softmax import probabilities
from stageproof.train.calibration.fit import Guarantee, stored_fit
from stageproof.train.calibration.fit_and_assess import abstention, assessed, debiased, fit_held_out, studies_of
from stageproof.train.evaluate.clinical import clinical
from stageproof.train.evaluate.negative_controls import identity_test, permutation_test
from stageproof.train.evaluate.populations import populations, warning
from stageproof.train.evaluate.save import Written, check_folder, write
from stageproof.train.evaluate.warning_messages import absent_warnings, is_control, warnings_of
from stageproof.train.metrics.classification import BINS, Answers, class_counts, stages
from stageproof.train.metrics.intervals import LEAST_PATIENTS, LEVEL
from stageproof.train.metrics.with_intervals import NO_INTERVAL, Summary, over_units
from stageproof.train.runs.finding import chosen, evaluation_folder
from stageproof.train.runs.pseudonyms import public_run, public_source
from stageproof.train.runs.record import RECORD, label_set_of, now, read_record
from stageproof.train.runs.selection import on_evaluated, selection_sentence
from stageproof.train.test_set.held_out import HeldOut, held_out
from stageproof.train.test_set.predictions import predict_slices

logger = logging.getLogger(__name__)

SCHEMA = 2
"""1: without clinical order and positive classes, and with ``demented`` for ``positive``."""
NEEDED = (
    "architecture",
    "labels",
    "input",
    "weights_sha256",
    "temperature",
    "options.data",
    "options.seed",
    "data.digest",
    "data.slices",
    "data.slices_by_class",
    "data.patients_told_by",
)
"""Entries of `run.json` that an evaluation needs."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: its run, its folder and its results."""

    run: Path
    out: Path
    facts: dict[str, Any]
    """The content of `evaluation.json`."""


def evaluate(
    run: Path | None,
    data: Path | None = None,
    groups: Path | None = None,
    *,
    patient_pattern: str | None = None,
    out: Path | None = None,
    target_risk: float | None = None,
    seed: int = 0,
    max_unreadable: float = 0.05,
) -> Evaluated:
    """Evaluate a run on the slices that it held out, or on the slices of `data` that show other patients.

    run: None takes the run that finished last. groups: a groups file (`train.data.identity.groups_file`) for all slices
    of `data`, or of the data of the run. patient_pattern: regular expression that extracts ids from paths instead.

    On the slices that the run held out, temperature, study rule and thresholds for `target_risk` are fitted as well and
    stored in the run with its cards. Metrics are cross-fitted: predictions for a patient come from a fit on others.

    Raises CheckpointError, DatasetError or InputError for invalid input, TrainingError if no threshold can be certified
    for the risk; in all cases nothing is written.
    """
    run = chosen(run) if run is None else run
    record = read_record(run)
    _check_record(run, record)
    folder = out or evaluation_folder(run, data)
    check_folder(folder)
    logger.info("reading the held-out slices" if data is None else f"reading {data}")
    held = held_out(run, record, data, groups, max_unreadable, patient_pattern)
    if target_risk is not None and (not held.own or held.unit != "patients" or held.leaked is None or held.leaked > 0):
        raise InputError(
            "--target-risk certifies thresholds on the patients that the run held out; "
            + (
                "--data gives other slices. Leave --data out."
                if not held.own
                else "the patients of this run are unknown. Train with --groups or --patient-pattern."
                if held.leaked is None
                else "a group of this run may contain several patients. Give the patient ids with --groups."
                if held.unit == "groups"
                else "this run held out no patients. Train with --split patient."
            )
        )
    logger.info(f"running the network on {len(held.slices)} slices")
    logits = predict_slices(run, record, held.slices)
    if held.unit is not None:
        logger.info(f"computing intervals over {held.unit}")
    facts, written = _evaluate(run, record, held, logits, target_risk, seed)
    write(folder, run, record, facts, written, keep=held.own and not is_control(facts))
    return Evaluated(run, folder, facts)


def _check_record(run: Path, record: dict[str, Any]) -> None:
    """Raise CheckpointError if the record lacks an entry that an evaluation needs, or contradicts itself."""
    for path in NEEDED:
        found: Any = record
        for key in path.split("."):
            if not isinstance(found, dict) or key not in found:
                raise CheckpointError(f"{run / RECORD} has no {path}: this version cannot evaluate it. Train again.")
            found = found[key]
    label_set_of(record, run)


def _evaluate(
    run: Path,
    record: dict[str, Any],
    held: HeldOut,
    logits: np.ndarray,
    target_risk: float | None,
    seed: int,
) -> tuple[dict[str, Any], Written]:
    labels, classes = held.slices.labels, label_set_of(record, run)
    unit = held.unit
    patients = held.patients if unit is not None and held.patients is not None else np.arange(len(labels))
    fitted, crossed, guarantee = fit_held_out(held, logits, labels, patients, target_risk, seed)
    stored = stored_fit(record, str(run))
    chances = crossed.probabilities if crossed else probabilities(logits) if held.own else stored.apply(logits)
    before = Answers(probabilities(logits), labels, patients, classes)
    after = replace(before, probabilities=chances)
    slices = Summary(after, unit)
    # A group may contain patients of different stages, so there are no metrics by group.
    studies, rule = studies_of(held, stored, crossed, logits, after) if unit == "patients" else (None, None)
    people = Summary(studies) if studies else None
    shuffled, scores = permutation_test(after, seed) if unit == "patients" else (None, None)
    calibrated = crossed is not None or not held.own
    chance = assessed(before, after if calibrated else None, studies, seed)
    facts = {
        "schema": SCHEMA,
        "created": now(),
        "stageproof": __version__,
        "run": public_run(run.resolve().name, record["weights_sha256"]),
        "weights_sha256": record["weights_sha256"],
        **classes.to_dict(),
        **({"hub": record["hub"]} if "hub" in record else {}),  # where `train.hub.fetch` downloaded the run from
        "data": _data(record, held, patients, classes),
        "method": {
            "level": LEVEL,
            "seed": seed,
            "least_patients": LEAST_PATIENTS,
            "least_runs": 2,
            "bins": BINS,
            "intervals": NO_INTERVAL if unit is None else over_units(unit),
        },
        "slices": slices.decisions(),
        "patients": people.decisions() if people else None,
        "calibration": {
            "temperature": fitted.temperature if fitted else stored.temperature,
            "fitted_on_patients": _number(guarantee, patients) if fitted and unit == "patients" else None,
            "fitted_on_groups": int(patients.max()) + 1 if fitted and unit == "groups" else None,
            "crossfit_temperatures": list(crossed.temperatures) if crossed else None,
            "study": fitted.study.to_dict() if fitted and fitted.study else None,
            "studies_by": rule,
            "assessment": chance,
            **_sides(Summary(before, unit), slices, people, chance, calibrated),
        },
        "risk": {"slices": slices.risk(), "patients": people.risk() if people else None},
        "abstention": abstention(guarantee, held, logits, target_risk, classes) if guarantee and target_risk else None,
        "control": {
            "permutation": shuffled,
            "identity": identity_test(held),
            "shuffled_labels": record["split"].get("shuffled_labels"),
        },
    }
    facts |= clinical(run, record, held, people.answers if people else None, facts)
    facts["populations"] = populations(run, record, held, facts)
    facts["selection_sentence"] = selection_sentence(record)
    facts["selected_on_evaluated"] = on_evaluated(record, held.own)
    facts["warnings"] = [*warnings_of(held, facts), *warning(facts["populations"]), *absent_warnings(facts, record)]
    mine = held.patients if unit else None
    pixels = held.slices.pixels
    return facts, Written(before, after, held.slices.names, mine, unit, logits, scores, studies, pixels)


def _data(record: dict[str, Any], held: HeldOut, patients: np.ndarray, classes: LabelSet) -> dict[str, Any]:
    known = held.unit == "patients"
    people = stages(held.slices.labels, patients)
    whole = record["data"]["slices_by_class"]
    return {
        "source": public_source(held.source),
        "digest": held.digest,
        "held_out_by_run": held.own,
        "slices": len(held.slices),
        "slices_by_class": class_counts(held.slices.labels, classes),
        "patients": len(people) if known else None,
        "patients_by_class": class_counts(people, classes) if known else None,
        "verdict": "unknown" if held.unit is None else held.unit,
        "groups": len(people) if held.unit == "groups" else None,
        "patients_told_by": held.patients_from,
        "training": _training(held, classes),
        "share_by_class": {label: count / record["data"]["slices"] for label, count in whole.items()},
        "sizes": [{"width": width, "height": height, "slices": count} for width, height, count in held.sizes],
        "leaked": held.leaked,
        "left_out_as_seen": held.seen,
        "unreadable": held.unreadable,
    }


def _number(guarantee: Guarantee | None, patients: np.ndarray) -> int:
    """Number of patients that temperature and study rule were fitted on."""
    return int(patients.max()) + 1 if guarantee is None else int(guarantee.fitted.sum())


def _sides(
    before: Summary, slices: Summary, people: Summary | None, chance: dict[str, Any] | None, calibrated: bool
) -> dict[str, Any]:
    """Brier score, NLL and debiased ECE of slices before and after calibration, their change, and those of studies."""
    why = "not estimable: patients are unknown"
    return {
        "before": debiased(before.calibration(), chance and chance["before"], why),
        "after": debiased(slices.calibration(), chance and chance["after"], why) if calibrated else None,
        "change": debiased(slices.change(before.answers), None, "see the bands") if calibrated else None,
        "patients": debiased(people.calibration(), chance and chance["patients"], why)
        if people and calibrated
        else None,
    }


def _training(held: HeldOut, classes: LabelSet) -> dict[str, Any] | None:
    """Size of the training set by class."""
    if held.training is None:
        return None
    labels, patients = held.training.labels, held.training_patients
    by_class = None
    if patients is not None and held.unit == "patients":
        _, trained = np.unique(patients, return_inverse=True)
        by_class = class_counts(stages(labels, trained), classes)
    counts = class_counts(labels, classes)
    return {
        "slices": len(labels),
        "slices_by_class": counts,
        "share_by_class": {label: count / len(labels) for label, count in counts.items()},
        "largest_to_smallest": max(counts.values()) / max(1, min(counts.values())),
        "patients_by_class": by_class,
    }
