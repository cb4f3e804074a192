"""Ids of a source: what is recognised without an option, what only looks like an id, and what is said of it."""

from __future__ import annotations

import io
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stageproof.runtime.errors import DatasetError, InputError
from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.train.data.identity.from_names import from_names
from stageproof.train.data.identity.patient_pattern import compile_pattern, from_pattern
from stageproof.train.data.ids import Ids
from stageproof.train.data.sources.source import load_samples


def found(make, classes: int = 4) -> tuple[Ids | None, list[str]]:
    """The ids in the names that `make(class)` gives, in class folders."""
    paths, labels = [], []
    for label in range(classes):
        names = make(label)
        paths += [f"{LABELS[label]}/{name}" for name in names]
        labels += [label] * len(names)
    return from_names(paths, np.array(labels), FOUR_STAGES)


@pytest.mark.parametrize(
    ("name", "convention", "sessions"),
    [
        ("OAS1_{p:04d}_MR1_mpr-{k}_{s}.jpg", "OASIS", 40),
        ("OAS2_{p:04d}_MR{k}_{s}.png", "OASIS", 80),
        ("OAS3{p:04d}_MR_d{k:04d}_{s}.png", "OASIS", 80),
        ("ADNI_002_S_{p:04d}_MR_MP-RAGE__br_raw_20060418193713091_{s}_S13408_I13{k}{p:03d}.png", "ADNI", 80),
        ("002_S_{p:04d}_{k}_{s}.png", "ADNI", None),
        ("sub-{p:02d}_ses-0{k}_T1w_{s}.png", "BIDS", 80),
        ("sub-{p:02d}/ses-0{k}/anat/T1w_{s}.png", "BIDS", 80),
    ],
)
def test_published_names_are_used(name, convention, sessions):
    ids, notes = found(
        lambda c: [name.format(p=10 * c + p, k=k, s=s) for p in range(10) for k in (1, 2) for s in (7, 9)]
    )
    assert ids is not None
    assert (ids.kind, ids.assumed, ids.scans) == ("names", False, False)
    assert convention in ids.origin
    assert len(np.unique(ids.subjects)) == 40
    assert (None if ids.sessions is None else len(np.unique(ids.sessions))) == sessions
    assert np.bincount(ids.subjects).tolist() == [4] * 40
    assert notes == []


def test_names_of_two_conventions_are_used_together():
    ids, _ = found(lambda c: [f"OAS1_{c:02d}{p:02d}_MR1_{s}.png" for p in range(5) for s in range(3)] + ["sub-x_1.png"])
    assert ids is not None
    assert len(np.unique(ids.subjects)) == 21
    assert "OASIS and BIDS" in ids.origin


def test_names_of_which_some_have_no_id_are_not_used_but_named():
    ids, notes = found(
        lambda c: [f"OAS1_{c:02d}{p:02d}_MR1_{s}.png" for p in range(9) for s in range(3)] + ["extra.png"]
    )
    assert ids is None
    assert notes == ["108 of 112 names have OASIS ids, the others none, such as 'extra.png': not used"]


@pytest.mark.parametrize(
    ("name", "scans"),
    [
        ("{i}_{s}.jpeg", True),
        ("{i}-{s:03d}.png", True),
        ("{i}_slice{s}.png", True),
        ("scan{i}_axial_{s}.png", True),
        ("patient{i}_slice_{s}.png", False),
        ("p{i}_s{s}.png", False),
        ("I{i}_{s}.png", True),
    ],
)
def test_id_and_slice_are_a_candidate_that_the_pixels_have_to_confirm(name, scans):
    ids, _ = found(lambda c: [name.format(i=38000 + 50 * c + p, s=s) for p in range(20) for s in range(70, 90)])
    assert ids is not None
    assert ids.assumed
    assert ids.scans is scans
    assert len(np.unique(ids.subjects)) == 80
    assert ids.positions is not None
    assert sorted(set(ids.positions.tolist())) == list(range(70, 90))


def test_copies_of_a_slice_stay_with_their_id():
    names = [
        "{i}_{s}.png",
        "{i}_{s}_flip.png",
        "{i}_{s}_aug2.png",
        "aug_{i}_{s}.png",
        "x7_{i}_{s}.png",
        "{i}_{s} (2).png",
    ]
    ids, _ = found(lambda c: [n.format(i=f"4{c}{p:02d}", s=s) for p in range(10) for s in range(5) for n in names])
    assert ids is not None
    assert np.bincount(ids.subjects).tolist() == [30] * 40


@pytest.mark.parametrize(
    "make",
    [
        lambda c: [f"mild_{i}.jpg" for i in range(300)],
        lambda c: [f"{LABELS[c]}_{i}.jpg" for i in range(300)],
        lambda c: [f"verymild_{i} ({j}).jpg" for i in range(60) for j in (2, 3, 4)],
        lambda c: [f"{i} ({j}).jpg" for i in range(26, 33) for j in range(1, 60)],
        lambda c: [f"{uuid.UUID(int=(c * 500 + i) * 7919**9 % 2**128)}.jpg" for i in range(300)],
        lambda c: [f"{c * 1000 + i:05d}.png" for i in range(300)],
        lambda c: [f"img_{c * 1000 + i:05d}.png" for i in range(300)],
        lambda c: [f"{c}_{i}.png" for i in range(300)],
        lambda c: [f"class{c}_{i}.png" for i in range(300)],
        lambda c: [f"aug_{i}_{(i * 7919 + j * 104729) % 10000}.jpeg" for i in range(100) for j in range(4)],
        lambda c: [f"batch{i}_{j}.png" for i in range(12) for j in range(40)],
        lambda c: [f"part{10 * c + i}_{1000 * i + j}.png" for i in range(10) for j in range(40)],
        lambda c: [f"{c}{i:02d}_{(c * 10 + i) * 40 + j}.png" for i in range(10) for j in range(40)],
        lambda c: [f"slice{i}_{j}.png" for i in range(30) for j in range(20)],
        lambda c: [f"{plane}/{i}.png" for plane in ("axial", "coronal", "sagittal") for i in range(60)],
        lambda c: [f"batch{i}/{j}.png" for i in range(12) for j in range(20)],
        lambda c: [f"train/{i}.png" for i in range(60)],
    ],
)
def test_what_only_looks_like_an_id_is_none(make):
    assert found(make)[0] is None


def test_numbers_that_restart_in_each_class_are_of_that_class():
    ids, _ = found(lambda c: [f"{i:03d}_{s}.png" for i in range(20) for s in range(5)])
    assert ids is not None
    assert "by class" in ids.origin
    assert len(np.unique(ids.subjects)) == 80


def test_a_folder_a_patient_with_sessions():
    ids, _ = found(lambda c: [f"{c}{p:02d}/visit{k}/{s}.png" for p in range(9) for k in (1, 2) for s in range(5)])
    assert ids is not None
    assert (ids.kind, ids.assumed, ids.scans) == ("folders", True, False)
    assert len(np.unique(ids.subjects)) == 36
    assert ids.sessions is not None
    assert len(np.unique(ids.sessions)) == 72


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), value % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(root: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(number))
    return root


def test_folders_of_patients_around_the_class_folders(tmp_path):
    write(tmp_path, [f"P{p:02d}/{LABELS[p % 4]}/{s}.png" for p in range(12) for s in range(3)])
    samples = load_samples(tmp_path)
    assert len(samples) == 36
    assert samples.ids is not None
    assert samples.ids.kind == "folders"
    assert len(np.unique(samples.ids.subjects)) == 12


def test_participants_beside_the_data(tmp_path):
    write(tmp_path / "slices", [f"{LABELS[p % 4]}/x_{p:03d}_{s}.png" for p in range(8) for s in range(3)])
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\n" + "".join(f"sub-{p:03d}\t70\n" for p in range(8))
    )
    samples = load_samples(tmp_path / "slices")
    assert samples.ids is not None
    assert samples.ids.kind == "participants"
    assert np.bincount(samples.ids.subjects).tolist() == [3] * 8
    (tmp_path / "slices" / LABELS[0] / "other.png").write_bytes(png(0))
    samples = load_samples(tmp_path / "slices")
    assert samples.ids is None or samples.ids.kind != "participants"
    assert "1 of 25 files name none of them" in samples.notes[0]
    (tmp_path / "participants.tsv").write_text("id\n1\n")
    assert "participants.tsv is not used" in load_samples(tmp_path / "slices").notes[0]


def test_a_bids_tree_takes_its_classes_from_the_participants(tmp_path):
    write(
        tmp_path,
        [f"sub-{p:02d}/ses-{k}/anat/sub-{p:02d}_ses-{k}_T1w_{s}.png" for p in range(8) for k in "ab" for s in "12"],
    )
    rows = [f"sub-{p:02d}\t{LABELS[p % 4]}\n" for p in range(7)]
    (tmp_path / "participants.tsv").write_text("participant_id\tdiagnosis\n" + "".join(rows))
    samples = load_samples(tmp_path)
    assert len(samples) == 28
    assert samples.ids is not None
    assert len(np.unique(samples.ids.subjects)) == 7
    assert samples.ids.sessions is not None
    assert len(np.unique(samples.ids.sessions)) == 14
    assert [str(skipped) for skipped in samples.skipped] == [
        "4 files of participants not in participants.tsv, such as sub-07/ses-a/anat/sub-07_ses-a_T1w_1.png"
    ]


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_table_of_path_label_patient_session(tmp_path, separator):
    write(tmp_path / "images", [f"{at}.png" for at in range(8)])
    rows = [["File Name", "Diagnosis", "Subject", "visit"]]
    rows += [
        [f"images/{at}.png", ["non demented", "Mild Dementia"][at % 2], f"Müller {at // 2}", str(at % 2)]
        for at in range(8)
    ]
    table = tmp_path / ("list.tsv" if separator == "\t" else "list.csv")
    table.write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8-sig")
    samples = load_samples(table)
    assert samples.labels.tolist() == [0, 2] * 4
    assert samples.ids is not None
    assert samples.ids.subjects.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert samples.ids.sessions is not None
    assert len(np.unique(samples.ids.sessions)) == 8
    assert "Müller" not in samples.ids.origin
    assert samples.read(3) == png(3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,patient\n0.png,1\n", "has no column label; its header is path, patient"),
        ("path,label\n", "lists no slice"),
        ("path,label,label\n0.png,NonDemented,MildDemented\n", "has 2 columns of one name, 'label' and 'label'"),
        ("path,label\n0.png,NonDemented\ngone.png,NonDemented\n", r"1 of 2 files do not exist, such as 'gone\.png'"),
        ("path,label\n0.png,NonDemented\n0.png,NonDemented\n", r"lists the file '0\.png' twice\. Expected one row"),
        ("path,label\n0.png,2\n", "column 'label': the labels are the numbers 2, and nothing gives their order"),
        ("path,label,patient\n0.png,NonDemented,\n1.png,NonDemented,7\n", "row 2: the column 'patient' is empty"),
        ("path,label,patient\n0.png,NonDemented,7\n1.png,NonDemented,7\n", "has the same patient for all"),
    ],
)
def test_a_table_that_cannot_be_used_is_said(tmp_path, text, message):
    write(tmp_path, ["0.png", "1.png"])
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_samples(tmp_path / "list.csv")


def test_parquet_paths_and_columns_have_ids(tmp_path):
    images = [{"bytes": png(at), "path": f"any/OAS1_{at // 3:04d}_MR1_{at % 3}.jpg"} for at in range(24)]
    names = [LABELS[at // 3 % 4] for at in range(24)]
    pq.write_table(pa.table({"image": images, "label": names}), tmp_path / "a.parquet")
    ids = load_samples(tmp_path / "a.parquet").ids
    assert ids is not None
    assert (ids.kind, np.bincount(ids.subjects).tolist()) == ("names", [3] * 8)
    plain = [{**image, "path": f"{at}.jpg"} for at, image in enumerate(images)]
    table = pa.table({"image": plain, "label": names, "patient_id": [at // 6 for at in range(24)]})
    pq.write_table(table, tmp_path / "b.parquet")
    ids = load_samples(tmp_path / "b.parquet").ids
    assert ids is not None
    assert (ids.kind, np.bincount(ids.subjects).tolist()) == ("table", [6] * 4)


def test_a_pattern_reads_patient_session_and_slice():
    paths = [f"MildDemented/{p}x{k}y{s}.png" for p in "ab" for k in "12" for s in range(3)]
    ids = from_pattern(paths, r"/(?P<patient>\w)x(?P<session>\d)y(?P<slice>\d+)", "data")
    assert len(np.unique(ids.subjects)) == 2
    assert ids.sessions is not None
    assert len(np.unique(ids.sessions)) == 4
    assert ids.positions is not None
    assert ids.positions.tolist() == [0, 1, 2] * 4
    with pytest.raises(DatasetError, match=r"no patient in 6 of 12 files of data, such as 'MildDemented/bx1y0\.png'"):
        from_pattern(paths, r"(?P<patient>a)x", "data")
    with pytest.raises(DatasetError, match="finds the same patient 'Mild' in all 12 files"):
        from_pattern(paths, r"(?P<patient>Mild)", "data")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(?P<patient>", "is not a regular expression"),
        (r"\d+", r"needs a named group \(\?P<patient>…\).*it has none"),
        (r"(?P<person>\d+)", "it has the named groups person"),
        (r"(?P<patient>\d+)(?P<plane>.)", "it has the named groups patient, plane"),
    ],
)
def test_a_pattern_of_no_use_is_refused_before_anything_is_read(text, message):
    from stageproof.train.config.command_line import parse

    with pytest.raises(InputError, match=message):
        compile_pattern(text)
    with pytest.raises(InputError, match=message):
        parse(["--data", "nowhere", "--patient-pattern", text])


def test_linked_folders_are_followed_once_and_debris_is_counted(tmp_path):
    data = write(tmp_path / "data", [f"{label}/{at}.png" for label in LABELS for at in range(2)])
    write(tmp_path / "elsewhere", ["a/1.png", "a/2.png"])
    for name in ("Thumbs.db", "._0.png", "desktop.ini", ".DS_Store"):
        (data / LABELS[0] / name).write_bytes(b"x")
    write(data, ["__MACOSX/NonDemented/._0.png", "stray.png"])
    (data / LABELS[0] / "linked").symlink_to(tmp_path / "elsewhere" / "a")
    (data / LABELS[1] / "again").symlink_to(tmp_path / "elsewhere" / "a")
    (data / LABELS[1] / "up").symlink_to(data)
    (data / LABELS[2] / "nowhere").symlink_to(tmp_path / "gone")
    samples = load_samples(data)
    assert len(samples) == 10
    assert f"{LABELS[0]}/linked/1.png" in samples.names
    told = "; ".join(map(str, samples.skipped))
    assert "5 hidden files, or files created by macOS or Windows" in told
    assert "3 broken links, or links to a folder that was read already" in told
    assert "1 files outside the class folders, such as stray.png" in told


def test_dicom_patients_are_digests_that_nobody_can_trace(tmp_path):
    pytest.importorskip("pydicom", reason="the extra dicom")
    from tests.runtime.dicoms import dataset, encoded

    for at in range(16):
        folder = tmp_path / LABELS[at // 4]
        folder.mkdir(exist_ok=True)
        made = dataset(PatientID=f"KIS-{at // 2:04d}", StudyInstanceUID=f"1.2.3.{at // 2}", InstanceNumber=at)
        (folder / f"1.2.840.{at}").write_bytes(encoded(made))
    samples = load_samples(tmp_path)
    assert samples.ids is not None
    assert samples.ids.kind == "dicom"
    assert np.bincount(samples.ids.subjects).tolist() == [2] * 8
    assert "KIS" not in repr(samples)
    from stageproof.runtime.preprocess import InputSpec
    from stageproof.train.data.decode import safe_loader

    slices, unreadable = safe_loader(samples, InputSpec(8, 8, 1, (0.0,), (1.0,)))
    assert unreadable == ()
    assert slices.pixels.shape == (16, 1, 8, 8)
    nameless = dataset(PatientID="")
    (tmp_path / LABELS[0] / "1.2.840.99").write_bytes(encoded(nameless))
    samples = load_samples(tmp_path)
    assert samples.ids is None
    assert "16 are DICOM files with a PatientID, 1 without" in samples.notes[0]
