"""Writes an evaluation: its folder and, in the run, the temperature, the thresholds and the cards."""

from __future__ import annotations

import csv
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import LABELS
from stageproof.runtime.system.work_folders import make_private, work_folder
from stageproof.runtime.text.escapes import cell
from stageproof.train.cards.cards import dataset_card, model_card
from stageproof.train.metrics.classification import Answers
from stageproof.train.reports.evaluation_page import page
from stageproof.train.reports.figures import pictures
from stageproof.train.runs.atomic_moves import Move, flush, put
from stageproof.train.runs.record import RECORD, write_record

FACTS = "evaluation.json"
WORK = ".evaluation-"
"""Prefix of temporary folders."""
MODEL_CARD, DATASET_CARD = "MODEL_CARD.md", "DATASET_CARD.md"


@dataclass(frozen=True)
class Written:
    """Predictions and results to write in addition to `evaluation.json`."""

    before: Answers
    """Slices, at temperature 1."""
    after: Answers
    """Slices, as reported."""
    names: tuple[str, ...]
    patients: np.ndarray | None
    """(N,) int64 patients, or groups; None if unknown."""
    unit: str | None
    """Whether `patients` are ``patients`` or ``groups``; None if unknown."""
    logits: np.ndarray
    """(N, classes) float32."""
    shuffled: np.ndarray | None
    """(shuffles,) score of each permutation of the labels."""


def check_folder(folder: Path) -> None:
    """Raise InputError if `folder` exists and is not an evaluation, which may be replaced."""
    if folder.exists() and not (folder / FACTS).is_file():
        raise InputError(f"{folder} exists and contains no {FACTS}. Give another --out; nothing was written.")


def write(
    folder: Path, run: Path, record: dict[str, Any], facts: dict[str, Any], written: Written, *, keep: bool
) -> None:
    """Write the evaluation to `folder`, replacing an earlier one.

    keep: also store the temperature, the thresholds and the cards in the run.

    Raises InputError if a file cannot be written, TrainingError if a card would lack a metric; neither the evaluation
    nor the run is then changed.
    """
    check_folder(folder)
    kept = _kept(record, facts)
    cards = {MODEL_CARD: model_card(kept, facts), DATASET_CARD: dataset_card(kept, facts)} if keep else {}
    people = written.after.by_patient() if written.unit == "patients" else None
    drawn = pictures(facts, written.after, people, written.shuffled)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            beside = stack.enter_context(work_folder(folder.parent, WORK))
            new = beside / "new"
            new.mkdir()
            (new / FACTS).write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            (new / "report.html").write_text(page(facts, drawn), encoding="utf-8")
            for file, png in drawn.items():
                (new / file).write_bytes(png)
            _write_predictions(new / "predictions.csv", written)
            make_private(new)
            flush(new)
            moves = [Move(new, folder, beside / "old")]
            if keep:
                moves = _around(moves, run, kept, cards, stack.enter_context(work_folder(run, WORK)))
            put(moves)
    except OSError as error:
        raise InputError(
            f"The evaluation of {run} cannot be written: {error}. Nothing was changed. Free disk space, or give "
            "another --out."
        ) from error


def _around(moves: list[Move], run: Path, record: dict[str, Any], cards: dict[str, str], place: Path) -> list[Move]:
    """`moves`, with those that replace the record and the cards of the run. place: an empty folder in the run.

    The old cards are removed first and the new ones are added last. Even if the process is killed, no card states a
    temperature that differs from the record.
    """
    old, new = place / "old", place / "new"
    old.mkdir()
    new.mkdir()
    for name, text in cards.items():
        (new / name).write_text(text, encoding="utf-8")
    write_record(record, new)
    flush(new)
    away = [Move(None, run / name, old / name) for name in cards]
    placed = [Move(new / name, run / name, old / f"{name}.none") for name in cards]
    return [*away, *moves, Move(new / RECORD, run / RECORD, old / RECORD), *placed]


def _kept(record: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The record of the run with the fitted parameters, which `python -m export` copies into the manifest."""
    calibration, abstention = facts["calibration"], facts["abstention"]
    rest = {key: value for key, value in record.items() if key != "study"}
    return {
        **rest,
        **({"study": calibration["study"]} if calibration["study"] else {}),
        "temperature": calibration["temperature"] or 1.0,
        "abstain_below": abstention["abstain_below"] if abstention else 0.0,
        "target_risk": abstention["target_risk"] if abstention else None,
        "target_confidence": abstention["confidence"] if abstention else None,
        "evaluated": facts["created"],
    }


def _write_predictions(path: Path, written: Written) -> None:
    """Write name, class, patient, predicted class, logits and reported probabilities of every slice as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [f"{kind}_{label}" for kind in ("logit", "probability") for label in LABELS]
        writer.writerow(["name", "label", "group" if written.unit == "groups" else "patient", "decision", *columns])
        after = written.after
        for at, name in enumerate(written.names):
            patient = "" if written.patients is None else int(written.patients[at])
            numbers = [f"{value:.6g}" for value in (*written.logits[at], *after.probabilities[at])]
            writer.writerow([cell(name), LABELS[after.labels[at]], patient, LABELS[after.decisions[at]], *numbers])
