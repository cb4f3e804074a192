"""Formatting of predictions for the command line: text for people, CSV for programs, and a progress line."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable
from typing import TextIO

from stageproof.runtime.labels import LABELS
from stageproof.runtime.prediction import Prediction, StudyPrediction
from stageproof.runtime.text.escapes import cell, drawable, line

COLUMNS = (
    *("file", "status", "label", "cdr", "probability", *LABELS, "code", "reason", "warnings"),
    *("model_digest", "backend", "precision", "read_ms", "preprocess_ms", "inference_ms"),
)
"""Columns of the CSV output. A cell without a value is empty."""


def text(name: str, prediction: Prediction) -> str:
    """The prediction as two or three lines of text; only the file name and the reason may exceed 80 columns."""
    lines = [line(name)]
    if prediction.label is not None:
        lines.append(f"  {prediction.label} (CDR {prediction.cdr:g})  {prediction.probability:.1%}")
    else:
        lines.append(f"  {prediction.status}: {line(str(prediction.reason))}")
    if prediction.probabilities:
        lines += _wrapped([f"{label} {value:.1%}" for label, value in prediction.probabilities.items()])
    lines += [f"  note: {line(warning)}" for warning in notes(prediction)]
    return "\n".join(lines)


def notes(prediction: Prediction) -> list[str]:
    """Notes shown below a prediction: its warnings, and a missing guard."""
    return [*prediction.warnings, *(["guard: none"] if prediction.guard == "none" else [])]


def study_text(study: StudyPrediction) -> str:
    """The prediction for a patient, as text."""
    lines = [f"{len(study.slices)} slices, {len(study.used)} used, {len(study.rejected)} rejected"]
    if study.label is not None:
        lines.append(
            f"  {study.label} (CDR {study.cdr:g})  {study.probability:.1%}, {study.agreement:.0%} of slices agree"
        )
    else:
        lines.append(f"  {study.status}: {line(str(study.reason))}")
    lines += _wrapped([f"{name} {value:.1%} ± {study.spread[name]:.1%}" for name, value in study.probabilities.items()])
    if study.method == "mean" and study.used:
        lines.append("  note: mean of the slices, not calibrated for studies: the bundle has no rule for them")
    lines += ["  note: guard: none"] if any(one.guard == "none" for one in study.slices) else []
    return "\n".join(lines)


def row(name: str, prediction: Prediction) -> str:
    """One line of CSV, with the columns of `COLUMNS`."""
    timings = prediction.timings
    values: dict[str, object] = {
        **{column: getattr(prediction, column, "") for column in COLUMNS},
        **{label: prediction.probabilities.get(label) for label in LABELS},
        "file": name,
        "warnings": "; ".join(notes(prediction)),
        "read_ms": f"{timings.read_ms:.3f}",
        "preprocess_ms": f"{timings.preprocess_ms:.3f}",
        "inference_ms": f"{timings.inference_ms:.3f}",
    }
    ordered = ["" if values[column] is None else values[column] for column in COLUMNS]
    return csv_line([cell(value) if isinstance(value, str) else value for value in ordered])


def header() -> str:
    """The header line of the CSV output."""
    return csv_line(list(COLUMNS))


class Progress:
    """A progress line, `12/340 images, 45.1 images/s, 7 s left`, updated in place; only on a terminal."""

    def __init__(self, total: int, stream: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._stream, self._clock = total, stream, clock
        self._begun = self._shown = clock()
        self._done = 0
        self._live = total > 1 and stream.isatty()
        self._stream = drawable(stream)

    def advance(self) -> None:
        """Count one more image."""
        self._done += 1
        now = self._clock()
        if self._live and (now - self._shown >= 0.2 or self._done == self._total):
            self._shown = now
            speed = self._done / max(now - self._begun, 1e-9)
            left = (self._total - self._done) / speed
            text = f"{self._done}/{self._total} images, {speed:.1f} images/s, {left:.0f} s left"
            self._stream.write(f"\r{text:<60}" + ("\n" if self._done == self._total else ""))
            self._stream.flush()


def _wrapped(parts: list[str]) -> list[str]:
    """The parts joined into lines of at most 80 columns."""
    lines = ["  "]
    for part in parts:
        if len(lines[-1]) + len(part) > 78 and lines[-1].strip():
            lines.append("  ")
        lines[-1] += ("  " if lines[-1].strip() else "") + part
    return lines


def csv_line(values: list[object]) -> str:
    """One line of CSV, terminated by LF."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(values)  # so that values containing CR or LF are quoted
    return buffer.getvalue()[:-2] + "\n"
