"""DICOM files made for a test, and those that pydicom ships."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra dicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid  # noqa: E402

from stageproof.runtime.images.reader import (  # noqa: E402
    Picture,
    read,
)

SHIPPED = sorted(
    path
    for path in (Path(pydicom.__file__).parent / "data").rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc", ".json", ".csv", ".txt")
)
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60  # 0 to 3780
AXIAL = [1, 0, 0, 0, 1, 0]


def dataset(pixels: np.ndarray = RAMP, **elements: object) -> Dataset:
    """An axial MR slice of these stored values, or with other elements; None leaves one out."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = MRImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.Modality, made.ImageOrientationPatient, made.PhotometricInterpretation = "MR", AXIAL, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape[-2:]
    made.SamplesPerPixel = 1
    made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def encoded(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def shown(made: Dataset) -> tuple[np.ndarray, Picture]:
    picture = read(encoded(made))
    return np.asarray(picture.image), picture


def lut(values: list[int], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.add_new("LUTData", "US", values)  # US or OW, as the file likes
    return item
