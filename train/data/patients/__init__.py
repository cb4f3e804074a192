"""Patients identified from image similarity, where the data has no ids."""

from stageproof.train.data.patients.from_pixels import Patients, tell_apart
from stageproof.train.data.patients.thumbnails import thumbnail

__all__ = ["Patients", "tell_apart", "thumbnail"]
