"""`with_ids`: finds the patient ids of a source.

The first of these that has ids is used: --patient-pattern, a column of a table, groups.csv in the data,
participants.tsv, DICOM headers, published naming conventions, folders, `ID_SLICE` names (docs/PATIENT_IDS.md).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stageproof.runtime.errors import DatasetError
from stageproof.train.data.identity.from_dicom import from_dicom
from stageproof.train.data.identity.from_names import from_names
from stageproof.train.data.identity.groups_file import read_ids
from stageproof.train.data.identity.participants import from_participants, participants_file
from stageproof.train.data.identity.patient_pattern import from_pattern
from stageproof.train.data.samples import Samples

GROUPS = "groups.csv"


def with_ids(samples: Samples, data: Path, patient_pattern: str | None) -> Samples:
    """The samples with the ids found in the source, and notes on ids that were found but not used.

    Raises InputError or DatasetError if `patient_pattern` is invalid. Invalid ids from other places, which the user did
    not ask for, become notes.
    """
    paths = list(samples.paths if samples.paths is not None else samples.names)
    if patient_pattern is not None:
        return replace(samples, ids=from_pattern(paths, patient_pattern, samples.source))
    if samples.ids is not None:
        return samples
    notes = list(samples.notes)
    own = data / GROUPS
    if data.is_dir() and own.is_file():
        try:
            return replace(samples, ids=read_ids(samples, own))
        except DatasetError as error:
            notes.append(f"groups.csv is not used. {error}")
    file = participants_file(data)
    if file is not None:
        try:
            ids, note = from_participants(paths, file)
        except DatasetError as error:
            ids, note = None, f"{file.name} is not used. {error}"
        if ids is not None:
            return replace(samples, ids=ids, notes=tuple(notes))
        notes.append(note)
    ids, note = from_dicom(samples.images)
    if ids is None:
        notes += [note] if note else []
        ids, more = from_names(paths, samples.labels, samples.classes)
        notes += more
    return replace(samples, ids=ids, notes=tuple(notes))
