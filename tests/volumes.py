"""Phantom heads as files, for the tests of volumes: small, and drawn once a session."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the extra train")
pytest.importorskip("nibabel", reason="the extra volume")
pytest.importorskip("pydicom", reason="the extra volume")

from stageproof.train.data.phantom.head import Acquisition, PhantomHead, draw_head
from stageproof.train.data.phantom.series import dicom_bytes, dicom_slices

SPACING = 2.5


@cache
def head(**scan: object) -> PhantomHead:
    """A head of 2.5 mm voxels, stored to the back, bottom and left."""
    return draw_head(1, 3, Acquisition(**{"spacing": (SPACING,) * 3, **scan}), detail=48)  # type: ignore[arg-type]


def stored(one: PhantomHead, axes: tuple[int, int, int], flips: tuple[int, ...] = ()) -> PhantomHead:
    """The same voxels at the same places, stored in another order: axes permuted, then those in `flips` reversed."""
    affine = one.affine[:, [*axes, 3]].copy()
    voxels, mask = one.voxels.transpose(axes), one.mask.transpose(axes)
    for axis in flips:
        affine[:, 3] += affine[:, axis] * (voxels.shape[axis] - 1)
        affine[:, axis] *= -1.0
        voxels, mask = np.flip(voxels, axis), np.flip(mask, axis)
    return replace(one, voxels=np.ascontiguousarray(voxels), affine=affine, mask=np.ascontiguousarray(mask))


def part(one: PhantomHead, keep: tuple[slice, slice, slice]) -> PhantomHead:
    """A part of the voxels, at their places."""
    affine = one.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [each.indices(n)[0] for each, n in zip(keep, one.voxels.shape, strict=True)]
    affine[:3, :3] *= [each.step or 1 for each in keep]
    return replace(one, voxels=np.ascontiguousarray(one.voxels[keep]), affine=affine, mask=one.mask[keep])


def written(folder: Path, one: PhantomHead, name: str = "phantom", **headers: object) -> Path:
    """A DICOM series in `folder`; file names say nothing of the order."""
    folder.mkdir(parents=True, exist_ok=True)
    for made in dicom_slices(one, name, **headers):
        (folder / f"{str(made.SOPInstanceUID)[-12:]}.dcm").write_bytes(dicom_bytes(made))
    return folder


def zipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path
