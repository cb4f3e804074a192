"""What the cards say about the data: numbers by class, patients, image sizes; and the settings of the training."""

from __future__ import annotations

from typing import Any

from stageproof.train.reports.facts import Facts
from stageproof.train.reports.formatting import joined, number
from stageproof.train.reports.tables import Table
from stageproof.train.runs.record import recorded_verdict


def class_counts(found: Facts, counted: Facts, part: str) -> Table:
    """Slices and patients by class. counted: the facts with the numbers of slices of the `part`, such as ``data``."""
    known, rows = found.known("data.patients"), []
    for label in found.classes.names:
        share = found(f"{part}.share_by_class", label)
        parts = ("data.training", "data") if known else ()
        people = [str(found(f"{side}.patients_by_class", label)) for side in parts]
        rows.append((label, str(counted(f"{part}.slices_by_class", label)), number(share, True), *people))
    heads = ("class", "slices", "share", *(("patients in training", "patients held out") if known else ()))
    note = "A patient with slices of several classes counts for the most frequent one." if known else ""
    return Table(heads, tuple(rows), note)


def image_sizes(found: Facts) -> str:
    """The most frequent sizes of the images, such as ``208 × 176``."""
    count = len(found("data.sizes"))
    sizes = [tuple(found(f"data.sizes.{at}.{side}") for side in ("width", "height")) for at in range(min(count, 3))]
    return joined([f"{width} × {height}" for width, height in sizes]) + (", or other sizes," if count > 3 else "")


def patients(run: Facts) -> str:
    """Number of patients of the data, in words."""
    if run.known("data.patients"):
        return f"{run('data.patients')} patients"
    if run.known("data.groups", optional=True):
        return f"an unknown number of patients, in {run('data.groups')} groups"
    return "an unknown number of patients"


_FROM = {
    "file": "a groups file that was given with the data",
    "table": "a column of the table that lists the slices",
    "participants": "participants.tsv",
    "dicom": "the patient ids of the DICOM headers, stored only as keyed digests",
    "names": "the ids in the file names",
    "pattern": "the ids that a given pattern finds in the file names",
    "folders": "the folder of each slice",
    "source": "the source itself",
}


def patients_from(run: Facts) -> str:
    """How the patients were identified."""
    kind, verdict = run("data.patients_told_by"), recorded_verdict(run.content)
    if kind == "pixels" and run.known("data.similarity", optional=True):
        run("data.similarity.verdict")
    if verdict == "unknown":
        if kind == "pixels":
            return "Unknown: the run identified them with a method of an earlier version that could be wrong."
        return "Unknown: the source has no ids, and image similarity does not identify the patients."
    if kind == "pixels":
        if verdict == "patients":
            return f"Identified from image similarity{_levels(run)}.{_error(run)}"
        return f"Groups from image similarity: each contains whole patients, how many is unknown.{_error(run)}"
    text = f"From {_FROM.get(kind, kind)}."
    if verdict == "groups":
        text += " An id may be that of a scan, or a group may contain several patients, so their number is unknown."
    if run.known("data.id_check", optional=True) and run("data.id_check.joined_ids"):
        text += (
            f" {run('data.id_check.joined_ids')} of {run('data.id_check.ids')} ids show the same head as another id; "
            "they were merged."
        )
    return text


def _error(run: Facts) -> str:
    """The stated probability that a patient is in two groups."""
    if not run.known("data.similarity", optional=True) or not run.known("data.similarity.error"):
        return ""
    return f" The probability that any patient is in two groups is at most {run('data.similarity.error')!r}."


def _levels(run: Facts) -> str:
    """How similar slices of one patient and of two are."""
    if not run.known("data.similarity", optional=True) or not run.known("data.similarity.below"):
        return ""
    return (
        f": slices of different patients correlate at most {run('data.similarity.below'):.4f}, and each slice at least "
        f"{run('data.similarity.above'):.4f} with another of its patient"
    )


def settings(run: Facts) -> Table:
    """Every setting of the recipe, the device and the split."""
    rows: list[tuple[str, str]] = []
    for name, value in run("recipe").items():
        nested = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(f"{name} {key}".strip().replace("_", " "), _plain(entry)) for key, entry in nested]
    rows += [(name, _plain(run(name))) for name in ("arithmetic", "device")]
    rows += [(f"split {name}", _plain(run(f"split.{name}"))) for name in ("by", "fold", "seed")]
    return Table(("setting", "value"), tuple(rows))


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else "no" if value is False else "yes" if value is True else str(value)
