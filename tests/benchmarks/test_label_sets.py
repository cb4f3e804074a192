"""Benchmarks of a bundle with three classes, and of training on data with other classes than four."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stageproof.benchmarks.__main__ import main
from stageproof.benchmarks.training.options import TrainingOptions, parse
from stageproof.benchmarks.training.suite import _write_files
from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import BUILT_IN
from tests import tiny
from tests.export import label_runs


def test_a_bundle_of_three_classes_is_measured(graded_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ["--quick", "--no-peers", "--only", "onnx fp32", "--samples", "12", "--images", "16", "--out", str(out)]
    with tiny.known():
        assert main([str(graded_bundle), "--run", str(graded_bundle.with_name("run")), *options]) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["bundle"]["labels"] == list(label_runs.order_of(label_runs.GRADES))
    assert record["bundle"]["positive"] == list(label_runs.GRADES.positive)
    assert all(min(row["samples_ms"]) > 0 for row in record["rows"])


@pytest.mark.parametrize("classes", ["cn-mci-ad", "A.1,B 2,ü"])
def test_training_takes_slices_of_each_class(tmp_path: Path, classes: str) -> None:
    found = _write_files(TrainingOptions(classes=classes), tmp_path, 12)
    assert found.names == (BUILT_IN.get(classes) or tuple(classes.split(",")))
    assert {folder.name: len(list(folder.iterdir())) for folder in tmp_path.iterdir()} == dict.fromkeys(found.names, 4)


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="--classes is 'AD', expected class names in clinical order"):
        parse(["--classes", "AD"])
