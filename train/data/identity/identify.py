"""`identify`: the patients of decoded slices, from ids (checked against image similarity) or from image similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stageproof.train.data.identity.id_check import IdCheck, check_ids
from stageproof.train.data.ids import WORDS, Ids
from stageproof.train.data.patients.from_pixels import Patients, identify_patients


@dataclass(frozen=True)
class Identified:
    """The patients or groups of N slices, and how they were identified."""

    groups: np.ndarray
    """(N,) int64 from 0; `verdict` says what they are."""
    verdict: str
    """``patients``: each group is one patient. ``groups``: a group may be several patients, or one of several scans of
    a patient; the number of patients is unknown. ``unknown``: patients are unknown, and `groups` joins near-duplicates
    only."""
    kind: str
    """Source of the groups: a key of `train.data.ids.WORDS`."""
    origin: str
    """Description of the source, with an example."""
    ids: Ids | None = None
    """The ids that are used; None if patients are unknown or identified from image similarity."""
    check: IdCheck | None = None
    """Check of the ids against image similarity, whether they are used or not; None without ids."""
    similarity: Patients | None = None
    """Patients identified from image similarity; None if ids are used."""
    notes: tuple[str, ...] = ()
    """Ids that were found but not used, with the reason."""

    @property
    def unit(self) -> str | None:
        """Sampling unit of metrics and intervals: ``patients`` or ``groups``; None if unknown."""
        return None if self.verdict == "unknown" else self.verdict

    @property
    def undecided(self) -> np.ndarray:
        """(N,) bool, slices that may belong to several groups and are left out of splits."""
        found = [one.undecided for one in (self.ids, self.similarity) if one is not None and one.undecided is not None]
        return found[0] if found else np.zeros(len(self.groups), bool)

    @property
    def count(self) -> int:
        """Number of groups, without those of undecided slices."""
        return len(np.unique(self.groups[~self.undecided]))

    @property
    def sessions(self) -> int | None:
        """Number of sessions; None if the source has none."""
        return None if self.ids is None or self.ids.sessions is None else len(np.unique(self.ids.sessions))

    def facts(self) -> dict[str, Any]:
        """Entries of `run.json` and `audit.json`; JSON-serialisable, and without ids.

        patients: number of patients if `verdict` is ``patients``, else None. groups: number of groups if `verdict` is
        ``groups``, else None. undecided: number of slices that may belong to several groups.
        """
        checked = None
        if self.check is not None and self.ids is not None:
            checked = {
                "ids": self.check.ids,
                "joined_ids": self.check.joined,
                "twin_slices": self.check.twins,
                "ids_of_two_heads": len(self.check.two_heads),
                "checked": self.check.checked,
            }
        return {
            "verdict": self.verdict,
            "patients": self.count if self.verdict == "patients" else None,
            "groups": self.count if self.verdict == "groups" else None,
            "undecided": int(self.undecided.sum()),
            "patients_told_by": self.kind,
            "ids_may_be_scans": None if self.ids is None else self.ids.scans,
            "sessions": self.sessions,
            "id_check": checked,
            "similarity": self.similarity.similarity() if self.similarity else None,
        }

    def lines(self) -> list[str]:
        """Description of the patients, the check of the ids, and ids that were not used, for a terminal."""
        text = [self.sentence(), *self.check_lines(), *(f"note: {note}" for note in self.notes)]
        if undecided := int(self.undecided.sum()):
            text.append(f"{undecided} slices left out: they may belong to several {self.verdict}")
        return [line[0].upper() + line[1:] if line[0].islower() else line for line in text]

    def check_lines(self) -> list[str]:
        """Conflicts between the ids that are used and image similarity; empty if there are none."""
        if self.check is None or self.ids is None:
            return []
        text = []
        if self.check.joined:
            text.append(
                f"{self.check.joined} ids show the same patient as another id; after merging, {self.check.ids} ids are "
                f"{self.count} {self.verdict} ({self.check.twins} slices are near-duplicates with two ids)"
            )
        if self.check.two_heads:
            text.append(f"DOUBTFUL: {len(self.check.two_heads)} ids seem to show two patients each")
        return text

    def sentence(self) -> str:
        """One sentence: number of patients or groups, and how they were identified."""
        if self.verdict == "unknown":
            return "patients unknown: no ids were found, and image similarity does not identify them"
        if self.kind == "pixels":
            if self.verdict == "patients":
                return f"{self.count} patients, identified from image similarity"
            return f"{self.count} groups from image similarity, each of one or more patients"
        details = "" if self.ids is None else f" ({self.ids.counted()}; {self.origin})"
        if self.verdict == "groups" and self.ids is not None and self.ids.scans:
            return f"{self.count} groups by ids from {WORDS[self.kind]}, which may be those of scans{details}"
        return f"{self.count} {self.verdict} by ids from {WORDS[self.kind]}{details}"


def identify(
    thumbnails: np.ndarray, groups: np.ndarray | None, ids: Ids | None, notes: tuple[str, ...] = ()
) -> Identified:
    """The patients or groups of the slices.

    thumbnails: (N, S, S) uint8, S a multiple of 32; not used if `groups` is given without `ids`.
    groups: (N,) int64, known patients of synthetic slices; None for other data. ids: found in the source. Assumed ids
        (`Ids.assumed`) are used only if image similarity confirms them. Ids that show the same patient are merged.
    """
    if ids is None and groups is not None:
        from_zero = np.unique(groups, return_inverse=True)[1].astype(np.int64)
        return Identified(from_zero, "patients", "source", "the source itself", notes=notes)
    check = None
    if ids is not None:
        check = check_ids(thumbnails, ids)
        against = check.contradicted() if ids.assumed else None
        if against is None:
            verdict = "groups" if ids.scans else ids.verdict
            return Identified(check.groups, verdict, ids.kind, ids.origin, ids, check, notes=notes)
        notes += (f"{ids.origin}: not used, because {against}",)
    found = identify_patients(thumbnails)
    kind = "pixels" if found.found else "nothing"
    return Identified(found.groups, found.verdict, kind, WORDS[kind], None, check, found, notes)
