"""The audit: on phantoms whose people are known, on the real slices, and on pictures of nobody."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.labels import LABELS
from stageproof.train.audit import text
from stageproof.train.audit.__main__ import main
from stageproof.train.audit.leakage import nearest_neighbour, shared_patients
from stageproof.train.audit.page import _HEADS
from stageproof.train.data.phantom.__main__ import main as write_phantoms
from tests.pages import read_page

SLICES = 12
"""Of each of 24 people."""


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "slices"
    assert write_phantoms(["--out", str(folder), "--size", "32", "--slices", str(SLICES)]) == 0
    return folder


def audited(data: Path, out: Path) -> dict:
    assert main(["--data", str(data), "--out", str(out)]) == 0
    return json.loads((out / "audit.json").read_text())


def test_phantom_people_are_counted_and_the_leak_is_shown(people, tmp_path, capsys):
    findings = audited(people, tmp_path / "audit")
    assert findings["patients_by_class"] == dict.fromkeys(LABELS, 6)
    assert findings["slices_a_patient"] == [SLICES, SLICES, SLICES]
    assert findings["patients_with_two_labels"] == 0
    assert findings["shared_by_random_split"] == 1
    assert findings["nearest_neighbour_any_slice"] == 1
    assert findings["nearest_neighbour_other_patients"] < 0.9
    assert findings["linear_baseline"]["patients"] == 24
    assert findings["linear_baseline"]["auc"]["value"] > 0.7
    said = capsys.readouterr().out
    assert "LEAKAGE     in a random split, 100% of the test slices show a patient of\n" in said
    findings_shown = said.partition("\nreport ")[0]
    assert max(map(len, findings_shown.splitlines())) <= 80
    # The report is one page, which fetches nothing.
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert [kind for _, kind, _ in read_page(page).pictures] == ["svg+xml", "png"]
    order = [page.index(part) for part in ("<h1>", 'class="headline"', "<img", "<table", "<td>Linear baseline</td>")]
    assert order == sorted(order)
    assert "<pre" not in page


def test_one_person_with_two_labels_and_repeated_slices_are_found(people, tmp_path):
    moved = sorted((people / "NonDemented").glob("p000_*"))[:4]
    data = tmp_path / "slices"
    for label in LABELS:
        for file in (people / label).iterdir():
            place = "VeryMildDemented" if file in moved else label
            (data / place).mkdir(parents=True, exist_ok=True)
            (data / place / file.name).write_bytes(file.read_bytes())
    again = next((people / "MildDemented").iterdir())
    (data / "MildDemented" / "again.png").write_bytes(again.read_bytes())
    (data / "MildDemented" / "broken.png").write_bytes(b"not an image")
    findings = audited(data, tmp_path / "audit")
    assert findings["patients_with_two_labels"] == 1
    assert findings["identical_slices"] == 1
    assert findings["near_duplicates"] == 0
    names = json.loads((tmp_path / "audit" / "names.json").read_text())["names"]
    assert [names[item["name"]] for item in findings["unreadable"]] == ["MildDemented/broken.png"]
    written = (tmp_path / "audit" / "audit.json").read_text() + (tmp_path / "audit" / "audit.html").read_text()
    assert "broken.png" not in written
    assert str(tmp_path) not in written


def test_nobody_is_invented_among_pictures_of_nobody(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for label in LABELS:
        (tmp_path / "slices" / label).mkdir(parents=True)
        for number in range(60):
            noise = rng.integers(0, 256, (40, 40)).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / "slices" / label / f"{number}.png")
    findings = audited(tmp_path / "slices", tmp_path / "audit")
    assert findings["patients_found"] is False
    assert findings["patients"] is findings["shared_by_random_split"] is findings["linear_baseline"] is None
    assert "patients    UNKNOWN" in capsys.readouterr().out


@pytest.mark.slow
def test_copies_that_are_a_second_stack_are_no_second_patient(people, tmp_path, capsys):
    """A turned copy of every slice: each head's stack twice, as if it were scanned again. 24 patients, groups of whole
    patients or "unknown" are right, 48 are not; and the audit says what leaks whichever it is."""
    data = tmp_path / "slices"
    for label in LABELS:
        (data / label).mkdir(parents=True)
        for file in (people / label).iterdir():
            (data / label / file.name).write_bytes(file.read_bytes())
            with Image.open(file) as image:
                image.rotate(12, Image.Resampling.BILINEAR).save(data / label / f"copy_{file.name}")
    findings = audited(data, tmp_path / "audit")
    assert findings["patients"] in (None, 24)
    assert findings["patients_with_two_labels"] in (0, None)
    assert re.search(r"LEAKAGE     in a random split, (at least 99|100)%", capsys.readouterr().out)
    if findings["patients_found"]:
        rows = (tmp_path / "audit" / "groups.csv").read_text().splitlines()
        group = dict(row.rsplit(",", 1) for row in rows[1:])
        assert len(group) == 2 * 24 * SLICES
        assert all(group[name] == group[name.replace("copy_", "")] for name in group)


def test_a_split_into_folders_is_audited(people, tmp_path, capsys):
    """Half of one person's slices, and all of another's, are tested on; one test slice is a training slice."""
    data = tmp_path / "kaggle"
    for label in LABELS:
        names = sorted({file.name[:4] for file in (people / label).iterdir()})
        for file in (people / label).iterdir():
            person, number = file.stem.split("_s")
            tested = person == names[0] or (person == names[1] and int(number) % 2)
            place = data / ("test" if tested else "train") / label
            place.mkdir(parents=True, exist_ok=True)
            (place / file.name).write_bytes(file.read_bytes())
    again = next((data / "train" / "MildDemented").iterdir())
    (data / "test" / "MildDemented" / "again.png").write_bytes(again.read_bytes())
    (data / "test" / "MildDemented" / "broken.png").write_bytes(b"not an image")
    given = audited(data, tmp_path / "audit")["given_split"]
    half, tested = 4 * SLICES // 2, 4 * (SLICES + SLICES // 2) + 1
    assert given["slices_by_folder"] == {"test": tested, "train": 24 * SLICES - tested + 1}
    assert given["own_patient_in_training"] == (half + 1) / tested
    assert given["repeated_in_training"] == 1 / tested
    assert "LEAKAGE     34% of them show a patient of the training set" in capsys.readouterr().out


def test_a_folder_beside_the_parts_that_holds_no_classes(people, tmp_path, capsys):
    (tmp_path / "data" / "train" / "NonDemented").mkdir(parents=True)
    (tmp_path / "data" / "figures").mkdir()
    assert main(["--data", str(tmp_path / "data"), "--out", str(tmp_path / "audit")]) == 2
    assert "'figures' contains no class folders" in capsys.readouterr().err
    assert not (tmp_path / "audit").exists()


def test_a_file_says_who_is_who_and_the_pixels_may_doubt_it(people, tmp_path):
    names = sorted(file.relative_to(people).as_posix() for file in people.rglob("*.png"))
    told = {name: name.rpartition("_s")[0] for name in names}
    told[names[0]] = told[names[-1]]
    (tmp_path / "ids.csv").write_text("file,group\n" + "".join(f"{name},{group}\n" for name, group in told.items()))
    assert main(["--data", str(people), "--groups", str(tmp_path / "ids.csv"), "--out", str(tmp_path / "audit")]) == 0
    findings = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert findings["patients_told_by"] == "file"
    assert findings["patients"] == 24
    assert findings["slices_like_another_patient"] == 1
    assert findings["patients_with_two_labels"] == 1
    called = json.loads((tmp_path / "audit" / "names.json").read_text())["names"]
    assert names[0] in [called[file] for file in findings["label_conflicts"][0]["files"]]


def test_an_existing_report_is_not_overwritten(people, tmp_path, capsys):
    (tmp_path / "audit").mkdir()
    assert main(["--data", str(people), "--out", str(tmp_path / "audit")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert list((tmp_path / "audit").iterdir()) == []


@pytest.mark.slow  # as the phantoms above, of which there are fewer
def test_the_real_slices_are_160_people_and_their_split_is_all_leak(real_data, tmp_path):
    findings = audited(real_data, tmp_path / "audit")
    assert list(findings["patients_by_class"].values()) == [80, 56, 22, 2]
    assert findings["too_few_people"] == ["ModerateDemented"]
    assert findings["augmented_copies"] == findings["near_duplicates"] == 0
    assert findings["slices_a_patient"] == [32, 32.0, 32]
    assert findings["shared_by_random_split"] == 1
    assert findings["nearest_neighbour_any_slice"] >= 0.999
    assert 0.4 < findings["nearest_neighbour_other_patients"] < 0.6
    assert 0.7 < findings["linear_baseline"]["auc"]["value"] < 0.85


def test_every_finding_has_a_heading_on_the_page():
    heads = set(re.findall(r'_item\(\s*"([^"]+)"', Path(text.__file__).read_text()))
    assert len(heads) > 15
    assert heads <= set(_HEADS)


def test_nearest_neighbour_by_hand():
    pictures = np.zeros((4, 32, 32), np.uint8)
    pictures[0, :8] = pictures[1, :9] = 200  # one person, two nearly equal slices
    pictures[2, :, :8] = 200
    pictures[3, :8, :24] = 200  # another person, more like the first
    labels, groups = np.array([0, 0, 1, 0]), np.array([0, 0, 1, 2])
    found = nearest_neighbour(pictures, labels, groups)
    assert found.any_slice == 0.75  # the third is alone with its label
    assert found.other_patients == 0.75


def test_shared_patients_by_hand():
    assert shared_patients(np.arange(50)) == 0
    assert shared_patients(np.zeros(50, np.int64)) == 1
