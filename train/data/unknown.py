"""Messages for data with unknown patients."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from stageproof.runtime.text.hints import program
from stageproof.train.data.identity.identify import Identified
from stageproof.train.data.leak_bound import LeakBound

WHAT_TO_DO = (
    "Give the ids: --groups FILE.csv (columns file and patient), --patient-pattern REGEX for ids in file names, or "
    "--data LIST.csv (columns path, label and patient). Ids are usually in the names of the original archive, in its "
    "participants.tsv or clinical table, or in the DICOM headers (docs/PATIENT_IDS.md)."
)


def refusal(path: Path | None, who: Identified, bound: LeakBound) -> str:
    """The error message for a split by patient of data with unknown patients."""
    data = shlex.quote(str(path))
    seen = "".join(f" Found: {note}." for note in who.notes)
    return (
        f"PATIENTS UNKNOWN in {path}: neither names, tables or headers nor image similarity identify the patients, so "
        f"a split by patient is not possible. {at_least(bound)}{seen} {WHAT_TO_DO} {program('train.audit')} --data "
        f"{data} reports what is known. To train without patient ids, use --split slice; there are then no metrics by "
        "patient."
    )


def at_least(bound: LeakBound) -> str:
    """One sentence on the lower bound of the leakage of a random split."""
    if bound.leaked < 0.005:
        return "The leakage of a random split of this data is unknown."
    return (
        f"In a random split of this data, at least {math.floor(100 * bound.leaked)} % of the test slices show a "
        "patient who is also in training."
    )
