"""Files of a phantom head: a DICOM series (one file a slice, or one enhanced multi-frame file) and NIfTI.

Needs the extra `volume` (pydicom, nibabel).
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.runtime.cli.extras import require
from stageproof.runtime.system.offline_import import import_without

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from stageproof.train.data.phantom.head import PhantomHead

_MR, _ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's patient coordinates point to the left, back and top (PS3.3 C.7.6.2.1.1)."""

T1_HEADERS: dict[str, Any] = {
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "SeriesDescription": "t1_mprage_sag",
    "ScanningSequence": ["GR", "IR"],
    "SequenceVariant": ["SK", "SP", "MP"],
    "MRAcquisitionType": "3D",
    "RepetitionTime": 2300.0,
    "EchoTime": 2.98,
    "InversionTime": 900.0,
    "FlipAngle": 9.0,
    "MagneticFieldStrength": 3.0,
    "PatientAge": "071Y",
    "PatientSex": "F",
    "PatientID": "PHANTOM",
    "PatientName": "PHANTOM^HEAD",
}
"""Elements of a T1-weighted 3D series, as `dicom_slices` writes them unless told otherwise."""


def dicom_slices(head: PhantomHead, name: str = "phantom", **headers: Any) -> list[Dataset]:
    """One MR Image Storage dataset a slice (PS3.3 A.4), slices along the last axis of the voxels.

    name: the UIDs are derived from it, so that the same name gives the same study and series.
    headers: elements beside, or instead of, `T1_HEADERS`; None leaves one out.
    """
    geometry = _TO_LPS @ head.affine
    count = head.voxels.shape[2]
    made = []
    for k in range(count):
        one = _dataset(_MR, name, f"{name}/{k}")
        one.InstanceNumber = k + 1
        one.ImagePositionPatient = _decimals(geometry @ [0, 0, k, 1])
        one.ImageOrientationPatient = _orientation(geometry)
        one.PixelSpacing, one.SliceThickness = _spacing(geometry)
        _set_pixels(one, head.voxels[:, :, k].T)
        _override(one, headers)
        made.append(one)
    return made


def dicom_enhanced(head: PhantomHead, name: str = "phantom", **headers: Any) -> Dataset:
    """One Enhanced MR Image Storage dataset with all slices as frames (PS3.3 A.36); arguments as `dicom_slices`."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def group(**elements: Any) -> Sequence:
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        return Sequence([item])

    geometry = _TO_LPS @ head.affine
    made = _dataset(_ENHANCED_MR, name, f"{name}/enhanced")
    pixel_spacing, thickness = _spacing(geometry)
    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=pixel_spacing, SliceThickness=thickness)
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=_orientation(geometry))
    shared.PixelValueTransformationSequence = group(RescaleIntercept="0", RescaleSlope="1", RescaleType="US")
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in range(head.voxels.shape[2]):
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=_decimals(geometry @ [0, 0, k, 1]))
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = Sequence(frames)
    made.NumberOfFrames = len(frames)
    _set_pixels(made, np.ascontiguousarray(head.voxels.transpose(2, 1, 0)))
    _override(made, headers)
    return made


def dicom_bytes(made: Dataset) -> bytes:
    """The dataset as a DICOM file (PS3.10)."""
    pydicom: Any = import_without("pydicom", "requests")
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def nifti_bytes(head: PhantomHead, *, voxels: np.ndarray | None = None) -> bytes:
    """The head as a gzipped NIfTI-1 file. voxels: written instead of the head's, same shape (its mask, for one)."""
    require("volume", "nibabel")
    import nibabel

    image = nibabel.Nifti1Image(head.voxels if voxels is None else voxels, head.affine)
    image.set_sform(head.affine, code="scanner")
    image.set_qform(head.affine, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def write_dicom_series(head: PhantomHead, folder: Path, name: str = "phantom", **headers: Any) -> list[Path]:
    """Write `dicom_slices` to `folder`, which is created; the paths, whose order says nothing about the slices'."""
    require("volume", "pydicom")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for one in dicom_slices(head, name, **headers):
        path = folder / f"{str(one.SOPInstanceUID)[-12:]}.dcm"
        path.write_bytes(dicom_bytes(one))
        paths.append(path)
    return sorted(paths)


def _dataset(kind: str, name: str, instance: str) -> Dataset:
    require("volume", "pydicom")
    import_without("pydicom", "requests")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = UID(kind)
    uid = generate_uid(entropy_srcs=["stageproof instance", instance])
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = uid
    made.StudyInstanceUID = generate_uid(entropy_srcs=["stageproof study", name])
    made.SeriesInstanceUID = generate_uid(entropy_srcs=["stageproof series", name])
    made.FrameOfReferenceUID = generate_uid(entropy_srcs=["stageproof frame of reference", name])
    for keyword, value in T1_HEADERS.items():
        setattr(made, keyword, value)
    return made


def _override(made: Dataset, headers: dict[str, Any]) -> None:
    for keyword, value in headers.items():
        if value is not None:
            setattr(made, keyword, value)
        elif keyword in made:
            delattr(made, keyword)


def _set_pixels(made: Dataset, pixels: np.ndarray) -> None:
    made.Rows, made.Columns = pixels.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.PixelData = np.ascontiguousarray(pixels, dtype="<u2").tobytes()


def _orientation(geometry: np.ndarray) -> list[str]:
    row, column = (geometry[:3, axis] / np.linalg.norm(geometry[:3, axis]) for axis in (0, 1))
    return [*_decimals(row), *_decimals(column)]


def _spacing(geometry: np.ndarray) -> tuple[list[str], str]:
    """PixelSpacing (between rows, between columns) and SliceThickness."""
    column, row, slices = _decimals(np.append(np.linalg.norm(geometry[:3, :3], axis=0), 0.0))
    return [row, column], slices


def _decimals(values: np.ndarray) -> list[str]:
    """The first three values as decimal strings, at most 16 characters (PS3.5 6.2)."""
    return [f"{value:.10g}"[:16] for value in np.asarray(values, dtype=float)[:3]]
