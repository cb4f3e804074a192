"""Phantom heads: deterministic, in the pose and on the grid that they state, and written as BIDS or DICOM."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the extra train")
nibabel = pytest.importorskip("nibabel", reason="the extra volume")
pydicom = pytest.importorskip("pydicom", reason="the extra volume")

from stageproof.runtime.errors import InputError  # noqa: E402
from stageproof.runtime.labels import LABELS  # noqa: E402
from stageproof.train.data.phantom.__main__ import main  # noqa: E402
from stageproof.train.data.phantom.head import Acquisition, PhantomHead, draw_head, rotation  # noqa: E402
from stageproof.train.data.phantom.series import dicom_slices, nifti_bytes  # noqa: E402

ROOT = Path(__file__).parents[2]


def coarse(stage: float = 0, patient: int = 3, **scan: object) -> PhantomHead:
    return draw_head(stage, patient, Acquisition(**{"axes": "LSA", "spacing": (4.0, 4.0, 4.0), **scan}), detail=48)


@pytest.fixture(scope="module")
def head() -> PhantomHead:
    return coarse()


def centre(head: PhantomHead) -> np.ndarray:
    """Centre of the brain in the head's coordinates, mm."""
    indices = np.argwhere(head.mask).mean(0)
    return (np.linalg.inv(head.pose) @ head.affine @ [*indices, 1.0])[:3]


def test_the_layers_of_a_head_have_the_contrast_of_a_t1_image(head):
    z = (head.affine @ [0, 0, 0, 1])[2]
    assert head.voxels.dtype == np.uint16
    brain = head.voxels[head.mask]
    assert 700 < np.percentile(brain, 90) < 1000
    assert np.median(head.voxels[0]) < 60  # air
    assert z != 0
    # Outwards from the brain, to the patient's left: CSF and bone are dark, the scalp is bright, air is dark.
    row = np.linalg.inv(head.affine) @ head.pose @ [0.0, 0.0, 30.0, 1.0]
    _, j, k = np.rint(row[:3]).astype(int)
    left = int(np.flatnonzero(head.mask[:, j, k]).max())
    profile = head.voxels[left + 1 : left + 7, j, k].astype(int)
    assert profile[:2].min() < 150
    assert profile[2:4].max() > 400
    assert profile[-1] < 100


def test_the_volume_of_the_brain_is_an_adults_and_does_not_depend_on_the_grid(head):
    ml = [
        one.mask.sum() * abs(np.linalg.det(one.affine[:3, :3])) / 1000.0
        for one in (head, coarse(spacing=(3.0, 5.0, 4.0), axes="AIR", turn=(20.0, -15.0, 10.0)))
    ]
    assert 1100 < ml[0] < 1700
    assert ml[1] == pytest.approx(ml[0], rel=0.02)


def test_the_pose_moves_the_head_where_it_says(head):
    moved = coarse(tilt=(12.0, -8.0, 20.0), shift=(6.0, -5.0, 4.0), axes="RAS")
    assert np.allclose(moved.pose[:3, :3], rotation((12.0, -8.0, 20.0)))
    assert np.allclose(centre(moved), centre(head), atol=1.0)
    scanner = (moved.pose @ [*centre(moved), 1.0])[:3]
    assert np.linalg.norm(scanner - centre(head)) > 5.0  # it did move


def test_a_stage_widens_the_ventricles_and_leaves_the_brains_outline(head):
    severe = coarse(3)
    assert np.array_equal(severe.mask, head.mask)
    fluid = [np.mean(one.voxels[one.mask] < 250) for one in (head, severe)]
    assert fluid[1] > 1.2 * fluid[0]


def test_bias_and_noise_are_those_asked_for():
    clean = coarse(bias=0.0, noise=0.0)
    assert clean.voxels[0, 0, -1] == 0
    biased = coarse(bias=0.3, noise=0.0)
    ratio = biased.voxels[clean.mask] / np.maximum(clean.voxels[clean.mask], 1.0)
    assert 0.1 < np.ptp(ratio) < 0.65
    noisy = coarse(noise=0.05).voxels[:3]
    assert np.mean(noisy) == pytest.approx(50.0 * np.sqrt(np.pi / 2.0), rel=0.05)  # Rayleigh in air


def test_the_same_arguments_give_the_same_head_in_another_process(head):
    script = (
        "import hashlib; from train.data.phantom.head import *; "
        "head = draw_head(0, 3, Acquisition(axes='LSA', spacing=(4.0, 4.0, 4.0)), detail=48); "
        "print(hashlib.sha256(head.voxels.tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == hashlib.sha256(head.voxels.tobytes()).hexdigest()
    assert not np.array_equal(coarse(patient=4).mask, head.mask)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": 4}, "stage is 4"),
        ({"patient": -1}, "patient is -1"),
        ({"axes": "LLS"}, "one letter of each"),
        ({"axes": "XYZ"}, "one letter of each"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacings above 0 mm"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        coarse(**arguments)


def test_every_dicom_slice_states_its_place(head):
    slices = dicom_slices(head, PatientAge="005Y", SliceThickness=None)
    assert len(slices) == head.voxels.shape[2]
    assert len({str(one.SOPInstanceUID) for one in slices}) == len(slices)
    assert len({str(one.SeriesInstanceUID) for one in slices}) == 1
    for k in (0, 7):
        position = np.array(slices[k].ImagePositionPatient, dtype=float)
        assert np.allclose(position * [-1, -1, 1], (head.affine @ [0, 0, k, 1])[:3], atol=1e-6)
        assert np.array_equal(slices[k].pixel_array, head.voxels[:, :, k].T)
    assert slices[0].PatientAge == "005Y"
    assert "SliceThickness" not in slices[0]


def test_a_nifti_file_holds_voxels_and_affine(head):
    content = nifti_bytes(head)
    read = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    assert np.array_equal(np.asarray(read.dataobj), head.voxels)
    assert np.allclose(read.affine, head.affine, atol=1e-4)
    assert content == nifti_bytes(head)  # no time of day in the gzip header


def test_the_command_writes_a_bids_dataset(tmp_path):
    out = tmp_path / "heads"
    assert main(["--out", str(out), "--volumes", "2", "--spacing", "4"]) == 0
    with (out / "participants.tsv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert [row["participant_id"] for row in rows] == ["sub-001", "sub-002"]
    assert [row["diagnosis"] for row in rows] == list(LABELS[:2])
    assert all(60 <= int(row["age"]) <= 90 for row in rows)
    for row in rows:
        stem = out / row["participant_id"] / "anat" / f"{row['participant_id']}_T1w"
        assert nibabel.load(f"{stem}.nii.gz").header.get_zooms() == pytest.approx((4.0, 4.0, 4.0))
        assert json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))["EchoTime"] == pytest.approx(0.00298)
    assert json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))["BIDSVersion"]


def test_the_command_writes_dicom_studies(tmp_path):
    out = tmp_path / "heads"
    assert main(["--out", str(out), "--volumes", "1", "--spacing", "4", "--layout", "dicom"]) == 0
    files = sorted((out / "sub-001").glob("*.dcm"))
    assert len(files) == 46
    with (out / "subjects.csv").open(encoding="utf-8", newline="") as table:
        (row,) = csv.DictReader(table)
    assert pydicom.dcmread(files[0]).PatientAge == f"{int(row['age']):03d}Y"


@pytest.mark.parametrize(("option", "message"), [("--volumes=0", "--volumes is 0"), ("--spacing=9", "--spacing is 9")])
def test_a_wrong_option_is_one_line_and_leaves_nothing_behind(tmp_path, capsys, option, message):
    assert main(["--out", str(tmp_path / "new"), "--volumes", "1", option]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
