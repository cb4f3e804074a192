"""What is decoded at most, known from headers: sizes that suffice for any MRI, and that bound memory and time."""

from __future__ import annotations

from stageproof.runtime.errors import ImageError

MAX_PIXELS = 4 * 1024 * 1024
"""The largest image decoded unless an argument `max_pixels` says otherwise: 2048 x 2048. An MRI slice has a tenth of
a million pixels."""

ALL_FRAMES = 16
"""All frames of a DICOM file together may have this many times `max_pixels` values."""

MAX_FRAMES = 10_000
"""Frames of one DICOM file."""

MAX_FILE_BYTES = 160 * 1024 * 1024
"""The largest file read. The largest DICOM file within the limits above, of 16 bits and not compressed, has 128 MiB."""


class TooLargeError(ImageError):
    """More pixels than allowed: private, so that a decoder with little memory can hand the image on."""
