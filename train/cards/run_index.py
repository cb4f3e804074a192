"""The page of a run directory that links its other pages, its pictures and its files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stageproof.runtime.text.escapes import markup as escape
from stageproof.train.reports.evaluation_page import CAPTIONS
from stageproof.train.reports.formatting import number
from stageproof.train.reports.html import document
from stageproof.train.runs.pseudonyms import public_run

INDEX = "index.html"
_GROUPS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Reports",
        (
            ("evaluation*/report.html", "evaluation: figures with intervals, calibration, misclassified slices"),
            ("MODEL_CARD.md", "model card"),
            ("DATASET_CARD.md", "dataset card"),
        ),
    ),
    (
        "Pictures",
        (
            ("curves.png", "loss and accuracy by epoch, training and validation slices"),
            ("confusion.png", "confusion matrix of the validation slices"),
            ("evaluation*/*.png", "from the evaluation"),
        ),
    ),
    (
        "Files",
        (
            ("run.json", "recipe, options, versions, data, split, metrics"),
            ("metrics.jsonl", "the figures of each epoch, one line an epoch"),
            ("evaluation*/evaluation.json", "the figures of the evaluation"),
            ("model.safetensors", "the weights"),
            ("split.csv", "every slice: name, class, patient, part. Do not pass on: it has file names"),
            ("evaluation*/predictions.csv", "every evaluated slice. Do not pass on: it has file names"),
        ),
    ),
)


def linked(run: Path) -> list[str]:
    """The files of a run directory that its index links, relative to it, with `/`."""
    patterns = [pattern for _, group in _GROUPS for pattern, _ in group]
    return sorted({path.relative_to(run).as_posix() for pattern in patterns for path in run.glob(pattern)})


def index_page(name: str, record: dict[str, Any], files: Iterable[str]) -> str:
    """The HTML text. name: of the run directory. record: its `run.json`. files: relative to it, as of `linked`."""
    title = f"Training run {public_run(name, record['weights_sha256']).removeprefix('run-')}"
    found = [Path(file) for file in sorted(set(files))]
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="headline">{escape(_answer(record))}</p>']
    for heading, group in _GROUPS:
        items = [
            f'<li><a href="{quote(path.as_posix())}">{escape(path.as_posix())}</a>: {escape(_what(path, what))}</li>'
            for pattern, what in group
            for path in found
            if path.match(pattern) and len(path.parts) == pattern.count("/") + 1
        ]
        if items:
            parts.append(f"<h2>{heading}</h2><ul>{''.join(items)}</ul>")
    if not any(path.name == "report.html" for path in found):
        parts.insert(2, '<p class="note">Not evaluated yet: python -m train.evaluate, with this folder.</p>')
    return document(title, parts, "Research use only. Not a medical device.")


def _what(path: Path, what: str) -> str:
    return CAPTIONS.get(path.name, what) if len(path.parts) > 1 else what


def _answer(record: dict[str, Any]) -> str:
    recipe, metrics = record["recipe"], record["metrics"]
    accuracy = f"{number(metrics['accuracy'], True)} of {metrics['slices']} validation slices are predicted right"
    return f"Recipe {recipe['name']} ({recipe['architecture']}): {accuracy}."
