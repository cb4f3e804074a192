"""Who the patients of decoded slices are: by the ids of the source, checked by the pixels; by image similarity; or
unknown, and then what can still be said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stageproof.train.data.identity.id_check import IdCheck, check_ids
from stageproof.train.data.ids import WORDS, Ids
from stageproof.train.data.patients.from_pixels import Patients, identify_patients


@dataclass(frozen=True)
class Identified:
    """Whose each of N slices is, and how that is known."""

    groups: np.ndarray
    """(N,) int64 from 0; what a group is, `verdict` says."""
    verdict: str
    """``patients``: each group is one person. ``groups``: a group may be several people, or a scan of somebody who has
    other scans; nobody knows how many people there are. ``unknown``: near-identical pictures only."""
    kind: str
    """Where that comes from: a key of `train.data.ids.WORDS`."""
    origin: str
    """The same for people, with an example."""
    ids: Ids | None = None
    """The ids that are used; None for image similarity, and where nobody knows."""
    check: IdCheck | None = None
    """What the pixels say of ids, used or not; None where the source gave none to check."""
    similarity: Patients | None = None
    """What image similarity shows where it was looked at."""
    notes: tuple[str, ...] = ()
    """Ids that were seen but not used, and why."""

    @property
    def unit(self) -> str | None:
        """What figures are counted and resampled by: ``patients`` or ``groups``; None where nobody knows."""
        return None if self.verdict == "unknown" else self.verdict

    @property
    def undecided(self) -> np.ndarray:
        """(N,) bool, slices that may be of several groups: no part of a split may have them."""
        told = [one.undecided for one in (self.ids, self.similarity) if one is not None and one.undecided is not None]
        return told[0] if told else np.zeros(len(self.groups), bool)

    @property
    def count(self) -> int:
        """Number of groups, but for those of undecided slices."""
        return len(np.unique(self.groups[~self.undecided]))

    @property
    def sessions(self) -> int | None:
        """Number of sessions; None where the source names none."""
        return None if self.ids is None or self.ids.sessions is None else len(np.unique(self.ids.sessions))

    def facts(self) -> dict[str, Any]:
        """What `run.json` and `audit.json` say of it; JSON-ready, and without any id.

        patients: their number, None unless it is known. groups: the number of groups, None unless they are groups.
        undecided: slices that may be of several groups.
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
        """Who the slices are of, what the pixels say of the ids, and what was not used: for a terminal."""
        text = [self.sentence(), *self.check_lines(), *(f"note: {note}" for note in self.notes)]
        if undecided := int(self.undecided.sum()):
            text.append(f"{undecided} slices left out: they may be of several of the {self.verdict}")
        return [line[0].upper() + line[1:] if line[0].islower() else line for line in text]

    def check_lines(self) -> list[str]:
        """What the pixels say of the ids that are used; nothing where they agree."""
        if self.check is None or self.ids is None:
            return []
        text = []
        if self.check.joined:
            text.append(
                f"{self.check.joined} ids show a head that another id shows too; joined, {self.check.ids} ids are "
                f"{self.count} {self.verdict} ({self.check.twins} slices are nearly the same picture under two ids)"
            )
        if self.check.two_heads:
            text.append(f"DOUBTFUL: slices of {len(self.check.two_heads)} ids look like two heads under one id")
        return text

    def sentence(self) -> str:
        """Who the slices are of, and where that comes from, in one line."""
        if self.verdict == "unknown":
            return "patients unknown: no ids were found, and image similarity does not identify them"
        if self.kind == "pixels":
            if self.verdict == "patients":
                return f"{self.count} patients, identified from image similarity"
            return f"{self.count} groups from image similarity, of whole people each: at least {self.count} people"
        told = "" if self.ids is None else f" ({self.ids.counted()}; {self.origin})"
        if self.verdict == "groups" and self.ids is not None and self.ids.scans:
            return f"{self.count} groups by ids from {WORDS[self.kind]}, which may be those of scans{told}"
        return f"{self.count} {self.verdict} by ids from {WORDS[self.kind]}{told}"


def identify(
    thumbnails: np.ndarray, groups: np.ndarray | None, ids: Ids | None, notes: tuple[str, ...] = ()
) -> Identified:
    """Who the patients are.

    thumbnails: (N, S, S) uint8, S a multiple of 32; not looked at where `groups` is given without `ids`.
    groups: (N,) int64 from a source that made the slices. ids: what the source names; assumed ones are used only where
        the pixels confirm them. Ids whose slices show one head are joined.
    """
    if ids is None and groups is not None:
        return Identified(_from_zero(groups), "patients", "source", "the source itself", notes=notes)
    check = None
    if ids is not None:
        check = check_ids(thumbnails, ids)
        against = check.contradicted() if ids.assumed else None
        if against is None:
            verdict = "groups" if ids.scans else ids.verdict
            return Identified(check.groups, verdict, ids.kind, ids.origin, ids, check, notes=notes)
        notes += (f"{ids.origin}: not used, since {against}",)
    found = identify_patients(thumbnails)
    kind = "pixels" if found.found else "nothing"
    return Identified(found.groups, found.verdict, kind, WORDS[kind], None, check, found, notes)


def _from_zero(groups: np.ndarray) -> np.ndarray:
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)
