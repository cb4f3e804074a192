"""Formatting of predictions for the command line: text for people, CSV for programs, and a progress line."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from stageproof.runtime.prediction import Prediction, StudyPrediction
from stageproof.runtime.text.escapes import cell, drawable, line

_BEFORE = ("file", "status", "label", "cdr", "probability")
_AFTER = ("code", "reason", "warnings", "model_digest", "backend", "precision")
_TIMES = ("read_ms", "preprocess_ms", "inference_ms")
_OF = "probability of "


def text(name: str, prediction: Prediction) -> str:
    """The prediction as two or three lines of text; only the file name and the reason may exceed 80 columns."""
    lines = [line(name)]
    if prediction.label is not None:
        lines.append(f"  {_named(prediction)}  {prediction.probability:.1%}")
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
        lines.append(f"  {_named(study)}  {study.probability:.1%}, {study.agreement:.0%} of slices agree")
    else:
        lines.append(f"  {study.status}: {line(str(study.reason))}")
    lines += _wrapped([f"{name} {value:.1%} ± {study.spread[name]:.1%}" for name, value in study.probabilities.items()])
    if study.method == "mean" and study.used:
        lines.append("  note: mean of the slices, not calibrated for studies: the bundle has no rule for them")
    lines += ["  note: guard: none"] if any(one.guard == "none" for one in study.slices) else []
    return "\n".join(lines)


def columns(classes: Sequence[str]) -> tuple[str, ...]:
    """Columns of the CSV output. classes: the model's class names in clinical order; each has a column with its
    probability, called ``probability of NAME`` if its name is that of another column."""
    return (*_BEFORE, *(f"{_OF}{name}" if _is_taken(name) else name for name in classes), *_AFTER, *_TIMES)


def classes_in(found: Sequence[str]) -> tuple[str, ...] | None:
    """The class names in the columns of a CSV output; None if these are not columns that `columns` returns."""
    named = found[len(_BEFORE) : -len(_AFTER) - len(_TIMES)]
    names = tuple(one.removeprefix(_OF) if _is_taken(one) else one for one in named)
    return names if len(names) > 1 and columns(names) == tuple(found) else None


def _is_taken(name: str) -> bool:
    """Whether a class of this name cannot have a column of this name: another column is called so, or may be, since a
    class called ``label`` has the column ``probability of label``."""
    while name.startswith(_OF):
        name = name.removeprefix(_OF)
    return name in (*_BEFORE, *_AFTER, *_TIMES)


def row(name: str, prediction: Prediction, classes: Sequence[str]) -> str:
    """One line of CSV, with the columns of `columns`. A cell without a value is empty."""
    values: list[object] = [
        name,
        *(getattr(prediction, column) for column in _BEFORE[1:]),
        *(prediction.probabilities.get(one) for one in classes),
        *("; ".join(notes(prediction)) if column == "warnings" else getattr(prediction, column) for column in _AFTER),
        *(f"{getattr(prediction.timings, column):.3f}" for column in _TIMES),
    ]
    ordered = ["" if value is None else value for value in values]
    return csv_line([cell(value) if isinstance(value, str) else value for value in ordered])


def header(classes: Sequence[str]) -> str:
    """The header line of the CSV output. classes: as for `columns`."""
    return csv_line([cell(column) for column in columns(classes)])


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


def _named(result: Prediction | StudyPrediction) -> str:
    """The class, with its Clinical Dementia Rating where it has one that its name does not state."""
    rated = result.cdr is not None and f"CDR {result.cdr:g}" != result.label
    return f"{result.label} (CDR {result.cdr:g})" if rated else str(result.label)


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
