"""The page of a run directory that links its other pages, its pictures and its files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stageproof.train.reports.evaluation_page import captions
from stageproof.train.reports.formatting import number
from stageproof.train.reports.templates import html
from stageproof.train.runs.pseudonyms import public_run
from stageproof.train.runs.record import label_set_of

INDEX = "index.html"
_GROUPS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Reports",
        (
            ("evaluation*/report.html", "evaluation: metrics with intervals, calibration, misclassified slices"),
            ("MODEL_CARD.md", "model card"),
            ("DATASET_CARD.md", "dataset card"),
        ),
    ),
    (
        "Pictures",
        (
            ("curves.png", "loss and accuracy by epoch, training and validation slices"),
            ("confusion.png", "confusion matrix of the validation slices"),
            ("evaluation*/*.png", "of the evaluation"),
        ),
    ),
    (
        "Files",
        (
            ("run.json", "recipe, options, versions, data, split, metrics"),
            ("metrics.jsonl", "metrics of each epoch, one JSON line for each"),
            ("evaluation*/evaluation.json", "metrics of the evaluation"),
            ("model.safetensors", "the weights"),
            ("split.csv", "every slice: name, class, patient, part. Do not share: contains file names"),
            ("evaluation*/predictions.csv", "every evaluated slice. Do not share: contains file names"),
        ),
    ),
)


def linked(run: Path) -> list[str]:
    """The files of a run directory that its index links, relative to it, with `/`."""
    patterns = [pattern for _, group in _GROUPS for pattern, _ in group]
    return sorted({path.relative_to(run).as_posix() for pattern in patterns for path in run.glob(pattern)})


def index_page(name: str, record: dict[str, Any], files: Iterable[str]) -> str:
    """The HTML text. name: of the run directory. record: its `run.json`. files: relative to it, as of `linked`."""
    found = [Path(file) for file in sorted(set(files))]
    recipe, metrics = record["recipe"], record["metrics"]
    shown = captions(label_set_of(record, Path(name)))
    groups = [
        (heading, [link for pattern, what in group for link in _links(found, pattern, what, shown)])
        for heading, group in _GROUPS
    ]
    return html(
        "train/cards/index.html.j2",
        title=f"Training run {public_run(name, record['weights_sha256']).removeprefix('run-')}",
        answer=f"Recipe {recipe['name']} ({recipe['architecture']}): accuracy {number(metrics['accuracy'], True)} of "
        f"{metrics['slices']} validation slices.",
        evaluated=any(path.name == "report.html" for path in found),
        groups=groups,
    )


def _links(files: Iterable[Path], pattern: str, what: str, shown: dict[str, str]) -> list[tuple[str, str]]:
    """Path and description of the files that match. shown: what the pictures of an evaluation show, by file name."""
    found = [path for path in files if path.match(pattern) and len(path.parts) == pattern.count("/") + 1]
    return [(path.as_posix(), shown.get(path.name, what) if len(path.parts) > 1 else what) for path in found]
