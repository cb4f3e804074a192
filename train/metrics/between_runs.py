"""`between_runs`: variation of metrics between runs of one recipe on one dataset with different seeds or folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import CheckpointError
from stageproof.train.runs.record import label_set_of, read_evaluation, read_record

_FIGURES = {"accuracy": ("accuracy",), "balanced_accuracy": ("balanced_accuracy",), "auc": ("positive", "auc")}


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
        "seeds": len({split.get("seed") for split in splits}),
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
        return record["data"].get("digest"), label_set_of(record, run), record.get("recipe"), record["split"].get("by")

    shuffled = [record["split"].get("shuffled_labels") for _, record in (one, other)]
    try:
        return kind(*one) == kind(*other) and shuffled == [None, None]
    except CheckpointError:  # of the other run: that of this one has been read before
        return False
