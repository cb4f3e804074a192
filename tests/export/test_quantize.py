"""int8: the graph that is written, what it is calibrated on, and what is put back to float."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from export.formats import onnx as onnx_format
from export.images import calibration_samples
from export.qdq import float_layers_of, layers, with_float_layers
from export.quantize import head_layers, insert_qdq, rank
from runtime.errors import DatasetError


@pytest.fixture(scope="module")
def original(job):
    return onnx.load(onnx_format.graph(job, "fp32")[0])


@pytest.fixture(scope="module")
def full(job, original):
    calibration, _ = job.calibration
    return insert_qdq(job, job.work / "fp32.onnx", calibration.images[:32])


def test_calibration_and_choice_are_on_training_slices_never_the_same(run, slices):
    import csv

    samples, others = calibration_samples(run, None)
    assert len(samples) >= 100
    assert set(samples.labels) == {0, 1, 2, 3}
    assert others.names
    assert not set(samples.names) & set(others.names)
    with (run / "split.csv").open(newline="") as file:
        training = {row["name"] for row in csv.DictReader(file) if row["side"] == "training"}
    assert {*samples.names, *others.names} <= training


def test_a_rare_class_is_calibrated_on_wholly_and_the_rest_evenly(run, slices):
    samples, others = calibration_samples(run, slices, limit=40)
    assert np.bincount(samples.labels).tolist() == [10, 10, 10, 10]
    assert len(others) == 256 - 40


def test_without_enough_images_or_any_it_refuses(run, slices, tmp_path):
    from runtime.labels import LABELS

    with pytest.raises(DatasetError, match="--calibration-data DIR_OR_PARQUET"):
        calibration_samples(None, None)
    for label in LABELS:
        (tmp_path / label).mkdir()
        image = next((slices / label).iterdir())
        (tmp_path / label / image.name).write_bytes(image.read_bytes())
    with pytest.raises(DatasetError, match="has 4 images to calibrate int8 on; at least 100 are needed"):
        calibration_samples(run, tmp_path)


def test_every_scale_is_symmetric_int8_and_no_bias_is_integer(full):
    made = {output: node for node in full.graph.node for output in node.output}
    types = {tensor.name: tensor.data_type for tensor in full.graph.initializer}
    values = {tensor.name: tensor for tensor in full.graph.initializer}
    quantisers = [node for node in full.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantisers
    for node in quantisers:
        assert types[node.input[2]] == onnx.TensorProto.INT8
        assert not onnx.numpy_helper.to_array(values[node.input[2]]).any()
    convolutions = [node for node in full.graph.node if node.op_type == "Conv"]
    for node in convolutions:
        weight = made[node.input[1]]
        assert len(values[weight.input[1]].dims) == 1, "one scale for each output channel"
        assert types[node.input[2]] == onnx.TensorProto.FLOAT


def test_layers_put_back_to_float_have_their_own_weights_again(full, original, job):
    names = layers(full)
    assert float_layers_of(full) == []
    some = with_float_layers(full, [names[0], names[-1]], original)
    assert float_layers_of(some) == [names[0], names[-1]]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in some.graph.initializer}
    before = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in original.graph.initializer}
    assert np.array_equal(stored["conv1.weight"], before["conv1.weight"])
    assert "conv1.weight_quantized" not in stored
    with pytest.raises(KeyError):
        with_float_layers(full, ["no such layer"], original)


@pytest.mark.slow
def test_the_layer_that_hurts_most_is_ranked_first(full, original, job):
    """One layer's scale is made sixteen times too coarse."""
    import copy

    coarse = copy.deepcopy(full)
    name = layers(full)[20]
    node = next(node for node in coarse.graph.node if node.name == name)
    made = {output: other for other in coarse.graph.node for output in other.output}
    weight = made[node.input[1]]
    for suffix in (weight.input[0], weight.input[1]):
        tensor = next(t for t in coarse.graph.initializer if t.name == suffix)
        values = onnx.numpy_helper.to_array(tensor)
        changed = values // 16 if values.dtype == np.int8 else values * 16
        tensor.CopyFrom(onnx.numpy_helper.from_array(changed.astype(values.dtype), suffix))
    calibration, _ = job.calibration
    keep = head_layers(full)
    assert rank(job, coarse, original, keep, calibration.images[:16], calibration.logits[:16])[0] == name


@pytest.mark.slow
def test_int8_that_does_not_hold_says_so_and_is_rejected(job):
    """A random network, compared on 64 images: neither its decisions nor so few images can pass int8's gate."""
    from export.produce import produce

    (first,) = produce(job, "onnx", ["int8"])
    assert first.status == "rejected"
    assert "int8 does not hold on 92 training slices with" in first.reason
    assert "layers put back to float, the worst first" in first.reason
    (second,) = produce(job, "openvino", ["int8"])
    assert second.reason == first.reason
