"""The ONNX file: a dynamic batch, its own description, and nothing of the machine that wrote it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from stageproof.export.formats.onnx import assert_dynamic_batch
from stageproof.runtime.bundle.manifest import METADATA_KEY, ModelInfo, read_manifest
from stageproof.runtime.errors import ExportError


@pytest.fixture(scope="module")
def model(firm_bundle):
    return onnx.load(firm_bundle / "model.onnx")


def test_the_batch_is_dynamic_in_the_file(model):
    for value in (*model.graph.input, *model.graph.output):
        first, *others = value.type.tensor_type.shape.dim
        assert first.dim_param
        assert all(dim.dim_value > 0 for dim in others)


@pytest.mark.parametrize("end", ["input", "output"])
def test_a_file_with_a_frozen_batch_axis_is_refused(model, tmp_path, end):
    frozen = copy.deepcopy(model)
    getattr(frozen.graph, end)[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(frozen, tmp_path / "frozen.onnx")
    with pytest.raises(ExportError, match=r"frozen.onnx: the batch axis of .* is fixed at 1, expected a dynamic axis"):
        assert_dynamic_batch(tmp_path / "frozen.onnx")


def test_metadata_props_hold_labels_and_input_spec(model, firm_bundle):
    carried = {entry.key: entry.value for entry in model.metadata_props}
    assert set(carried) == {METADATA_KEY}
    assert ModelInfo.from_json(carried[METADATA_KEY], "the file") == read_manifest(firm_bundle).model
    content = json.loads(carried[METADATA_KEY])
    assert content["labels"] == ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"]
    assert content["input"]["mean"] == [0.485, 0.456, 0.406]


def test_a_lone_file_predicts_as_its_bundle(firm_bundle, tmp_path, scan):
    from stageproof.runtime.predictor import Predictor

    alone = tmp_path / "alone.onnx"
    alone.write_bytes((firm_bundle / "model.onnx").read_bytes())
    expected = Predictor(firm_bundle, backend="onnx", guard=False).predict(scan)
    got = Predictor(alone, backend="onnx", guard=False).predict(scan)
    assert got.probabilities == expected.probabilities


def test_no_path_of_the_exporting_machine_is_in_the_file(firm_bundle, run, slices):
    content = (firm_bundle / "model.onnx").read_bytes()
    import torch

    for place in (Path(torch.__file__).parent, Path(__file__).parents[2], run, slices, Path.home()):
        assert str(place).encode() not in content
    assert b".py" not in content


def test_the_whole_model_is_in_the_one_file(model):
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert sum(np.prod(tensor.dims) for tensor in model.graph.initializer) > 23e6
