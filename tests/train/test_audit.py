"""The audit: on phantoms whose people are known, on the real slices, and on pictures of nobody."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.labels import LABELS
from train.audit import main
from train.data.phantom import main as write_phantoms
from train.evaluation.leakage import nearest_neighbour, shared_patients


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "slices"
    assert write_phantoms(["--out", str(folder), "--size", "64"]) == 0
    return folder


def audited(data: Path, out: Path) -> dict:
    assert main(["--data", str(data), "--out", str(out)]) == 0
    return json.loads((out / "audit.json").read_text())


def test_phantom_people_are_counted_and_the_leak_is_shown(people, tmp_path, capsys):
    findings = audited(people, tmp_path / "audit")
    assert findings["patients_by_class"] == dict.fromkeys(LABELS, 6)
    assert findings["slices_a_patient"] == [32, 32.0, 32]
    assert findings["patients_with_two_labels"] == 0
    assert findings["shared_by_random_split"] == 1
    assert findings["nearest_neighbour_any_slice"] == 1
    assert findings["nearest_neighbour_other_patients"] < 0.9
    said = capsys.readouterr().out
    assert "LEAKAGE     100% of the test slices of a random split have their own\n" in said
    assert max(map(len, said.splitlines()[:-1])) <= 80


def test_the_report_is_one_page_that_fetches_nothing(people, tmp_path):
    audited(people, tmp_path / "audit")
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert page.count('src="data:image/png;base64,') == page.count("<img") == 2
    assert "http" not in page


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
    assert [item["name"] for item in findings["unreadable"]] == ["MildDemented/broken.png"]


def test_nobody_is_invented_among_pictures_of_nobody(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for label in LABELS:
        (tmp_path / "slices" / label).mkdir(parents=True)
        for number in range(60):
            noise = rng.integers(0, 256, (40, 40)).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / "slices" / label / f"{number}.png")
    findings = audited(tmp_path / "slices", tmp_path / "audit")
    assert findings["patients_found"] is False
    assert findings["patients"] is findings["shared_by_random_split"] is None
    assert "patients    UNKNOWN" in capsys.readouterr().out


def test_an_existing_report_is_not_overwritten(people, tmp_path, capsys):
    (tmp_path / "audit").mkdir()
    assert main(["--data", str(people), "--out", str(tmp_path / "audit")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert list((tmp_path / "audit").iterdir()) == []


def test_the_real_slices_are_160_people_and_their_split_is_all_leak(real_data, tmp_path):
    findings = audited(real_data, tmp_path / "audit")
    assert list(findings["patients_by_class"].values()) == [80, 56, 22, 2]
    assert findings["slices_a_patient"] == [32, 32.0, 32]
    assert findings["shared_by_random_split"] == 1
    assert findings["nearest_neighbour_any_slice"] >= 0.999
    assert 0.4 < findings["nearest_neighbour_other_patients"] < 0.6


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
