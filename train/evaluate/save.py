"""Writes an evaluation: its folder and, in the run, the temperature, the thresholds and the cards."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import InputError
from stageproof.runtime.system.work_folders import make_private, work_folder
from stageproof.runtime.text.escapes import cell
from stageproof.train.cards.cards import dataset_card, model_card
from stageproof.train.cards.run_index import INDEX, index_page, linked
from stageproof.train.metrics.classification import Answers
from stageproof.train.reports.charts.evaluation import pictures
from stageproof.train.reports.evaluation_page import page
from stageproof.train.reports.misclassified import misclassified, most_confident_errors
from stageproof.train.runs.atomic_moves import Move, flush, put
from stageproof.train.runs.pseudonyms import Pseudonyms
from stageproof.train.runs.record import EVALUATION, RECORD, write_record

NAMES = "names.json"
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
    """(shuffles,) the score of each shuffle of the labels."""
    people: Answers | None
    """Patients, as they are reported; None where nobody knows them."""
    pixels: np.ndarray
    """(N, channels, H, W) uint8, as the network gets them."""


def check_folder(folder: Path) -> None:
    """Raise InputError if `folder` exists and is not an evaluation, which may be replaced."""
    if folder.exists() and not (folder / EVALUATION).is_file():
        raise InputError(f"{folder} exists and contains no {EVALUATION}. Give another --out; nothing was written.")


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
    drawn = pictures(facts, written.after, written.people, written.shuffled)
    hidden, pseudonyms = [written.names[at] for at in most_confident_errors(written.after)], Pseudonyms()
    wrong = misclassified(written.after, written.pixels, [pseudonyms.of(name) for name in hidden])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            beside = stack.enter_context(work_folder(folder.parent, WORK))
            new = beside / "new"
            new.mkdir()
            (new / EVALUATION).write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            (new / "report.html").write_text(page(facts, drawn, wrong), encoding="utf-8")
            for file, png in drawn.items():
                (new / file).write_bytes(png)
            if hidden:
                pseudonyms.write(new / NAMES, hidden)
            _write_predictions(new / "predictions.csv", written)
            make_private(new)
            flush(new)
            moves = [Move(new, folder, beside / "old")]
            if keep:
                moves = _around(moves, run, kept, cards, stack.enter_context(work_folder(run, WORK)))
            if keep or folder.resolve().parent == run.resolve():
                moves.append(_index(run, kept, folder, new, cards, stack.enter_context(work_folder(run, WORK))))
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


def _index(run: Path, record: dict[str, Any], folder: Path, new: Path, cards: Iterable[str], place: Path) -> Move:
    """The run's index with what is about to be in it; `place` is an empty folder in the run, `new` becomes `folder`."""
    files = {file for file in linked(run) if file.partition("/")[0] != folder.name} | set(cards)
    if folder.resolve().parent == run.resolve():
        files |= {f"{folder.name}/{path.name}" for path in new.iterdir()}
    (place / INDEX).write_text(index_page(run.resolve().name, record, files), encoding="utf-8")
    return Move(place / INDEX, run / INDEX, place / f"{INDEX}.old")


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
        after, classes = written.after, [cell(name) for name in written.after.classes.names]
        columns = [cell(f"{kind}_{one}") for kind in ("logit", "probability") for one in after.classes.names]
        writer.writerow(["name", "label", "group" if written.unit == "groups" else "patient", "decision", *columns])
        for at, name in enumerate(written.names):
            patient = "" if written.patients is None else int(written.patients[at])
            numbers = [f"{value:.6g}" for value in (*written.logits[at], *after.probabilities[at])]
            writer.writerow([cell(name), classes[after.labels[at]], patient, classes[after.decisions[at]], *numbers])
