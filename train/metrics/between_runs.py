"""`between_runs`: variation of metrics between runs of one recipe on one dataset with different seeds or folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from stageproof.runtime.errors import CheckpointError
from stageproof.train.metrics.intervals import LEVEL
from stageproof.train.recipes import same_recipe
from stageproof.train.runs.record import label_set_of, read_evaluation, read_record

_FIGURES = {"accuracy": ("accuracy",), "balanced_accuracy": ("balanced_accuracy",), "auc": ("positive", "auc")}


def over_runs(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1) and t interval of shares of runs: {mean, sd, runs, low, high}, and ``why`` if
    there is no interval. None is a value that is not defined.

    The interval is mean ± t · sd / √n with n - 1 degrees of freedom, within [0, 1]. Its variance is that of the
    training if the runs have the same data and split.
    """
    known = [value for value in values if value is not None]
    count = len(known)
    found: dict[str, Any] = {"mean": None, "sd": None, "runs": count, "low": None, "high": None}
    if count < len(values):
        return {**found, "why": "not estimable" if not count else f"not estimable in {len(values) - count} runs"}
    mean, sd = float(np.mean(known)), float(np.std(known, ddof=1)) if count > 1 else None
    found |= {"mean": mean, "sd": sd}
    if not sd:
        return {**found, "why": "no interval: one run" if count == 1 else "no interval: the same in all runs"}
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * sd / count**0.5
    return {**found, "low": max(0.0, mean - half), "high": min(1.0, mean + half)}


def between_runs(run: Path, record: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over this run and the evaluated runs beside it that differ only in seed or
    fold; JSON-serialisable, `sd` is None for a single run.

    record, facts: content of `run.json` and of `evaluation.json` of this run. Runs that cannot be read are ignored.
    """
    same = [(record, facts)]
    for folder in sorted(run.resolve().parent.iterdir()):
        found = None if folder == run.resolve() else _evaluated(folder)
        if found is not None and _alike((run, record), (folder, found[0])):
            same.append(found)
    level = "patients" if all(one[1]["patients"] for one in same) else "slices"
    spread: dict[str, Any] = {}
    for name, path in _FIGURES.items():
        values = []
        for _, one in same:
            figure = one[level]
            for key in path:
                figure = figure[key]
            values += [] if figure["value"] is None else [figure["value"]]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        spread[name] = {"mean": float(np.mean(values)) if values else None, "sd": sd, "runs": len(values)}
    splits = [one["split"] for one, _ in same]
    return {
        "runs": len(same),
        "seeds": len({(one.get("options", {}).get("seed"), one["split"].get("seed")) for one, _ in same}),
        "folds": len({split.get("fold") for split in splits}),
        "of": level,
        "spread": spread,
    }


def _evaluated(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Record and evaluation of a run; None if the folder is not an evaluated run."""
    try:
        record, facts = read_record(folder), read_evaluation(folder / "evaluation")
        whole = facts["data"]["held_out_by_run"] and facts["weights_sha256"] == record["weights_sha256"]
        whole = whole and all(facts["slices"][path[0]] for path in _FIGURES.values()) and "patients" in facts
        return (record, facts) if whole and isinstance(record["split"], dict) else None
    except (CheckpointError, KeyError, TypeError):
        return None


def _alike(one: tuple[Path, dict[str, Any]], other: tuple[Path, dict[str, Any]]) -> bool:
    """Whether two runs have the same data, classes, recipe and kind of split, and were trained on the true labels."""

    def kind(run: Path, record: dict[str, Any]) -> tuple[Any, ...]:
        return record["data"].get("digest"), label_set_of(record, run), record["split"].get("by")

    shuffled = [record["split"].get("shuffled_labels") for _, record in (one, other)]
    try:
        alike = kind(*one) == kind(*other) and same_recipe(one[1].get("recipe"), other[1].get("recipe"))
    except CheckpointError:  # of the other run: that of this one has been read before
        return False
    return alike and shuffled == [None, None]
