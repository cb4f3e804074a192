"""Limits on the size of decoded images and files, sufficient for any MRI, to bound memory and time."""

from __future__ import annotations

from stageproof.runtime.errors import ImageError

MAX_PIXELS = 4 * 1024 * 1024
"""Default of `max_pixels`, the limit on the pixels of an image: 2048 x 2048. An MRI slice has about 100,000."""

ALL_FRAMES = 16
"""Limit on the values of all frames of a DICOM file together, as a multiple of `max_pixels`."""

MAX_FRAMES = 10_000
"""Limit on the frames of a DICOM file."""

MAX_FILE_BYTES = 160 * 1024 * 1024
"""Limit on the bytes of a file. The largest uncompressed 16-bit DICOM file within the limits above has 128 MiB."""


class TooLargeError(ImageError):
    """More pixels than allowed. Internal: a decoder with the small memory limit uses it to request the large one."""
