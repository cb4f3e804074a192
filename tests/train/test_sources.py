"""Class folders and parquet files become labelled samples, or one error that names what was found."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import ALPHABETICAL, LABELS
from stageproof.train.data.sources.source import absent_classes, load_samples


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def make_folders(root: Path, names: list[str], images: int = 1) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(images):
            (root / name / f"{index}.png").write_bytes(png(index))
    return root


def write_parquet(path: Path, labels: list, names: list[str] | None, images: list | None = None) -> Path:
    """A file as the datasets library writes it: struct<bytes, path>, int64 labels, ClassLabel names in the metadata."""
    rows = images or [{"bytes": png(index), "path": f"{index}.png"} for index in range(len(labels))]
    table = pa.table({"image": rows, "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize(
    "names",
    [
        LABELS,
        ("Non_Demented", "Very_Mild_Demented", "Mild_Demented", "Moderate_Demented"),
        ("non demented", "very mild demented", "mild demented", "moderate demented"),
        ("No Impairment", "Very Mild Impairment", "Mild Impairment", "Moderate Impairment"),
        ("No Dementia", "Very-Mild-Dementia", "MILD_DEMENTIA", "ModerateDementia"),
    ],
)
def test_class_folders_are_known_in_any_spelling(tmp_path, names):
    samples = load_samples(make_folders(tmp_path, list(names), images=2))
    assert len(samples) == 8
    assert samples.groups is None
    by_folder = {name.split("/")[0]: int(label) for name, label in zip(samples.names, samples.labels, strict=True)}
    assert by_folder == {name: index for index, name in enumerate(names)}
    assert samples.labels.dtype == np.int64
    assert samples.read(0) == png(0)


def test_hidden_files_and_folders_are_left_alone_and_subfolders_are_searched(tmp_path):
    make_folders(tmp_path, list(LABELS))
    (tmp_path / ".git").mkdir()
    (tmp_path / LABELS[0] / ".DS_Store").write_bytes(b"x")
    (tmp_path / LABELS[0] / "more").mkdir()
    (tmp_path / LABELS[0] / "more" / "deep.png").write_bytes(png(9))
    assert sorted(load_samples(tmp_path).names) == sorted(
        [*(f"{label}/0.png" for label in LABELS), f"{LABELS[0]}/more/deep.png"]
    )


def test_a_folder_that_is_no_class_is_named(tmp_path):
    make_folders(tmp_path, [*LABELS, "Combined Dataset"])
    with pytest.raises(
        DatasetError, match=r"\('Combined Dataset' is in none\)\. Name all .* --classes A,B,C\..* and move others out\."
    ):
        load_samples(tmp_path)


def test_a_folder_dealt_into_train_and_test_says_what_to_do_with_them(tmp_path):
    for part in ("test", "train"):
        make_folders(tmp_path / part, list(LABELS[:2] if part == "test" else LABELS))
    with pytest.raises(DatasetError) as caught:
        load_samples(tmp_path)
    assert f"{tmp_path} contains test, train, with the class folders inside" in str(caught.value)
    assert f"--data {tmp_path / 'train'}. Then evaluate on slices of other patients: " in str(caught.value)
    assert f"python -m train.evaluate --data {tmp_path / 'test'}. To find patients in both" in str(caught.value)
    assert len(load_samples(tmp_path / "train")) == 4


def test_a_folder_around_the_class_folders_is_seen_through(tmp_path):
    make_folders(tmp_path / "slices", list(LABELS))
    with pytest.raises(DatasetError, match=f"Train on one of them: --data {tmp_path / 'slices'}.$"):
        load_samples(tmp_path)


def test_a_class_spelt_twice_names_both_folders(tmp_path):
    make_folders(tmp_path, [*LABELS, "Mild_Demented"])
    with pytest.raises(DatasetError, match=r"'MildDemented', 'Mild_Demented' are the same class spelt twice"):
        load_samples(tmp_path)


@pytest.mark.parametrize("missing", LABELS)
def test_a_class_without_images_is_no_fault_of_a_data_set(tmp_path, missing):
    make_folders(tmp_path, [name for name in LABELS if name != missing], images=2)
    samples = load_samples(tmp_path)
    assert absent_classes(samples.labels, samples.classes) == (missing,)
    assert len(samples) == 6
    (tmp_path / missing).mkdir()
    assert load_samples(tmp_path).labels.tolist() == samples.labels.tolist()


def test_class_folders_without_any_image(tmp_path):
    make_folders(tmp_path, list(LABELS), images=0)
    with pytest.raises(DatasetError, match=r"has no image of any class"):
        load_samples(tmp_path)


def test_nothing_at_all(tmp_path):
    with pytest.raises(DatasetError, match="found no folder at all"):
        load_samples(tmp_path)
    with pytest.raises(DatasetError, match=r"nowhere does not exist"):
        load_samples(tmp_path / "nowhere")
    (tmp_path / "slices.h5").write_text("a,b")
    with pytest.raises(DatasetError, match=r"slices.h5 is text; expected a folder of class folders, a \.parquet file"):
        load_samples(tmp_path / "slices.h5")


def test_parquet_labels_go_through_the_names_in_the_file(tmp_path):
    # ClassLabel orders classes alphabetically: 0 is MildDemented there and NonDemented here.
    names = [name.replace("Demented", "_Demented").replace("yM", "y_M") for name in ALPHABETICAL]
    samples = load_samples(write_parquet(tmp_path / "a.parquet", [0, 1, 2, 3, 2], names))
    assert [LABELS[label] for label in samples.labels] == [*ALPHABETICAL, "NonDemented"]
    assert samples.names[1] == "000001/1.png"
    assert samples.read(4) == png(4)


def test_parquet_labels_may_be_class_names(tmp_path):
    labels = ["Mild Demented", "Moderate Demented", "Non Demented", "Very Mild Demented"]
    samples = load_samples(write_parquet(tmp_path / "a.parquet", labels, None))
    assert [LABELS[label] for label in samples.labels] == list(ALPHABETICAL)


def test_parquet_without_the_columns_lists_those_it_has(tmp_path):
    pq.write_table(pa.table({"pixels": [b""], "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match=r"has the columns pixels, label; expected 'image'"):
        load_samples(tmp_path / "a.parquet")


def test_parquet_whose_images_are_no_structs(tmp_path):
    pq.write_table(pa.table({"image": ["a.png"], "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match=r"'image' is string, expected struct<bytes, path>"):
        load_samples(tmp_path / "a.parquet")


def test_parquet_with_numbers_and_no_names_is_not_guessed(tmp_path):
    with pytest.raises(DatasetError, match=r"are the numbers 0, 1, 2, 3, .*--classes A,B,C, or a built-in set: four"):
        load_samples(write_parquet(tmp_path / "a.parquet", [0, 1, 2, 3], None))


def test_parquet_with_a_class_of_another_disease(tmp_path):
    with pytest.raises(DatasetError, match=r"\('glioma' is in none\)"):
        load_samples(write_parquet(tmp_path / "a.parquet", [0, 1, 2, 3], [*ALPHABETICAL[:3], "glioma"]))


@pytest.mark.parametrize(
    "labels",
    [[0.0, 1.0, 2.0, 3.0], ["0", "1", "2", "3"], ["mild demented", "Moderate_Demented", "NonDemented", "3"]],
    ids=["whole floats, as pandas writes them", "digits", "names"],
)
def test_parquet_labels_of_every_type_that_says_a_class(tmp_path, labels):
    samples = load_samples(write_parquet(tmp_path / "a.parquet", labels, list(ALPHABETICAL)))
    assert [LABELS[label] for label in samples.labels] == list(ALPHABETICAL)


@pytest.mark.parametrize("outside", [4, -1, None, 0.5, 1e300, float("nan"), float("inf"), "4", "-1", "", "glioma"])
def test_parquet_labels_that_are_no_class(tmp_path, outside):
    good = ["0", "1"] if isinstance(outside, str) else [0.0, 1.0] if isinstance(outside, float) else [0, 1]
    path = write_parquet(tmp_path / "a.parquet", [*good, outside], list(ALPHABETICAL))
    with pytest.raises(
        DatasetError, match=r"in the column 'label' is not a class .*integers from 0 to 3, for Mild"
    ) as e:
        load_samples(path)
    assert f" {outside!r} in" in str(e.value)


def test_parquet_labels_that_are_lists(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [[0], [1]], list(ALPHABETICAL))
    with pytest.raises(DatasetError, match=r"'label' is list<.*expected one number or name a row"):
        load_samples(path)


def test_a_parquet_row_without_an_image_is_left_to_the_loader(tmp_path):
    rows = [{"bytes": png(), "path": "a.png"}] * 3 + [None, {"bytes": None, "path": "b.png"}]
    samples = load_samples(write_parquet(tmp_path / "a.parquet", [0, 1, 2, 3, 3], list(ALPHABETICAL), rows))
    assert samples.read(3) == samples.read(4) == b""


def test_a_file_that_only_says_parquet(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DatasetError, match="cannot be read as parquet"):
        load_samples(tmp_path / "a.parquet")


def test_the_real_file(real_data):
    samples = load_samples(real_data)
    assert np.bincount(samples.labels).tolist() == [2560, 1792, 704, 64]
    assert len(set(samples.names)) == 5120
