"""Checks of a volume that has been read: the patient's age, and whether the voxels show a whole head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stageproof.runtime.errors import VolumeError
from stageproof.runtime.volume.volume import Volume

SMALLEST_EXTENT = (120.0, 150.0, 120.0)
"""mm from left to right, back to front and bottom to top that a volume must cover; an adult's brain has about 140 x 170
x 120."""
MOST_CUT = 0.05
"""Largest share of the outermost plane of the top, front, back or a side that tissue may fill. Noses and ears that
touch an edge stay below; a head cut 1 cm below the vertex does not."""
_AIR = 0.2
"""Tissue is brighter than this share of the volume's 98th percentile."""
_STEP_MM = 3.0
"""Voxels are examined on a grid of about this spacing."""


@dataclass(frozen=True)
class Population:
    """Ages that a model's training data covers."""

    lowest: float = 18.0
    highest: float | None = None
    source: str = "population unknown: adults only"
    """Where the limits come from, for results and messages."""


ADULTS = Population()


def check_age(
    volume: Volume, age: float | None = None, population: Population = ADULTS, *, allow_unknown: bool = False
) -> float | None:
    """The patient's age in years: that of the header, or `age`, which states it where the header does not.

    allow_unknown: return None instead of an error if neither states it.
    Raises VolumeError: ``age_unknown``, ``age_conflict``, ``age_outside_population``.
    """
    stated = volume.facts.age
    if age is not None and not 0.0 <= age <= 130.0:
        raise VolumeError("age_conflict", f"age is {age}; expected 0 to 130 years.")
    if stated is not None and age is not None and abs(stated - age) > 1.0:
        raise VolumeError(
            "age_conflict", f"the header states an age of {stated:g} years, the caller {age:g}. Correct one of them."
        )
    known = age if stated is None else stated
    if known is None and not allow_unknown:
        raise VolumeError(
            "age_unknown",
            "the age of the patient is not stated, and images of children pass all other checks. Pass age=YEARS, or "
            "allow_unknown_age=True.",
        )
    highest = float("inf") if population.highest is None else population.highest
    if known is not None and not population.lowest <= known <= highest:
        limits = f"{population.lowest:g}" + (" or more" if population.highest is None else f" to {highest:g}")
        raise VolumeError(
            "age_outside_population",
            f"the patient is {known:.3g} years old; the model is for {limits} years ({population.source}). There is no "
            "result for this patient.",
        )
    return known


def check_content(volume: Volume) -> None:
    """Raise VolumeError unless the voxels show a whole head: ``no_signal``, ``field_of_view``, ``truncated``."""
    if not np.isfinite(volume.voxels).all():
        raise VolumeError("no_signal", "the volume has values that are not finite numbers. Export it again.")
    strides = tuple(max(round(_STEP_MM / step), 1) for step in volume.spacing)
    coarse = volume.voxels[:: strides[0], :: strides[1], :: strides[2]]
    low, high = np.percentile(coarse.astype(np.float64), (2.0, 98.0))  # differences may exceed float32
    if high <= low:
        raise VolumeError("no_signal", "the volume has the same value nearly everywhere. Export it again.")
    for name, found, needed in zip(("width", "length", "height"), volume.extent, SMALLEST_EXTENT, strict=True):
        if found < needed:
            raise VolumeError(
                "field_of_view", f"the volume's {name} is {found:.0f} mm; a head needs {needed:.0f} mm. Scan it whole."
            )
    tissue = coarse > low + _AIR * (high - low)
    for name, share in cut_shares(tissue).items():
        if share > MOST_CUT:
            raise VolumeError(
                "truncated",
                f"tissue fills {share:.0%} of the volume's {name} plane, at most {MOST_CUT:.0%} expected: the head "
                "continues beyond it. Pass a series of the whole head.",
            )


def cut_shares(tissue: np.ndarray) -> dict[str, float]:
    """Share of tissue in the outermost planes of a (X, Y, Z) mask in RAS order; the bottom, where the neck is, is none
    of them."""
    planes = {
        "left": tissue[0],
        "right": tissue[-1],
        "back": tissue[:, 0],
        "front": tissue[:, -1],
        "top": tissue[:, :, -1],
    }
    return {name: float(plane.mean()) for name, plane in planes.items()}
