"""Which series of a study is read as its T1-weighted volume: what it must be, and what is preferred.

`REQUIREMENTS` refuse, `PREFERENCES` rank; both use headers and geometry only. The order of the tables is the order of
the decisions, and `runtime.volume.study.Study.explain` prints their words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stageproof.runtime.volume.stacking import Stack
from stageproof.runtime.volume.volume import SeriesFacts

LARGEST_SPACING = 2.5
"""mm: largest distance between voxels along any axis. A hippocampus is 6 to 10 mm thick."""
FEWEST_SLICES = 40

_T1_NAMES = {"t1", "t1w", "3dt1", "mprage", "rage", "mp2rage", "spgr", "fspgr", "irfspgr", "bravo", "tfe", "flash"}
_OTHER_NAMES = {
    *("t2", "t2w", "t2star", "flair", "tirm", "stir", "swi", "swan", "dwi", "adc", "dti", "trace", "diff", "pd"),
    *("pdw", "tof", "mra", "asl", "perf", "perfusion", "bold", "fmri", "rest", "fieldmap", "phase", "spectroscopy"),
}
_LOCALIZER_NAMES = {"localizer", "localiser", "scout", "survey", "loc", "3plane"}
_MAPS = {"P", "PHASE", "PHASE MAP", "ADC", "FA", "T1 MAP", "T2 MAP", "R1", "R2", "PROJECTION IMAGE", "VELOCITY"}
_CONTRAST_AGENT = {"contrast", "gadolinium", "kontrast", "gd", "gad", "gado", "post", "postcontrast", "ce", "km", "mdc"}


@dataclass(frozen=True)
class Requirement:
    """One reason to refuse a series."""

    status: str
    """A key of `runtime.volume.statuses.STATUSES`."""
    words: str
    """What a series must be."""
    problem: Callable[[SeriesFacts, Stack], str | None]
    """What this series is instead, or None."""


@dataclass(frozen=True)
class Preference:
    """One reason to prefer a series over another that meets the requirements too."""

    words: str
    rank: Callable[[SeriesFacts, Stack], float]
    """Higher is preferred."""


def _names(facts: SeriesFacts) -> set[str]:
    """Words of the description: letters and digits, in lower case."""
    return set(re.findall(r"[a-z0-9]+", facts.description.lower()))


def _modality(facts: SeriesFacts, stack: Stack) -> str | None:
    return None if facts.modality == "MR" else f"its modality is {facts.modality or 'not stated'}, expected MR"


def _localizer(facts: SeriesFacts, stack: Stack) -> str | None:
    found = _names(facts) & _LOCALIZER_NAMES or {one for one in facts.image_type if one == "LOCALIZER"}
    return "it is a localizer" if found else None


def _other_contrast(facts: SeriesFacts, stack: Stack) -> str | None:
    named, maps = _names(facts) & _OTHER_NAMES, set(facts.image_type) & _MAPS
    if named:
        return f"its description names another contrast ({', '.join(sorted(named))})"
    if maps:
        return f"its ImageType is that of a map or a phase image ({', '.join(sorted(maps))})"
    if facts.contrast not in (None, "T1", "UNKNOWN"):
        return f"its AcquisitionContrast is {facts.contrast}"
    if "EP" in facts.sequence:
        return "it is echo-planar (ScanningSequence EP)"
    if facts.echo_time is not None and facts.echo_time > 25.0:
        return f"its echo time is {facts.echo_time:g} ms; T1-weighted series have at most 25"
    long = facts.repetition_time is not None and facts.repetition_time > 1500.0
    if "SE" in facts.sequence and "IR" not in facts.sequence and facts.inversion_time is None and long:
        return f"it is a spin echo with a repetition time of {facts.repetition_time:g} ms"
    return None


def _no_evidence(facts: SeriesFacts, stack: Stack) -> str | None:
    gradient = "GR" in facts.sequence and facts.acquisition == "3D" and (facts.echo_time or 99.0) <= 15.0
    if _names(facts) & _T1_NAMES or facts.contrast == "T1" or gradient:
        return None
    return "neither its description nor its timing says that it is T1-weighted"


def _not_3d(facts: SeriesFacts, stack: Stack) -> str | None:
    spacings = [float(step) for step in np.linalg.norm(stack.affine[:3, :3], axis=0)]
    if facts.acquisition == "2D":
        return "it is a 2D acquisition"
    if max(spacings) > LARGEST_SPACING + 0.01:  # rounded in headers
        return f"its voxels are {max(spacings):.1f} mm apart; expected at most {LARGEST_SPACING:g} mm"
    if min(stack.shape) < FEWEST_SLICES:
        return f"it has {min(stack.shape)} slices; expected {FEWEST_SLICES} or more"
    if facts.thickness is not None and 0.0 < facts.thickness < 0.6 * stack.spacing:
        return f"its slices are {facts.thickness:g} mm thick and {stack.spacing:.2f} mm apart, with tissue left out"
    return None


REQUIREMENTS = (
    Requirement("modality", "MR", _modality),
    Requirement("localizer", "no localizer", _localizer),
    Requirement("not_t1", "no other contrast, map or phase image by its headers", _other_contrast),
    Requirement(
        "not_3d",
        f"a 3D acquisition with voxels of at most {LARGEST_SPACING:g} mm and {FEWEST_SLICES} slices",
        _not_3d,
    ),
    Requirement("unknown_contrast", "T1-weighted by description or timing", _no_evidence),
)

PREFERENCES = (
    Preference("no contrast agent named", lambda facts, stack: float(not _names(facts) & _CONTRAST_AGENT)),
    Preference("named T1", lambda facts, stack: float(bool(_names(facts) & _T1_NAMES))),
    Preference("original, not derived", lambda facts, stack: float("DERIVED" not in facts.image_type)),
    Preference("smaller voxels", lambda facts, stack: -round(float(abs(np.linalg.det(stack.affine[:3, :3]))), 2)),
    Preference("more slices", lambda facts, stack: float(stack.shape[2])),
)
