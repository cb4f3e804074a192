"""`stack`: the frames of one series → the order of its slices and their affine, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stageproof.runtime.errors import VolumeError
from stageproof.runtime.volume.headers import FrameGeometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAME_DIRECTION = 1e-3
"""Largest difference of direction cosines within a series; scanners write six or more digits."""
_SAME_PLACE = 0.01
"""mm: slices closer than that are at the same position."""
_IRREGULAR = 0.05
"""Largest deviation from equal spacing, as a share of the spacing."""


@dataclass(frozen=True)
class Stack:
    """How the frames of a series make a volume."""

    order: tuple[int, ...]
    """Indices of the frames, by position along the normal of their planes."""
    affine: NDArray[np.float64]
    """(4, 4) index of column, row and slice to mm in RAS coordinates."""
    shape: tuple[int, int, int]
    """Columns, rows, slices."""
    spacing: float
    """mm between slices."""


def stack(frames: Sequence[FrameGeometry]) -> Stack:
    """The stack of these frames, given in any order. Slices may be shifted uniformly in their plane (sheared stacks).

    Raises VolumeError: ``geometry_missing``, ``mixed_geometry``, ``not_3d``, ``duplicate_slices``, ``slice_gap``,
    ``irregular_spacing``.
    """
    positions, directions, (between_rows, between_columns) = _common(frames)
    normal = np.cross(*directions)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    if len(order) < 2:
        raise VolumeError("not_3d", "the series has one slice; expected the slices of a whole head.")
    steps = np.diff(along[order])
    repeated = int((steps < _SAME_PLACE).sum())
    if repeated:
        raise VolumeError(
            "duplicate_slices",
            f"{repeated} of {len(order)} slices are at the position of another one: several echoes, repetitions or "
            "copies in one series. Pass the slices of one of them.",
        )
    usual = float(np.median(steps))
    _check_steps(steps, usual)
    placed = positions[order]
    step = (placed[-1] - placed[0]) / (len(order) - 1)
    away = np.abs(placed - (placed[0] + np.arange(len(order))[:, None] * step)).max()
    if away > max(_IRREGULAR * usual, 0.1):
        raise VolumeError(
            "irregular_spacing",
            f"slices are up to {away:.2f} mm away from equally spaced positions. Export the series again.",
        )
    affine = np.eye(4)
    affine[:3, :3] = np.stack([directions[0] * between_columns, directions[1] * between_rows, step], 1)
    affine[:3, 3] = placed[0]
    affine[:2] *= -1.0  # LPS to RAS
    rows, columns = frames[0].shape
    return Stack(tuple(int(index) for index in order), affine, (columns, rows, len(order)), usual)


def _common(frames: Sequence[FrameGeometry]) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Positions (N, 3), and the directions (2, 3) and pixel spacing that all frames share."""
    spacing, shape = frames[0].pixel_spacing, frames[0].shape
    positions, directions = [], []
    for frame in frames:
        if frame.position is None or frame.orientation is None or frame.pixel_spacing is None:
            raise VolumeError(
                "geometry_missing",
                "slices have no ImagePositionPatient, ImageOrientationPatient or PixelSpacing, so that their places in "
                "the head are unknown. Export the original series from the archive.",
            )
        positions.append(frame.position)
        directions.append(frame.orientation)
    first = directions[0]
    unit = np.abs(np.linalg.norm(first, axis=1) - 1.0).max() < 0.01 and abs(first[0] @ first[1]) < 0.01
    if not unit or spacing is None or not all(0.05 <= step <= 20.0 for step in spacing):
        raise VolumeError(
            "geometry_missing",
            "ImageOrientationPatient are not two perpendicular directions, or PixelSpacing is not between 0.05 and 20 "
            "mm. Export the original series from the archive.",
        )
    same = np.abs(np.array(directions) - first).max() <= _SAME_DIRECTION
    alike = all(frame.shape == shape and np.allclose(frame.pixel_spacing or (), spacing, rtol=1e-3) for frame in frames)
    if not same or not alike:
        raise VolumeError(
            "mixed_geometry",
            "slices of one series have different orientations, sizes or pixel spacings, as those of a localizer. Pass "
            "the slices of one stack.",
        )
    return np.array(positions), first, spacing


def _check_steps(steps: NDArray[np.float64], usual: float) -> None:
    """Raise VolumeError unless all steps between neighbouring slices are equal."""
    missing = np.rint(steps / usual).astype(int) - 1
    gaps = np.flatnonzero(steps > 1.5 * usual)
    if len(gaps):
        where = int(gaps[0])
        raise VolumeError(
            "slice_gap",
            f"{int(missing[gaps].sum())} slices are missing in {len(gaps)} gaps: after slice {where + 1} of "
            f"{len(steps) + 1}, the next is {steps[where]:.2f} mm away, expected {usual:.2f} mm. Transfer the series "
            "again.",
        )
    deviation = float(np.abs(steps - usual).max())
    if deviation > max(_IRREGULAR * usual, 0.02):
        raise VolumeError(
            "irregular_spacing",
            f"distances between slices are {steps.min():.2f} to {steps.max():.2f} mm; expected equal ones. Export the "
            "series again.",
        )
