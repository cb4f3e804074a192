"""Words for data whose patients nobody knows: what can be said all the same, and what to do."""

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
    """Why there is no split by patient, and what to do."""
    data = shlex.quote(str(path))
    seen = "".join(f" Seen: {note}." for note in who.notes)
    return (
        f"PATIENTS UNKNOWN in {path}: neither names, tables nor headers identify them, and image similarity does not "
        f"either, so no split by patient can be made. {at_least(bound)}{seen} {WHAT_TO_DO} {program('train.audit')} "
        f"--data {data} says what can be said. --split slice trains all the same; then no figure is about patients."
    )


def at_least(bound: LeakBound) -> str:
    """The lower bound of a random split's leakage, as a sentence."""
    if bound.leaked < 0.005:
        return "How much a random split of this data leaks is not known."
    return (
        f"A random split of this data leaks at least {math.floor(100 * bound.leaked)} %: so many of its test slices "
        "show a head that is in training too."
    )
