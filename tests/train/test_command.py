"""`python -m train`: what it writes; bad input is one line, the right exit status, and nothing half-written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stageproof.runtime.bundle.manifest import sha256_file
from stageproof.runtime.labels import LABELS
from stageproof.train.__main__ import main
from stageproof.train.data.phantom.__main__ import draw_slice
from stageproof.train.runs.record import read_record
from tests.train.small_networks import SMALLEST

pytestmark = pytest.mark.usefixtures("drawn_once")

TINY = [*SMALLEST, "--image-size", "32", "--head.epochs", "0", "--full.epochs", "1", "--precision", "fp32"]


def write_slices(root: Path, counts: dict[str, int]) -> Path:
    """Class folders of phantom slices, each of a different person."""
    for stage, label in enumerate(LABELS):
        if label in counts:
            (root / label).mkdir(parents=True)
        for patient in range(counts.get(label, 0)):
            Image.fromarray(draw_slice(stage, 100 * stage + patient, 0.5, size=32)).save(
                root / label / f"{patient}.png"
            )
    return root


def test_a_run_directory_holds_what_its_format_says(trained_run):
    record = read_record(trained_run)
    assert record["architecture"] == "resnet50"
    assert record["labels"] == list(LABELS)
    assert record["input"]["height"] == 32
    assert record["weights_sha256"] == sha256_file(trained_run / "model.safetensors")
    assert record["data"]["slices"] == 576
    assert record["split"]["leaked"] == 0.0
    assert record["metrics"]["patients"] == len(set(_patients(trained_run, "validation")))
    assert not set(_patients(trained_run, "validation")) & set(_patients(trained_run, "training"))
    lines = [json.loads(line) for line in (trained_run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["epoch"]) for line in lines] == [("head", epoch) for epoch in (1, 2, 3)]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert not (trained_run.parent / f".{trained_run.name}.partial").exists()


def test_unknown_patients_are_not_split_by_patient(tmp_path, capsys):
    data = write_slices(tmp_path / "my slices", dict.fromkeys(LABELS, 6))
    assert main([*TINY, "--data", str(data), "--out", str(tmp_path / "runs" / "run")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"DatasetError: PATIENTS UNKNOWN in {data}")
    for words in ("--groups FILE.csv", "--patient-pattern REGEX", "participants.tsv", f"--data '{data}'"):
        assert words in error
    assert not (tmp_path / "runs").exists()


def test_nothing_speaks_of_patients_that_nobody_knows(tmp_path, capsys):
    data = write_slices(tmp_path / "slices", dict.fromkeys(LABELS, 6))
    arguments = [*TINY, "--split", "slice", "--data", str(data), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert "PATIENTS UNKNOWN" in said.err
    assert not [key for key in json.loads(said.out) if "patient" in key]
    record = json.loads((tmp_path / "run" / "run.json").read_text(), parse_constant=pytest.fail)
    assert record["split"]["leaked"] is record["data"]["patients"] is record["data"]["groups"] is None
    assert record["data"]["patients_told_by"] == "nothing"
    assert record["data"]["verdict"] == "unknown"
    assert not [key for key in record["metrics"] if "patient" in key]
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert "patient" not in line
    with (tmp_path / "run" / "split.csv").open(newline="") as file:
        assert {row["patient"] for row in csv.DictReader(file)} == {""}
    from stageproof.train.evaluate.__main__ import main as evaluate

    assert evaluate([str(tmp_path / "run"), "--resamples", "200"]) == 0
    said = capsys.readouterr()
    assert "PATIENTS UNKNOWN" in said.err
    assert "patient" not in said.out.lower().partition("\nreport")[0]
    facts = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert facts["calibration"]["after"] is facts["calibration"]["fitted_on_patients"] is None
    assert facts["patients"] is facts["data"]["patients"] is None
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert "number of patients" not in card
    assert "other patients" not in card


def _patients(run: Path, side: str) -> list[str]:
    with (run / "split.csv").open(newline="") as file:
        return [row["patient"] for row in csv.DictReader(file) if row["side"] == side]


def only_one_class(root: Path) -> tuple[Path, str]:
    return write_slices(root, {"MildDemented": 6}), "has images of MildDemented alone"


def an_empty_class(root: Path) -> tuple[Path, str]:
    return write_slices(
        root, {**dict.fromkeys(LABELS, 3), "MildDemented": 0}
    ), "There are 3 slices in the smallest class, fewer than 5 folds"


def three_images(root: Path) -> tuple[Path, str]:
    return write_slices(root, dict.fromkeys(LABELS[:3], 1)), "There are 1 slices in the smallest class"


def one_image_a_class(root: Path) -> tuple[Path, str]:
    return write_slices(root, dict.fromkeys(LABELS, 1)), "There are 1 slices in the smallest class, fewer than 5 folds"


def every_file_broken(root: Path) -> tuple[Path, str]:
    write_slices(root, dict.fromkeys(LABELS, 6))
    for path in root.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:50])
    return root, "24 of 24 files of"


def labels_outside(root: Path) -> tuple[Path, str]:
    features = {"label": {"names": ["Mild_Demented", "Moderate_Demented", "Non_Demented", "Very_Mild_Demented"]}}
    table = pa.table({"image": [{"bytes": b"", "path": ""}] * 5, "label": [0, 1, 2, 3, 7]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), root / "a.parquet")
    return root / "a.parquet", "7 in the column 'label' is not a class"


def without_the_columns(root: Path) -> tuple[Path, str]:
    pq.write_table(pa.table({"scan": [b""], "stage": [0]}), root / "a.parquet")
    return root / "a.parquet", "has the columns scan, stage"


def nothing_there(root: Path) -> tuple[Path, str]:
    return root / "missing", "does not exist"


@pytest.mark.parametrize(
    "source",
    [
        only_one_class,
        an_empty_class,
        three_images,
        one_image_a_class,
        every_file_broken,
        labels_outside,
        without_the_columns,
        nothing_there,
    ],
)
def test_bad_data_is_one_line_and_exit_2_with_nothing_half_written(tmp_path, capsys, source):
    (tmp_path / "data").mkdir()
    path, message = source(tmp_path / "data")
    status = main(["--data", str(path), *TINY, "--split", "slice", "--out", str(tmp_path / "runs" / "a")])
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.startswith("DatasetError: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fold", "0/5"], "InputError: --fold is '0/5', expected i/k"),
        (["--fold", "6/5"], "InputError: --fold is '6/5'"),
        (["--fold", "x"], "InputError: --fold is 'x'"),
        (["--weights", "nowhere.pth"], "CheckpointError: --weights nowhere.pth: nowhere.pth is not a file"),
        (["--image-size", "0"], "InputError: --image-size is 0, expected 16 to 2048"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_2(tmp_path, capsys, arguments, message):
    assert main([*TINY, *arguments, "--out", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--recipe", "vgg"], ["--epochs", "3"], ["--batch-size", "many"]])
def test_a_usage_error_exits_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_a_run_that_exists_is_left_alone(trained_run, capsys):
    before = sha256_file(trained_run / "run.json")
    assert main([*TINY, "--out", str(trained_run)]) == 2
    assert "exists already. Give another --out" in capsys.readouterr().err
    assert sha256_file(trained_run / "run.json") == before


def test_a_diverging_run_exits_1_and_leaves_nothing(tmp_path, capsys):
    data = write_slices(tmp_path / "data", dict.fromkeys(LABELS, 10))
    # A step of this size overflows float32 in the next forward pass.
    arguments = ["--split", "slice", "--full.learning-rate", "1e30", "--full.schedule", "constant", "--batch-size", "8"]
    status = main(["--data", str(data), *TINY, *arguments, "--out", str(tmp_path / "runs" / "a")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert status == 1
    assert error.startswith("TrainingError: The loss is ")
    assert "of epoch 1, stage full, learning rate 1.00e+30" in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("recipe", ["demo", "resnet50-two-stage", "resnet34-gray"])
def test_help_shows_the_recipes_defaults_without_torch(recipe, helps):
    shown = helps[f"train --recipe {recipe}"]
    assert "torch" not in shown.modules
    size = {"demo": "32", "resnet50-two-stage": "224", "resnet34-gray": "224"}[recipe]
    assert f"(default: {size})" in shown.text
