"""int8: the graph that is written, what it is calibrated on, and what is put back to float."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest

from stageproof.export.data.calibration import calibration_samples
from stageproof.export.formats.graph_store import graph, quantisation_inputs
from stageproof.export.quantization.accuracy_control import select_graph
from stageproof.export.quantization.head_correction import fit_head
from stageproof.export.quantization.int8 import insert_qdq
from stageproof.export.quantization.onnx_runtime import run
from stageproof.export.quantization.qdq_edit import (
    float_layers_of,
    has_float_additions,
    layers,
    with_float_additions,
    with_float_layers,
    with_signed_activations,
    with_unsigned_activations,
)
from stageproof.export.quantization.sensitivity import rank
from stageproof.runtime.errors import DatasetError


@pytest.fixture(scope="module")
def both(job):
    return insert_qdq(quantisation_inputs(job, "int8"))


@pytest.fixture(scope="module")
def original(both):
    return both[0]


@pytest.fixture(scope="module")
def signed(both):
    """Every activation in int8."""
    return both[1]


@pytest.fixture(scope="module")
def full(signed):
    return with_unsigned_activations(signed)


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
    from stageproof.runtime.labels import LABELS

    with pytest.raises(DatasetError, match="--calibration-data DIR_OR_PARQUET"):
        calibration_samples(None, None)
    for label in LABELS:
        (tmp_path / label).mkdir()
        image = next((slices / label).iterdir())
        (tmp_path / label / image.name).write_bytes(image.read_bytes())
    with pytest.raises(DatasetError, match="has 4 calibration images; more than 100 are needed"):
        calibration_samples(run, tmp_path)


def zero_points(model) -> dict[str, int]:
    """Type of the zero point of every quantiser, by the name of what it quantises or dequantises."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {
        node.input[0]: types[node.input[2]]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }


def test_what_is_never_negative_is_uint8_and_all_else_int8(full):
    """Each ReLU but the last, which the float head reads, and the pooling; with zero points of 0."""
    made = {output: node for node in full.graph.node for output in node.output}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in full.graph.initializer}
    unsigned = {name for name, kind in zero_points(full).items() if kind == onnx.TensorProto.UINT8}
    assert set(zero_points(full).values()) == {onnx.TensorProto.UINT8, onnx.TensorProto.INT8}
    sources = [made[name].op_type for name in unsigned if name in made]
    assert (sources.count("Relu"), sources.count("MaxPool"), sources.count("QuantizeLinear")) == (48, 1, 49)
    assert len(sources) == len(unsigned) == 98
    assert not any(values[n.input[2]].any() for n in full.graph.node if n.op_type == "QuantizeLinear")


def test_what_goes_into_a_relu_is_not_rounded_too(full):
    """But for the last one, whose result no convolution reads."""
    made = {output: node for node in full.graph.node for output in node.output}
    sources = [made[node.input[0]].op_type for node in full.graph.node if node.op_type == "Relu"]
    assert (sources.count("Conv"), sources.count("Add"), sources.count("Gemm")) == (33, 16, 1)
    assert len(sources) == 50


def test_the_steps_are_finer_and_the_range_the_same(full, signed, job):
    def scales(model) -> dict[str, float]:
        stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        return {n.output[0]: stored[n.input[1]].item() for n in model.graph.node if n.op_type == "QuantizeLinear"}

    before, after = scales(signed), scales(full)
    assert before.keys() == after.keys()
    finer = [name for name in before if after[name] != before[name]]
    assert len(finer) == 49
    assert all(after[name] * 255 == pytest.approx(before[name] * 127, rel=1e-6) for name in finer)
    back = with_signed_activations(full)
    assert set(zero_points(back).values()) == {onnx.TensorProto.INT8}
    images = job.evaluation_set.images[:8]
    assert np.abs(run(back, images, job.threads) - run(signed, images, job.threads)).max() < 1e-3


def test_weights_have_a_scale_for_each_channel_and_no_bias_is_integer(full):
    made = {output: node for node in full.graph.node for output in node.output}
    types = {tensor.name: tensor.data_type for tensor in full.graph.initializer}
    values = {tensor.name: tensor for tensor in full.graph.initializer}
    convolutions = [node for node in full.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 53
    for node in convolutions:
        weight = made[node.input[1]]
        assert len(values[weight.input[1]].dims) == 1, "one scale for each output channel"
        assert types[node.input[2]] == onnx.TensorProto.FLOAT


def test_layers_put_back_to_float_have_their_own_weights_again(full, original, job):
    names = layers(full)
    assert float_layers_of(full) == names[-2:], "the head"
    some = with_float_layers(full, [names[0], names[20]], original)
    assert float_layers_of(some) == [names[0], names[20], *names[-2:]]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in some.graph.initializer}
    before = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in original.graph.initializer}
    assert np.array_equal(stored["conv1.weight"], before["conv1.weight"])
    assert "conv1.weight_quantized" not in stored
    with pytest.raises(KeyError):
        with_float_layers(full, ["no such layer"], original)


def test_the_first_graph_that_is_expected_to_hold_is_taken(full, original, job, said):
    """One whose every activation is sixteen times too coarse does not; the float graph, tried in its place, does."""
    import copy

    coarse = copy.deepcopy(full)
    scales = {node.input[1] for node in coarse.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in coarse.graph.initializer:
        if tensor.name in scales:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 16, tensor.name))
    allowing = replace(job, options=replace(job.options, flip_tolerance=0.1))
    inputs = quantisation_inputs(allowing, "int8")
    chosen, facts = select_graph(inputs, [coarse, original], original, "int8")
    assert float_layers_of(chosen) == layers(original)
    assert len(said) == 2
    assert re.match(r"int8, all layers quantised: \d+\.\d \(.* of 64 predictions expected to change", said[0])
    assert "all layers quantised, residual additions in float32: 0.0 (" in said[1]
    assert facts["float_layers"] == layers(original)
    said.clear()
    select_graph(inputs, [original, coarse], original, "int8")
    assert len(said) == 1


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
    some = calibration.images[:16], calibration.logits[:16]
    assert rank(coarse, original, *some, job.threads)[0] == name


def test_nothing_is_rounded_between_the_last_convolution_and_the_head(full):
    made = {output: node for node in full.graph.node for output in node.output}
    above = [full.graph.output[0].name]
    while above:
        node = made.get(above.pop())
        if node is None or node.op_type == "Conv":
            continue
        if node.op_type == "DequantizeLinear":
            assert made[made[node.input[0]].input[0]].op_type in ("Conv", "Relu"), "what ONNX Runtime computes in int8"
            continue
        assert node.op_type != "QuantizeLinear"
        above += node.input


def test_onnx_runtime_computes_every_convolution_in_integers(full, tmp_path):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(full.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert (kinds.count("QLinearConv"), kinds.count("Conv")) == (53, 0)


def test_the_head_undoes_what_is_regular_in_the_errors(full, job):
    """A fault that is a linear map of the logits is undone as a whole."""
    from onnx import numpy_helper

    calibration, _ = job.calibration
    images = calibration.images[:64]
    wrong = onnx.ModelProto()
    wrong.CopyFrom(full)
    tensor = next(t for t in wrong.graph.initializer if t.name == "fc.3.bias")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32([0.5, -1, 2, 0]), tensor.name))
    expected = run(full, images, job.threads)
    assert np.abs(run(wrong, images, job.threads) - expected).max() > 1
    fit_head(wrong, images, expected, job.threads)
    assert np.abs(run(wrong, images, job.threads) - expected).max() < 1e-2


def kept(model, path):
    """The graph written to `path`, as .onnx or as .xml."""
    import openvino

    source = path.with_suffix(".onnx")
    onnx.save(model, source)
    if path.suffix == ".xml":
        openvino.save_model(openvino.Core().read_model(source), path, compress_to_fp16=False)
    return path


@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_bisect_sees_every_layer_in_the_trained_models_units(ending, original, full, job, tmp_path):
    """Channels are scaled, and a layer that is right must not look a hundred times wrong for that."""
    from stageproof.export.bisect.activations import activations

    images = job.evaluation_set.images[:4]
    expected = activations(graph(job, "fp32").path, images)

    def errors(model, name: str) -> dict[str, float]:
        got = activations(kept(model, tmp_path / f"{name}{ending}"), images)
        assert set(got) == set(expected)
        return {
            layer: float(np.sqrt(np.square(got[layer].output - one.output).mean() / np.square(one.output).mean()))
            for layer, one in expected.items()
        }

    assert max(errors(original, "scaled").values()) < 1e-4
    # From layer3 on a random network sees 2 x 2 pixels at this size, and int8's rounding grows with every block.
    int8 = errors(full, "int8")
    assert max(error for layer, error in int8.items() if layer.startswith(("conv1", "layer1", "layer2"))) < 0.2


def test_where_too_few_images_could_show_it_int8_is_not_even_tried(tiny_job):
    from stageproof.export.formats.build import produce

    (outcome,) = produce(tiny_job, "onnx", ["int8"])
    assert outcome.status == "rejected"
    assert outcome.reason == (
        "int8 was not built: 64 images of 16 patients cannot show that fewer than 2.0% of predictions change, even if "
        "none does. Give more: --parity-data DIR_OR_PARQUET."
    )


@pytest.fixture
def fragile(network, slices):
    """A deep random network, whose features int8 moves by half of what they differ between slices, with a random head
    that is as often for one class as for another."""
    import copy

    import torch

    from stageproof.export.data.comparison import preprocessed
    from stageproof.runtime.preprocess import InputSpec
    from stageproof.train.data.sources.source import load_samples

    model = copy.deepcopy(network)
    images = torch.from_numpy(preprocessed(load_samples(slices), InputSpec.imagenet(32)))
    with torch.inference_mode():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                if name.endswith("bn3"):
                    module.weight.fill_(0.5)
        model.train()(images)
        model.fc[3].weight.normal_(generator=torch.Generator().manual_seed(0))
        model.fc[3].bias.zero_()
        model.fc[3].bias.sub_(model.eval()(images).mean(0))
    return model


@pytest.mark.slow
def test_int8_that_is_not_expected_to_hold_says_so_and_is_rejected(fragile, slices, write_run, new_job, tmp_path):
    """None of its decisions may flip."""
    from stageproof.export.formats.build import produce
    from stageproof.train.data.sources.source import load_samples

    run = write_run(tmp_path / "run", fragile, load_samples(slices), slices, 32, lambda name, index: index % 64 < 16)
    job = new_job(run)
    strict = replace(job, options=replace(job.options, flip_tolerance=0.0))
    (first,) = produce(strict, "onnx", ["int8"])
    assert first.status == "rejected"
    assert re.search(r"int8 is not expected to pass the gate: .* estimated from \d+ training slices", first.reason)
    assert "most sensitive of" in first.reason
    (second,) = produce(strict, "openvino", ["int8"])
    assert second.reason == first.reason


def test_additions_in_float_read_what_was_computed(signed):
    free = with_float_additions(signed)
    made = {output: node for node in free.graph.node for output in node.output}
    additions = [node for node in free.graph.node if node.op_type == "Add"]
    assert len(additions) == 16
    assert (has_float_additions(signed), has_float_additions(free)) == (False, True)
    assert {made[name].op_type for node in additions for name in node.input} == {"Conv", "Relu"}
    convolutions = [node for node in free.graph.node if node.op_type == "Conv"]
    assert {made[name].op_type for node in convolutions for name in node.input[:2]} == {"DequantizeLinear"}
