"""`write_volumes`: a folder of phantom heads, as a BIDS dataset or as DICOM studies, for `--volumes` of the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import LabelSet
from stageproof.train.data.phantom.head import Acquisition, PhantomHead, draw_head
from stageproof.train.data.phantom.series import T1_HEADERS, nifti_bytes, write_dicom_series
from stageproof.train.data.phantom.slices import stage_of

LAYOUTS = ("bids", "dicom")


def write_volumes(folder: Path, count: int, classes: LabelSet, seed: int, layout: str, spacing: float) -> None:
    """Write `count` heads to `folder`, which exists: subject k has class k modulo the number of classes.

    layout: ``"bids"`` writes sub-NNN/anat/sub-NNN_T1w.nii.gz with its sidecar, participants.tsv and
    dataset_description.json (BIDS 1.10); ``"dicom"`` writes NNN/*.dcm and subjects.csv.
    spacing: mm between voxels. Each head has a position, age and sex of its own. Raises InputError.
    """
    if count < 1:
        raise InputError(f"--volumes is {count}; expected 1 or more.")
    if not 0.5 <= spacing <= 4.0:
        raise InputError(f"--spacing is {spacing} mm; expected 0.5 to 4.")
    rows: list[tuple[str, ...]] = []
    for number in range(count):
        label = number % len(classes)
        subject = f"sub-{number + 1:03d}"
        rng = np.random.default_rng([0x50B1, seed, number])
        age, sex = int(rng.integers(60, 91)), "FM"[int(rng.integers(2))]
        scan = Acquisition(
            spacing=(spacing, spacing, spacing),
            tilt=tuple(rng.normal(0.0, 6.0, 3)),
            shift=tuple(rng.normal(0.0, 4.0, 3)),
        )
        head = draw_head(stage_of(label, len(classes)), number, scan, seed=seed)
        if layout == "bids":
            _write_bids(folder, subject, head)
        else:
            about: dict[str, Any] = {"PatientAge": f"{age:03d}Y", "PatientSex": sex, "PatientID": subject}
            write_dicom_series(head, folder / subject, f"phantom-{seed}/{subject}", **about)
        rows.append((subject, str(age), sex, classes.names[label]))
    if layout == "bids":
        _write_table(folder / "participants.tsv", "\t", rows)
        description = {"Name": f"Stageproof phantom heads, seed {seed}", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        (folder / "dataset_description.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    else:
        _write_table(folder / "subjects.csv", ",", rows)


def _write_bids(folder: Path, subject: str, head: PhantomHead) -> None:
    anatomy = folder / subject / "anat"
    anatomy.mkdir(parents=True)
    (anatomy / f"{subject}_T1w.nii.gz").write_bytes(nifti_bytes(head))
    sidecar = {
        "Modality": "MR",
        "MRAcquisitionType": T1_HEADERS["MRAcquisitionType"],
        "SeriesDescription": T1_HEADERS["SeriesDescription"],
        # Times of a sidecar are in seconds, those of DICOM in milliseconds.
        **{name: T1_HEADERS[name] / 1000.0 for name in ("RepetitionTime", "EchoTime", "InversionTime")},
    }
    (anatomy / f"{subject}_T1w.json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")


def _write_table(path: Path, separator: str, rows: list[tuple[str, ...]]) -> None:
    lines = [("participant_id", "age", "sex", "diagnosis"), *rows]
    path.write_text("".join(separator.join(line) + "\n" for line in lines), encoding="utf-8")
