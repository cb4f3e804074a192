"""Sections of the cards about the data: classes, patients, and the split."""

from __future__ import annotations

from stageproof.runtime.labels import LABELS
from stageproof.train.cards.markdown import table
from stageproof.train.cards.text import ONE_CLASS
from stageproof.train.reports.facts import Facts
from stageproof.train.reports.formatting import number, people_in, unit_of
from stageproof.train.runs.record import recorded_verdict


def training_data(run: Facts, found: Facts) -> str:
    """What was trained on, by class."""
    rows = []
    for label in LABELS:
        slices, share = (found(f"data.training.{what}_by_class.{label}") for what in ("slices", "share"))
        rows.append([label, str(slices), number(share, True), *people_by_class(found, label)])
    people = ["patients trained on", "patients held out"] if found.known("data.patients") else []
    heads = ["class", "slices trained on", "share", *people]
    note = f"\n\n{ONE_CLASS}" if people else ""
    return f"## Training data\n\n{split(run, found)}\n\n{table(heads, rows)}{note}"


def distribution(run: Facts, found: Facts) -> str:
    """The whole data by class."""
    rows = []
    for label in LABELS:
        slices, share = run(f"data.slices_by_class.{label}"), found(f"data.share_by_class.{label}")
        rows.append([label, str(slices), number(share, True), *people_by_class(found, label)])
    people = ["patients trained on", "patients held out"] if found.known("data.patients") else []
    note = f"\n\n{ONE_CLASS}" if people else ""
    return f"## Classes\n\n{table(['class', 'slices', 'share', *people], rows)}{note}"


def patients(run: Facts) -> str:
    """How many patients the data is of, in words."""
    if run.known("data.patients"):
        return f"{run('data.patients')} patients"
    if run.known("data.groups", optional=True):
        return f"an unknown number of patients, in {run('data.groups')} groups"
    return "an unknown number of patients"


_FROM = {
    "file": "a groups file that was given with the data",
    "table": "a column of the table that lists the slices",
    "participants": "participants.tsv",
    "dicom": "the patient ids of the DICOM headers, kept only as keyed digests",
    "names": "the ids in the file names",
    "pattern": "the ids that a given pattern finds in the file names",
    "folders": "the folder that each slice is in",
    "source": "the source itself",
}


def where_from(run: Facts) -> str:
    """Where the patients are known from."""
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
        return f"Groups from image similarity: each holds whole people, how many is not known.{_error(run)}"
    text = f"From {_FROM.get(kind, kind)}."
    if verdict == "groups":
        text += " An id may be that of a scan, or a group may hold several people, so their number is not known."
    if run.known("data.id_check", optional=True) and run("data.id_check.joined_ids"):
        text += (
            f" {run('data.id_check.joined_ids')} of {run('data.id_check.ids')} ids show a head that another id shows "
            "too; they were joined."
        )
    return text


def _error(run: Facts) -> str:
    """The stated probability that somebody is in two groups."""
    if not run.known("data.similarity", optional=True) or not run.known("data.similarity.error"):
        return ""
    return f" The probability that some person is in two groups is at most {run('data.similarity.error')!r}."


def _levels(run: Facts) -> str:
    """How similar slices of one patient and of two are."""
    if not run.known("data.similarity", optional=True) or not run.known("data.similarity.below"):
        return ""
    return (
        f": slices of different patients correlate at most {run('data.similarity.below'):.4f}, and each slice at least "
        f"{run('data.similarity.above'):.4f} with another of its patient"
    )


def split(run: Facts, found: Facts) -> str:
    """Who was trained on and who was held out."""
    held = found("data.slices")
    unit = unit_of(found("data"))
    who = f" of {people_in(found('data'))}" if found.known(f"data.{unit}", optional=True) else ""
    text = (
        f"{found('data.training.slices')} slices were trained on and {held}{who} held out (split by {run('split.by')}, "
        f"fold {run('split.fold')}, seed {run('split.seed')})."
    )
    if not found.known("data.leaked"):
        return f"{text} How many people are in both is not known."
    leaked = number(found("data.leaked"), True)
    of = "are of a group" if unit == "groups" else "show a patient"
    return f"{text} {leaked} of the slices held out {of} that was trained on."


def people_by_class(found: Facts, label: str) -> list[str]:
    """Patients of the class that were trained on and that were held out, as cells; none where they are unknown."""
    if not found.known("data.patients"):
        return []
    sides = ("data.training.patients_by_class", "data.patients_by_class")
    return [str(found(f"{side}.{label}")) for side in sides]
