"""Statuses of `VolumeError`: why a series is refused as a volume. One table, also for the documentation."""

from __future__ import annotations

STATUSES = {
    "unreadable": "no file is readable as a series: none is DICOM or NIfTI, or they are damaged or above the limits",
    "several_studies": "the files are of more than one patient or study",
    "ambiguous": "several files could be meant, and nothing says which",
    "modality": "the modality is not MR",
    "localizer": "a localizer",
    "not_t1": "the headers state another contrast than T1, or a map instead of an image",
    "unknown_contrast": "nothing in the headers says that the series is T1-weighted",
    "not_3d": "a 2D acquisition, or slices too far apart or too few for one",
    "geometry_missing": "positions, orientation or spacing are missing or impossible",
    "mixed_geometry": "slices of different orientation, size or pixel spacing in one series",
    "duplicate_slices": "more than one slice at the same position",
    "slice_gap": "slices are missing between others",
    "irregular_spacing": "slices are not equally spaced, or shifted in their plane",
    "field_of_view": "the volume is too small for an adult's head",
    "truncated": "the head continues beyond the volume at the top, front, back or side",
    "no_signal": "values that are constant or not finite",
    "age_unknown": "the age is not stated, and the caller did not allow that",
    "age_conflict": "the caller and the header state different ages",
    "age_outside_population": "the age is outside the population that the model was trained on",
}
"""Status → meaning."""
