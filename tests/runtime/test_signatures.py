"""A file that is no image is named for what it is, with what to do next, and never quoted."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.errors import ImageError
from stageproof.runtime.headers.signatures import image_format, is_dicom, what_is
from stageproof.runtime.images.raster import FORMATS, read_image

GREY = np.random.default_rng(11).integers(0, 256, (6, 8), dtype=np.uint8)
NIFTI = struct.pack("<i", 348) + b"\0" * 340 + b"n+1\0" + b"\0" * 400


def saved(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, form, **options)
    return buffer.getvalue()


def packed(form: str) -> bytes:
    buffer = io.BytesIO()
    if form == "npy":
        np.save(buffer, GREY)
    elif form == "npz":
        np.savez(buffer, Doe_Jane=GREY)
    elif form == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("Doe_Jane.png", saved("PNG"))
    else:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("Doe_Jane.png"))
    return buffer.getvalue()


def jpeg(bits: int, marker: int) -> bytes:
    data = saved("JPEG")
    at = data.index(b"\xff\xc0")
    return data[:at] + bytes([0xFF, marker]) + data[at + 2 : at + 4] + bytes([bits]) + data[at + 5 :]


FILES = {
    "LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        r"is a Git LFS pointer.*git lfs pull",
    ),
    "HTML": (b"\n<!DOCTYPE html><html><title>Doe^Jane</title>", r"is an HTML page.*Download the image again"),
    "HTML with a comment": (b"<!-- x --><HTML>", r"is an HTML page"),
    "SVG": (b'<?xml version="1.0"?><svg xmlns="x"/>', r"is an SVG drawing"),
    "XML": (b'<?xml version="1.0"?><patient>Doe^Jane</patient>', r"is text"),
    "JSON": (b'{"patient": "Doe^Jane"}', r"is text"),
    "text": (b"Doe^Jane, born 1931", r"is text"),
    "text of another language": ("Müller, Jürgen: ängstlich".encode(), r"is text"),
    "text of an older set": ("Müller, Jürgen: ängstlich".encode("latin-1"), r"is text"),
    "text of Windows": ("Doe^Jane".encode("utf-16"), r"is text"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"is a HEIC image.*Convert it to PNG"),
    "HEIC of a sequence": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", r"is a HEIC image"),
    "AVIF": (b"\0\0\0\x18ftypavif\0\0\0\0", r"is an AVIF image"),
    "MP4": (b"\0\0\0\x18ftypisom\0\0\0\0", r"is an MP4 or QuickTime video"),
    "JPEG XL": (b"\xff\x0a\0\0", r"is a JPEG XL image"),
    "NIfTI": (NIFTI, r"is a NIfTI volume.*Convert one slice to PNG first"),
    "NIfTI-2": (struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + b"\0" * 600, r"is a NIfTI volume"),
    "NIfTI in gzip": (gzip.compress(NIFTI), r"is a NIfTI volume, compressed with gzip.*Convert one slice"),
    "MGZ": (gzip.compress(struct.pack(">7i", 1, 9, 9, 9, 1, 0, 0) + bytes(300)), r"is a FreeSurfer volume.*with gzip"),
    "Analyze": (struct.pack("<i", 348) + b"\0" * 344, r"is an Analyze volume"),
    "gzip": (gzip.compress(b"Doe^Jane", mtime=0), r"is a gzip file.*Unpack it"),
    "gzip in gzip": (gzip.compress(gzip.compress(NIFTI)), r"is a gzip file"),
    "npy": (packed("npy"), r"is a NumPy array.*pass the slice you want as a uint8 array"),
    "npz": (packed("npz"), r"is a ZIP archive"),
    "zip": (packed("zip"), r"is a ZIP archive.*Unpack it"),
    "tar": (packed("tar"), r"is a tar archive"),
    "PDF": (b"%PDF-1.7\n%Doe^Jane", r"is a PDF document.*Export the image from it as PNG"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"is a PostScript file"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(90), r"is an HDF5 file"),
    "MATLAB": (b"MATLAB 5.0 MAT-file, Platform: Doe^Jane", r"is a MATLAB file"),
    "MINC": (b"CDF\x01" + bytes(90), r"is a NetCDF or MINC file"),
    "NRRD": (b"NRRD0004\n# Doe^Jane", r"is an NRRD volume"),
    "MetaImage": (b"ObjectType = Image\nNDims = 3\n", r"is a MetaImage header"),
    "Parquet": (b"PAR1" + bytes(90), r"is a Parquet file"),
    "pickle": (pickle.dumps({"Doe": "Jane"}), r"is a Python pickle"),
    "zeros": (bytes(5000), r"contains only zeros"),
    "DICOM": (b"\0" * 128 + b"DICM" + b"Doe^Jane", r"is a DICOM file.*Predictor reads it"),
    "DICOM without a preamble": (b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + b"Doe^Jane", r"is a DICOM file"),
    "12-bit JPEG": (jpeg(12, 0xC1), r"is a 12-bit JPEG; only 8 bits are supported. Convert it to 16-bit PNG"),
    "PNG's first bytes": (b"\x89PNG\r\n\x1a\n", r"starts like PNG but is damaged"),
    "JPEG's first bytes": (b"\xff\xd8\xff\xe0\0", r"starts like JPEG but is damaged"),
    "noise": (np.random.default_rng(1).bytes(4000), r"is not an image that can be identified as one of PNG, JPEG"),
}


@pytest.mark.parametrize(("data", "match"), FILES.values(), ids=FILES)
def test_other_files_are_named_and_never_quoted(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(data)
    for source in (path, data, io.BytesIO(data)):
        with pytest.raises(ImageError, match=match) as caught:
            read_image(source)
        assert "Jane" not in str(caught.value)
        assert "truncated" not in str(caught.value)
        assert str(caught.value).endswith(".")
    with pytest.raises(ImageError, match=r"scan\.png' "):
        read_image(path)


def test_a_bomb_in_gzip_is_not_unpacked() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(16)) + packer.flush()
    assert what_is(bomb) is not None


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_that_is_read_is_known_by_its_first_bytes(form: str) -> None:
    assert image_format(saved(form)[:4096]) is not None
    assert not is_dicom(saved(form))


NO_IMAGES = [name for name, (data, _) in FILES.items() if not data.startswith((b"\x89PNG", b"\xff\xd8"))]


@pytest.mark.parametrize("name", NO_IMAGES)
def test_nothing_else_is_taken_for_an_image(name: str) -> None:
    assert image_format(FILES[name][0]) is None


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 20])
def test_a_few_bytes_break_nothing(length: int) -> None:
    for data, _ in FILES.values():
        what_is(data[:length])
        image_format(data[:length])
        is_dicom(data[:length])
