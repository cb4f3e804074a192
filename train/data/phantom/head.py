"""`draw_head`: a synthetic T1-weighted head in 3D, with its scan's position known exactly.

The brain is stacked from the axial slices of `train.data.phantom.anatomy`, closed towards the vertex and the base; CSF,
skull and scalp are layers of constant thickness around it, and a cylinder is the neck. No measured image is used.

Two coordinate systems, both in mm, with axes to the right, the front and the top of the head (RAS): the *head's*, whose
origin is the centre of the brain, and the *scanner's*, to which `PhantomHead.pose` maps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates

from stageproof.runtime.errors import InputError
from stageproof.train.data.phantom.anatomy import CSF, WHITE, brain, invent
from stageproof.train.data.phantom.slices import check_person

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WIDTH, _LENGTH = 176.0, 208.0
"""mm: what a 2D phantom's image covers, from left to right and from front to back, as in the published slices."""
_HALF_HEIGHT = 62.0
"""mm from the centre of the brain to its vertex and base."""
_LOWEST, _HIGHEST = -28.0, 22.0
"""mm above the centre: axial levels 0 (midbrain, hippocampi) and 1 (above the lateral ventricles)."""
_ROUNDNESS = 2.5
"""Exponent of the superellipse that closes the brain: 2 is an ellipse, more is flatter."""
_CSF, _SKULL, _SCALP = 3.0, 9.0, 15.0
"""mm from the brain's surface to the outer surface of each layer."""
_BONE, _FAT, _MUSCLE = 0.05, 0.80, 0.40
"""Signal relative to the maximum."""
_NECK = 58.0
"""mm: radius of the neck."""
_GRID, _REACH = 3.0, 114.0
"""mm: step and half width of the grid on which distances from the brain are computed."""
_CENTRE = np.array([0.0, 0.0, -20.0])
"""mm in the scanner's coordinates: the middle of the voxel grid."""


@dataclass(frozen=True)
class Acquisition:
    """How a phantom head is scanned: the grid of voxels, the head's position in it, bias field and noise."""

    axes: str = "PIL"
    """Direction of increasing index of each voxel axis before `turn`: one letter of each of LR, PA and IS."""
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.2)
    """mm between voxels along each axis."""
    extent: tuple[float, float, float] = (184.0, 228.0, 224.0)
    """mm that the grid covers from left to right, from back to front and from bottom to top."""
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Degrees by which the grid is rotated about the scanner's x, y and z axes, in this order: oblique slices."""
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Degrees by which the head is rotated about its own x, y and z axes, in this order."""
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """mm by which the head is shifted, in the scanner's axes, after `tilt`."""
    bias: float = 0.2
    """Relative amplitude of the multiplicative bias field."""
    noise: float = 0.02
    """Standard deviation of the noise in each channel, relative to the maximum signal."""


@dataclass(frozen=True)
class PhantomHead:
    """A scanned phantom head. The first axis of the arrays varies along `affine`'s first column, and so on."""

    voxels: NDArray[np.uint16]
    """(I, J, K), 0 to about 1,000."""
    affine: NDArray[np.float64]
    """(4, 4) voxel index to mm in the scanner's RAS coordinates."""
    mask: NDArray[np.bool_]
    """(I, J, K): voxels whose centre lies in the brain."""
    pose: NDArray[np.float64]
    """(4, 4) mm in the head's coordinates to mm in the scanner's: a rotation and a translation."""
    stage: float
    """0-3, the atrophy."""


def draw_head(
    stage: float, patient: int, acquisition: Acquisition | None = None, *, seed: int = 0, detail: int = 128
) -> PhantomHead:
    """The head of person `patient` of the population `seed`, scanned as `acquisition` says.

    stage, patient, seed: as for `train.data.phantom.draw_slice`, which draws the same person's slices.
    acquisition: by default sagittal slices of 1.2 mm with pixels of 1 mm, head upright.
    detail: pixels a side of the axial slices that the brain is stacked from, 32 or more.

    The same arguments give the same voxels in every process; NumPy may change its random streams between versions.
    Raises InputError for arguments outside these ranges, and for axes that are not one of each of LR, PA and IS.
    """
    scan = acquisition or Acquisition()
    check_person(stage=stage, patient=patient, seed=seed)
    if detail < 32:
        raise InputError(f"detail is {detail}; a phantom head needs slices of 32 pixels a side or more.")
    affine, shape = _grid(scan)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation(scan.tilt), scan.shift
    signal, inside = _sampled(_Tissue(seed, patient, float(stage), detail), np.linalg.inv(pose) @ affine, shape)
    rng = np.random.default_rng([0x4EAD, seed, patient, round(stage * 1e6)])
    signal *= _bias_field(shape, rng, scan.bias)
    # A magnitude image has noise in two channels; its noise is therefore Rician (Gudbjartsson & Patz 1995).
    real, imaginary = (scan.noise * rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    voxels = np.rint(np.hypot(signal + real, imaginary) * 1000.0)
    return PhantomHead(voxels.astype(np.uint16), affine, inside >= 0.5, pose, float(stage))


def rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """(3, 3) rotation about the x, then the y, then the z axis, by angles in degrees."""
    x, y, z = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _grid(scan: Acquisition) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """The affine (4, 4) and the shape of the scan's voxels; the middle of the grid is at `_CENTRE`."""
    order = [{"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}.get(letter, -1) for letter in scan.axes]
    if sorted(order) != [0, 1, 2] or min(scan.spacing) <= 0.0:
        raise InputError(
            f"axes {scan.axes!r} with spacing {scan.spacing}; expected one letter of each of LR, PA and IS, and "
            "spacings above 0 mm."
        )
    directions = np.zeros((3, 3))
    for axis, letter in enumerate(scan.axes):
        directions[order[axis], axis] = 1.0 if letter in "RAS" else -1.0
    shape = tuple(max(round(scan.extent[order[axis]] / scan.spacing[axis]), 1) for axis in range(3))
    affine = np.eye(4)
    affine[:3, :3] = rotation(scan.turn) @ directions * np.array(scan.spacing)
    affine[:3, 3] = _CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2.0)
    return affine, shape  # type: ignore[return-value]


class _Tissue:
    """The tissues of a person, to be sampled at points in the head's coordinates."""

    def __init__(self, seed: int, patient: int, stage: float, detail: int) -> None:
        self._step = (_WIDTH / detail, _LENGTH / detail)
        self._middle = (detail - 1) / 2.0
        levels = np.linspace(0.0, 1.0, max(detail // 5, 8))
        person = invent(seed, patient)
        drawn = [brain(person, stage, level, detail) for level in levels]
        self._levels = len(levels)
        self._signal = np.stack([signal for signal, _ in drawn]).astype(np.float32)
        self._inside = np.stack([inside for _, inside in drawn]).astype(np.float32)
        self._distance = self._distances()

    def brain(self, x: NDArray, y: NDArray, z: NDArray) -> tuple[NDArray, NDArray]:
        """Signal and share of brain at these points in mm; the three arrays have one shape."""
        height = np.minimum(np.abs(z) / _HALF_HEIGHT, 1.0)
        narrowing = np.maximum(1.0 - height**_ROUNDNESS, 1e-6) ** (1.0 / _ROUNDNESS)
        level = np.clip((z - _LOWEST) / (_HIGHEST - _LOWEST), 0.0, 1.0) * (self._levels - 1)
        row = self._middle - y / narrowing / self._step[1]  # row 0 is the front of the head
        where = np.stack([level, row, self._middle + x / narrowing / self._step[0]])
        signal = map_coordinates(self._signal, where, order=1, mode="nearest", prefilter=False)
        share = map_coordinates(self._inside, where, order=1, mode="constant", prefilter=False)
        # The drawn slices end inside the ventricles and hippocampi: these close within 10 mm above and below.
        beyond = np.maximum(np.maximum(_LOWEST - z, z - _HIGHEST) / 10.0, 0.0)
        deep = np.hypot(x / (0.30 * _WIDTH), y / (0.32 * _LENGTH)) < 0.75 * narrowing
        signal = np.where(deep, np.maximum(signal, np.minimum(beyond, 1.0) * WHITE), signal)
        return signal, np.where(height < 1.0, share, np.float32(0.0))

    def head(self, x: NDArray, y: NDArray, z: NDArray) -> tuple[NDArray, NDArray]:
        """Signal of the whole head, and share of brain, at these points in mm."""
        where = np.stack([(axis + _REACH) / _GRID for axis in (x, y, z)])
        outside = map_coordinates(self._distance, where, order=1, mode="nearest", prefilter=False)
        neck = np.maximum(np.hypot(x, y + 12.0) - _NECK, z + 40.0)
        signal: NDArray = _MUSCLE * _within(neck)
        for radius, tissue in ((_SCALP, _FAT), (_SKULL, _BONE), (_CSF, CSF)):
            signal += _within(outside - radius) * (tissue - signal)
        inner, share = self.brain(x, y, z)
        return signal + share * (inner - signal), share

    def _distances(self) -> NDArray[np.float32]:
        """mm from the brain, 0 inside, on a grid of `_GRID` mm that covers -`_REACH` to `_REACH` mm on each axis."""
        axis = np.arange(-_REACH, _REACH + _GRID / 2.0, _GRID, dtype=np.float32)
        _, share = self.brain(*np.meshgrid(axis, axis, axis, indexing="ij"))
        return (distance_transform_edt(share < 0.5) * _GRID).astype(np.float32)


def _within(distance: NDArray) -> NDArray:
    """Share of a voxel on the negative side of a signed distance in mm; edges are about a voxel wide."""
    return np.clip(0.5 - distance / 1.5, 0.0, 1.0).astype(np.float32)


def _sampled(
    tissue: _Tissue, to_head: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signal and share of brain of each voxel. to_head: (4, 4) voxel index to mm in the head's coordinates."""
    signal, inside = np.empty(shape, np.float32), np.empty(shape, np.float32)
    j, k = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    for i in range(shape[0]):  # one plane at a time, to bound the memory
        x, y, z = (row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_head[:3].astype(np.float32))
        signal[i], inside[i] = tissue.head(x, y, z)
    return signal, inside


def _bias_field(shape: tuple[int, int, int], rng: np.random.Generator, amplitude: float) -> NDArray[np.float32]:
    """Multiplicative field with mean about 1: a random quadratic over the grid, scaled to `amplitude`."""
    axes = np.meshgrid(*(np.linspace(-1.0, 1.0, size, dtype=np.float32) for size in shape), indexing="ij", sparse=True)
    weights = rng.normal(0.0, 1.0, 6)
    x, y, z = axes
    field = weights[0] * x + weights[1] * y + weights[2] * z
    field = field + weights[3] * x * x + weights[4] * y * y + weights[5] * z * z
    field -= field.mean()
    return (1.0 + amplitude * field / max(float(np.abs(field).max()), 1e-6)).astype(np.float32)
