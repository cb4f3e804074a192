"""Decoding, patients and splits."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.images.raster import read_image
from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.runtime.preprocess import InputSpec, resize
from stageproof.train.data.dataset import prepare
from stageproof.train.data.decode import safe_loader
from stageproof.train.data.patients.from_pixels import identify_patients
from stageproof.train.data.patients.thumbnails import thumbnail
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import load_samples
from stageproof.train.data.splits import split_slices
from stageproof.train.metrics.validation import figures

SPEC = InputSpec.imagenet(32)


def test_every_slice_is_decoded_once_as_prediction_would(phantoms):
    slices, unreadable = safe_loader(phantoms, SPEC)
    assert unreadable == ()
    assert slices.pixels.dtype == np.uint8
    assert slices.pixels.shape == (96, 1, 32, 32)
    assert slices.thumbnails.shape == (96, 64, 64)
    for index in (0, 40, 95):
        assert np.array_equal(slices.pixels[index, 0], resize(read_image(phantoms.read(index)), SPEC))
    assert np.array_equal(slices.labels, phantoms.labels)
    assert np.array_equal(slices.groups, phantoms.groups)


def test_a_colour_image_makes_three_channels_of_all(phantoms, tmp_path):
    colour = tmp_path / "colour.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(colour)
    mixed = replace(phantoms.select(np.arange(3)), images=[phantoms.images[0], colour, phantoms.images[2]])
    pixels = safe_loader(mixed, SPEC)[0].pixels
    assert pixels.shape == (3, 3, 32, 32)
    assert np.array_equal(pixels[1].transpose(1, 2, 0), resize(read_image(colour), SPEC))
    assert np.array_equal(pixels[2], np.repeat(resize(read_image(phantoms.read(2)), SPEC)[None], 3, 0))


def test_unreadable_files_are_left_out_with_their_reasons(phantoms, tmp_path):
    broken = {3: b"", 50: b"not an image", 70: phantoms.read(70)[:90], 90: tmp_path / "gone.png"}
    images = [broken.get(index, image) for index, image in enumerate(phantoms.images)]
    slices, unreadable = safe_loader(replace(phantoms, images=images), SPEC, max_unreadable=0.05)
    assert [item.name for item in unreadable] == [phantoms.names[index] for index in broken]
    assert all(item.reason for item in unreadable)
    assert "gone.png" in unreadable[3].reason
    kept = [index for index in range(96) if index not in broken]
    assert slices.names == tuple(phantoms.names[index] for index in kept)
    assert np.array_equal(slices.labels, phantoms.labels[kept])
    assert np.array_equal(slices.groups, phantoms.groups[kept])


def test_too_many_unreadable_files_stop_the_run(phantoms):
    images = [b"" if index < 5 else image for index, image in enumerate(phantoms.images)]
    with pytest.raises(DatasetError, match=r"5 of 96 files of phantom\(.*\) cannot be read, allowed 5%\. The first: "):
        safe_loader(replace(phantoms, images=images), SPEC, max_unreadable=0.05)
    assert len(safe_loader(replace(phantoms, images=images), SPEC, max_unreadable=0.06)[1]) == 5
    with pytest.raises(DatasetError, match="contains no readable image"):
        safe_loader(replace(phantoms, images=[b""] * 96), SPEC, max_unreadable=1.0)


def test_an_unreadable_file_is_listed_in_the_run_directory(phantoms, tmp_path):
    root = tmp_path / "data"
    for index, (image, label) in enumerate(zip(phantoms.images, phantoms.labels, strict=True)):
        (root / LABELS[label]).mkdir(parents=True, exist_ok=True)
        (root / LABELS[label] / f"{index}.png").write_bytes(image)
    (root / LABELS[0] / "bad.png").write_bytes(b"x")
    data = prepare(root, SPEC, max_unreadable=0.05, split="slice", fold=0, folds=4, seed=0)
    data.write(tmp_path)
    assert [item["name"] for item in json.loads((tmp_path / "unreadable.json").read_text())] == ["NonDemented/bad.png"]
    rows = (tmp_path / "split.csv").read_text().splitlines()
    assert rows[0] == "name,label,patient,side"
    assert sum(row.endswith(",validation") for row in rows) == len(data.split.validation)
    assert len(rows) == 97
    assert data.facts()["unreadable"] == 1


def test_the_digest_is_the_identity_of_names_labels_and_bytes(phantoms):
    assert phantoms.digest() == phantoms.select(np.arange(96)).digest()
    labels = phantoms.labels.copy()
    labels[0] = 1
    assert replace(phantoms, labels=labels).digest() != phantoms.digest()
    assert replace(phantoms, images=[b"", *phantoms.images[1:]]).digest() != phantoms.digest()


@pytest.mark.parametrize("seed", range(2))
def test_no_patients_are_invented_where_there_are_none(seed):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (400, 32, 32)).astype(np.uint8)
    blurs = [
        Image.fromarray(rng.integers(0, 256, (64, 64)).astype(np.uint8)).filter(ImageFilter.GaussianBlur(float(radius)))
        for radius in rng.uniform(1, 8, 400)
    ]
    for pictures in (noise, np.stack([thumbnail(blur) for blur in blurs])):
        patients = identify_patients(pictures)
        assert not patients.found
        assert len(set(patients.groups)) == 400


def test_identical_pictures_are_one_even_where_patients_cannot_be_told():
    noise = np.random.default_rng(1).integers(0, 256, (200, 32, 32)).astype(np.uint8)
    patients = identify_patients(np.concatenate([noise, noise[:30]]))
    assert not patients.found
    assert np.array_equal(patients.groups[200:], patients.groups[:30])
    assert len(set(patients.groups)) == 200


def test_an_even_image_belongs_to_nobody():
    assert len(set(identify_patients(np.zeros((3, 32, 32), np.uint8)).groups)) == 3


@pytest.mark.slow  # test_audit.py holds it too
def test_the_real_patients_are_told_apart_exactly(real_data):
    samples = load_samples(real_data)
    thumbnails = np.stack([thumbnail(read_image(samples.read(index))) for index in range(len(samples))])
    patients = identify_patients(thumbnails)
    groups = patients.groups
    assert patients.found
    assert np.bincount(groups).tolist() == [32] * 160
    assert all(len(set(samples.labels[groups == group])) == 1 for group in range(160))


@pytest.fixture(scope="module")
def cohort():
    """(labels, groups) of 60 patients of 8 slices; the last class is three people."""
    stages = np.repeat([0, 1, 2, 3], [27, 20, 10, 3])
    return np.repeat(stages, 8).astype(np.int64), np.repeat(np.arange(60), 8).astype(np.int64)


def test_a_patient_stays_on_one_side(cohort):
    labels, groups = cohort
    held = []
    for fold in range(3):
        split = split_slices(labels, groups, folds=3, fold=fold, seed=1)
        assert not set(groups[split.training]) & set(groups[split.validation])
        assert len(split.training) + len(split.validation) == len(labels)
        assert split.leaked == 0.0
        assert set(labels[split.validation]) == {0, 1, 2, 3}
        held.append(split.validation)
    assert sorted(np.concatenate(held)) == list(range(len(labels)))  # each slice is validated in exactly one fold


def test_a_slice_split_says_how_much_it_leaks(cohort):
    split = split_slices(*cohort, by="slice", folds=5, seed=1)
    assert split.leaked > 0.9
    assert split.leaked == np.isin(cohort[1][split.validation], cohort[1][split.training]).mean()


def test_a_split_is_decided_by_its_seed(cohort):
    first, same, other = (split_slices(*cohort, seed=seed, folds=3).validation for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("last", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_every_class_is_trained_on_and_those_of_few_people_are_named(last, seed):
    labels = np.repeat(np.repeat([0, 1, 2, 3], [9, 8, 7, last]), 3)
    groups = np.repeat(np.arange(24 + last), 3)
    held = []
    for fold in range(5):
        split = split_slices(labels, groups, folds=5, fold=fold, seed=seed)
        assert set(labels[split.training]) == {0, 1, 2, 3}
        assert split.scarce == (3,)
        assert split.leaked == 0
        held += list(split.validation)
    assert len(held) == len(set(held)) == len(labels) - (3 if last == 1 else 0)  # an only patient is always trained on


def test_enough_people_are_not_named(cohort):
    assert split_slices(*cohort, folds=3).scarce == ()
    assert split_slices(*cohort, folds=4).scarce == (3,)


def test_no_recall_is_shown_for_a_class_of_too_few_people():
    logits, labels = np.eye(4)[[0, 1, 2, 3]] * 9, np.arange(4)
    found = figures(logits, labels, np.arange(4), FOUR_STAGES, ("ModerateDemented",))
    assert found["recall"]["ModerateDemented"] is None
    assert found["balanced_accuracy"] == 1
    assert figures(logits, labels, np.arange(4), FOUR_STAGES, LABELS)["balanced_accuracy"] is None


@pytest.mark.parametrize(("by", "kind"), [("patient", "4 patients"), ("slice", "2 slices in the smallest class")])
def test_too_few_for_the_folds(by, kind):
    labels, groups = np.repeat([0, 1, 2, 3], 2), np.repeat([0, 1, 2, 3], 2)
    with pytest.raises(DatasetError, match=f"There are {kind}, fewer than 5 folds"):
        split_slices(labels, groups, by=by, folds=5)


def test_samples_select_keeps_every_field_together(phantoms):
    chosen = phantoms.select(np.array([5, 2]))
    assert isinstance(chosen, Samples)
    assert [chosen.names[0], chosen.names[1]] == [phantoms.names[5], phantoms.names[2]]
    assert chosen.read(1) == phantoms.read(2)
    assert chosen.groups.tolist() == [phantoms.groups[5], phantoms.groups[2]]
