"""Patients identified from image similarity: `identify_patients` on the thumbnails of a data set without ids."""

from stageproof.train.data.patients.from_pixels import Patients, identify_patients
from stageproof.train.data.patients.thumbnails import thumbnail

tell_apart = identify_patients
"""The name of `identify_patients` in version 0.1."""

__all__ = ["Patients", "identify_patients", "tell_apart", "thumbnail"]
