"""`read_volume`: a series of a head → a `Volume` that passed the gate."""

from __future__ import annotations

from typing import Any

from stageproof.runtime.volume.gate import ADULTS, Population, check_age, check_content
from stageproof.runtime.volume.study import open_study, volume_of
from stageproof.runtime.volume.volume import Volume


def read_volume(
    source: Any,
    *,
    age: float | None = None,
    allow_unknown_age: bool = False,
    assume_t1: bool = False,
    population: Population = ADULTS,
) -> Volume:
    """The T1-weighted volume of a study.

    source: the path of a folder at any depth, a zip archive, a NIfTI or enhanced DICOM file, or an iterable of paths.
    age: years, where the headers do not state them; NIfTI files never do.
    allow_unknown_age: accept a volume whose age nobody states.
    assume_t1: accept a series whose headers do not say that it is T1-weighted.
    population: ages that the model is for.

    Raises VolumeError, whose `status` is a key of `runtime.volume.statuses.STATUSES`; ImageError for a slice that
    cannot be decoded; DependencyError without the extra `volume`.
    """
    volume = volume_of(open_study(source, assume_t1=assume_t1))
    check_age(volume, age, population, allow_unknown=allow_unknown_age)
    check_content(volume)
    return volume
