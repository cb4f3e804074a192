"""`Volume`: the voxels of one series in RAS order, with what its headers state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SeriesFacts:
    """What the headers of a series state. None or empty where they do not."""

    modality: str | None = None
    """DICOM's code, such as ``"MR"``."""
    description: str = ""
    """Series description and protocol name; for NIfTI those of the sidecar, or the file's BIDS suffix."""
    age: float | None = None
    """Years."""
    image_type: tuple[str, ...] = ()
    acquisition: str | None = None
    """``"2D"`` or ``"3D"`` (MRAcquisitionType)."""
    sequence: tuple[str, ...] = ()
    """ScanningSequence, such as ``("GR", "IR")``."""
    contrast: str | None = None
    """AcquisitionContrast of an enhanced file, such as ``"T1"``."""
    repetition_time: float | None = None
    """ms."""
    echo_time: float | None = None
    """ms."""
    inversion_time: float | None = None
    """ms."""
    thickness: float | None = None
    """mm of tissue that a slice covers."""


@dataclass(frozen=True)
class Volume:
    """The voxels of one series."""

    voxels: NDArray[np.float32]
    """(X, Y, Z), indices increasing to the patient's right, front and top, as far as an oblique scan allows; in the
    scanner's units after the rescale of the headers."""
    affine: NDArray[np.float64]
    """(4, 4) voxel index to mm in the patient's RAS coordinates (NIfTI; DICOM's are LPS)."""
    facts: SeriesFacts
    source: str
    """``"dicom"`` or ``"nifti"``."""
    stored_axes: str
    """Directions of the stored axes: for DICOM, of increasing column, row and slice position, such as ``"PIR"``."""
    notes: tuple[str, ...] = field(default=())
    """What was assumed, and which other series of the study were passed over and why."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm between voxels along x, y and z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def extent(self) -> tuple[float, float, float]:
        """mm that the grid covers along x, y and z, voxel edges included."""
        x, y, z = (step * size for step, size in zip(self.spacing, self.voxels.shape, strict=True))
        return x, y, z


def to_ras(
    voxels: NDArray[np.float32], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64], str]:
    """Voxels and affine with axes permuted and flipped to the closest to RAS, and the directions of the given axes.

    No value is interpolated. Needs nibabel.
    """
    import nibabel
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    given = "".join(nibabel.aff2axcodes(affine))
    orientation = io_orientation(affine)
    turned = np.ascontiguousarray(apply_orientation(voxels, orientation), dtype=np.float32)
    return turned, affine @ inv_ornt_aff(orientation, voxels.shape), given
