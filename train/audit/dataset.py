"""`audit`: audits a dataset and writes the report folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import label_set
from stageproof.runtime.system.work_folders import make_private, unmark, work_folder
from stageproof.train.data.identity.patient_pattern import compile_pattern

if TYPE_CHECKING:
    from stageproof.runtime.labels import LabelSet
    from stageproof.train.data.decode import Slices, Unreadable
    from stageproof.train.data.identity.identify import Identified
    from stageproof.train.data.patients.from_pixels import Patients
    from stageproof.train.data.samples import Samples


def audit(
    data: Path,
    out: Path,
    groups: Path | None = None,
    patient_pattern: str | None = None,
    classes: LabelSet | None = None,
    positive: Sequence[str] = (),
) -> dict[str, Any]:
    """The findings of the audit, JSON-serialisable.

    Also writes the new folder `out`: `audit.json` and `audit.html`, in which files have pseudonyms (keyed digests);
    `names.json`, with the file of each pseudonym; and, if patients or groups are known, `groups.csv`.

    data: as for `python -m train`, or a folder of such folders, such as train/ and test/. groups: a groups file.
    patient_pattern: regular expression that extracts ids from paths. Without both, the patients come from ids in the
    data, else from image similarity. classes: the label set; None: recognised from the data.
    positive: its positive classes; (): the usual ones.

    Raises DatasetError if the data cannot be read or `out` exists already; InputError for an invalid pattern.
    """
    if out.exists():
        raise DatasetError(f"{out} exists already. Give another --out; nothing was written.")
    if patient_pattern is not None:
        compile_pattern(patient_pattern)
    from stageproof.train.audit.findings import find
    from stageproof.train.data.decode import thumbnails_only
    from stageproof.train.data.identity.groups_file import with_groups
    from stageproof.train.data.identity.identify import identify
    from stageproof.train.data.patients.from_pixels import identify_patients
    from stageproof.train.data.sources.source import load_parts

    samples, part = load_parts(data, patient_pattern, classes)
    if positive:
        samples = replace(samples, classes=label_set(samples.classes.names, positive))
    if groups is not None:
        samples = with_groups(samples, groups)
    slices, unreadable = thumbnails_only(samples, max_unreadable=1.0)
    if part is not None:
        left_out = {item.name for item in unreadable}
        part = part[[name not in left_out for name in samples.names]]
    who = identify(slices.thumbnails, slices.groups, slices.ids, samples.notes)
    patients = who.similarity or identify_patients(slices.thumbnails)
    findings = find(samples, slices, unreadable, who, patients, part)
    _write(findings, samples, slices, unreadable, who, patients, out)
    return findings


def _write(
    findings: dict[str, Any],
    samples: Samples,
    slices: Slices,
    unreadable: Sequence[Unreadable],
    who: Identified,
    patients: Patients,
    out: Path,
) -> None:
    """Write a temporary folder beside `out` and rename it, so that `out` is never incomplete."""
    import numpy as np

    from stageproof.train.audit.names import names_file, without_names
    from stageproof.train.audit.page import page
    from stageproof.train.data.identity.groups_file import write_groups
    from stageproof.train.runs.pseudonyms import PHANTOM, Pseudonyms, write_private

    pseudonyms = Pseudonyms()
    made = samples.source.startswith(PHANTOM)
    public = findings if made else without_names(findings, samples.names, samples.skipped, pseudonyms)
    html = page(public, slices, who, patients)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(out.parent, f".{out.name}-") as staging:
            (staging / "audit.json").write_text(json.dumps(public, indent=2) + "\n", encoding="utf-8")
            (staging / "audit.html").write_text(html, encoding="utf-8")
            if not made:
                kept = json.dumps(names_file(findings, pseudonyms, samples.names), indent=1) + "\n"
                write_private(staging / "names.json", kept.encode())
            if who.unit is not None:
                groups = who.groups
                # --groups needs a row for every file. The patients of unreadable files are unknown: one group each.
                unreadable_groups = groups.max() + 1 + np.arange(len(unreadable))
                names = [*slices.names, *(item.name for item in unreadable)]
                every, aside = np.concatenate([groups, unreadable_groups]), np.zeros(len(names), bool)
                aside[: len(groups)] = who.undecided
                write_groups(staging / "groups.csv", names, every, who.verdict, aside)
            unmark(staging)
            make_private(staging)
            staging.rename(out)
    except OSError as error:
        raise DatasetError(f"{out} cannot be written: {error}. Give another --out.") from error
