"""`summary`: the metrics of runs that differ only in their seed: each, mean, standard deviation, interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import CheckpointError
from stageproof.train.metrics.between_runs import over_runs
from stageproof.train.metrics.intervals import LEVEL
from stageproof.train.recipes import same_recipe
from stageproof.train.reports.formatting import format_figure
from stageproof.train.reports.terminal import WIDTH, table
from stageproof.train.runs.pseudonyms import public_source

SCHEMA = 1
METRICS = {
    "accuracy": "accuracy of slices",
    "balanced_accuracy": "balanced accuracy of slices",
    "patient_accuracy": "accuracy of patients",
}
"""Metric in `run.json` → its name in text. All are shares."""
INCLUDES = (
    "the variance of the training: initial weights (unless given), order of the slices, augmentation, dropout, MixUp"
)
EXCLUDES = (
    "the variance over patients and over splits: all runs have the same training and validation patients. For new "
    "patients use the intervals of an evaluation or of a cross-validation"
)


def check_alike(runs: Sequence[Path], records: Sequence[dict[str, Any]]) -> None:
    """Raise CheckpointError if the runs differ in data, split or recipe. records: as for `summary`."""
    first = records[0]
    for run, record in zip(runs, records, strict=True):
        same = [record["data"]["digest"] == first["data"]["digest"], same_recipe(record["recipe"], first["recipe"])]
        same += [record["split"].get(key) == first["split"].get(key) for key in ("by", "fold", "seed")]
        if not all(same):
            raise CheckpointError(
                f"{run} has other data, another split or another recipe than {runs[0]}. Restore the data, or repeat "
                "all runs with another --out."
            )


def summary(runs: Sequence[Path], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The content of `repeat.json`. records: content of `run.json` of each run.

    Raises CheckpointError as `check_alike`.
    """
    check_alike(runs, records)
    first = records[0]
    metrics = first["metrics"]
    names = [name for name in METRICS if name in metrics]
    return {
        "schema": SCHEMA,
        "recipe": first["recipe"],
        "start": first["start"],
        "data": {
            "source": public_source(first["data"]["source"]),
            "digest": first["data"]["digest"],
            "slices": metrics["slices"],
            "patients": metrics.get("patients"),
            "largest_class": metrics["largest_class"],
            "leaked": first["split"]["leaked"],
        },
        "split": {key: first["split"].get(key) for key in ("by", "fold", "seed", "not_estimable", "shuffled_labels")},
        "seeds": [record["options"]["seed"] for record in records],
        "method": {"level": LEVEL, "interval": "t interval over runs", "includes": INCLUDES, "excludes": EXCLUDES},
        "metrics": {name: over_runs([record["metrics"][name] for record in records]) for name in names},
        "recall": {
            label: over_runs([record["metrics"]["recall"][label] for record in records]) for label in metrics["recall"]
        },
        "runs": [
            {
                "run": run.name,
                "seed": record["options"]["seed"],
                **{name: record["metrics"][name] for name in names},
                "recall": record["metrics"]["recall"],
            }
            for run, record in zip(runs, records, strict=True)
        ],
    }


def rows(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(metric, mean and interval, standard deviation) of all metrics, as text."""
    titles = {
        **{name: METRICS[name] for name in facts["metrics"]},
        **{name: f"recall {name}" for name in facts["recall"]},
    }
    found = []
    for name, one in (facts["metrics"] | facts["recall"]).items():
        sd = "" if one["sd"] is None else f"{100 * one['sd']:.1f}"
        found.append((titles[name], format_figure({**one, "value": one["mean"]}, True), sd))
    return found


def heads(facts: dict[str, Any]) -> tuple[str, str, str]:
    """The heads of the columns of `rows`."""
    return f"{len(facts['seeds'])} runs", f"mean [{facts['method']['level']:.0%} t interval]", "SD"


def warnings(facts: dict[str, Any]) -> list[str]:
    """What a reader must know before the figures."""
    data, found = facts["data"], []
    if facts["split"]["shuffled_labels"] is not None:
        found.append("CONTROL: trained on shuffled labels. The metrics should be at chance.")
    if data["leaked"] is None:
        found.append("PATIENTS UNKNOWN: the same patient may appear in both training and validation.")
    elif data["leaked"]:
        found.append(
            f"LEAKAGE: {data['leaked']:.0%} of the validation slices show a patient who is also in training. These "
            "metrics do not estimate performance on new patients."
        )
    return found


def lines(facts: dict[str, Any]) -> list[str]:
    """The summary for a terminal of 80 columns."""
    from textwrap import wrap

    text = [line for warning in warnings(facts) for line in wrap(warning, WIDTH)]
    text += table(heads(facts), rows(facts), (31, 39, 8))
    method = facts["method"]
    for note in (f"The interval includes {method['includes']}.", f"It does not include {method['excludes']}."):
        text += wrap(note, WIDTH)
    return text
