"""Channels of like ranges: the same function in float, less lost in int8, and bisect is not misled."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stageproof.export.formats.graph_store import graph
from stageproof.export.graphs.float_graph import exported
from stageproof.export.graphs.metadata import KEY, channel_scales
from stageproof.export.quantization.equalization import equalised
from stageproof.export.quantization.onnx_runtime import run


def chain(last: str) -> onnx.ModelProto:
    """Convolution, ReLU, `last`, convolution with a residual, mean, linear layer; one channel is a hundred times the
    others."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((6, 3, 3, 3)).astype(np.float32)
    first[2] *= 100
    values = {
        "a.weight": first,
        "a.bias": rng.standard_normal(6).astype(np.float32),
        "b.weight": rng.standard_normal((6, 6, 1, 1)).astype(np.float32),
        "fc.weight": rng.standard_normal((4, 6)).astype(np.float32),
        "fc.bias": rng.standard_normal(4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "a.weight", "a.bias"], ["a"], "a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["relu"], "relu"),
        helper.make_node(last, ["relu"], ["stream"], last),
        helper.make_node("Conv", ["stream", "b.weight"], ["b"], "b"),
        helper.make_node("Add", ["b", "stream"], ["sum"], "add"),
        helper.make_node("GlobalAveragePool", ["sum"], ["mean"], "mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    ends = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    ends.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4]))
    chained = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    chained.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    return helper.make_model(chained, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)


def test_it_computes_the_same_with_channels_of_like_ranges(images):
    model = chain("Relu")
    before = run(model, images, 1)
    after = equalised(model, images, 1)
    assert run(after, images, 1) == pytest.approx(before, rel=1e-4, abs=1e-4)
    scales = channel_scales(next(entry.value for entry in after.metadata_props if entry.key == KEY))
    assert scales["a.weight"][0] is None, "the image is what it is"
    assert scales["fc.weight"][1] is None, "and so are the logits"
    factors = scales["a.weight"][1]
    assert factors.argmin() == 2
    assert factors[2] < 0.1 * np.median(factors)
    for other in (scales["b.weight"][0], scales["b.weight"][1], scales["fc.weight"][0]):
        assert np.array_equal(other, factors), "the residual ties them"


def test_channels_behind_an_unknown_operation_keep_their_scale(images):
    """A sigmoid of s times something is not s times its sigmoid."""
    model = chain("Sigmoid")
    after = equalised(model, images, 1)
    scales = channel_scales(next(entry.value for entry in after.metadata_props if entry.key == KEY))
    assert all(pair == (None, None) for pair in scales.values())
    assert np.array_equal(run(after, images, 1), run(model, images, 1))


def test_a_channel_that_is_always_zero_is_no_division_by_zero(images):
    model = chain("Relu")
    for name in ("a.weight", "a.bias"):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values[4] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, name))
    got = run(equalised(model, images, 1), images, 1)
    assert got == pytest.approx(run(model, images, 1), rel=1e-4, abs=1e-4)


@pytest.mark.slow  # test_quantize.py compares every layer of it with bisect
def test_the_published_network_computes_the_same(job):
    model = onnx.load(graph(job, "fp32").path)
    few = job.evaluation_set.images[:8]
    after = equalised(model, few, job.threads)
    assert np.abs(run(after, few, job.threads) - job.evaluation_set.logits[:8]).max() < 1e-4
    scaled = json.loads(next(entry.value for entry in after.metadata_props if entry.key == KEY))
    assert sum(out is not None for _, out in scaled.values()) == 53


@pytest.mark.slow
def test_the_grey_network_computes_the_same(job):
    from dataclasses import replace

    import torch

    from stageproof.runtime.preprocess import InputSpec
    from stageproof.train.networks import build

    torch.manual_seed(0)
    info = replace(job.reference.info, architecture="resnet34-gray", input=InputSpec(32, 32, 1, (0.3,), (0.3,)))
    network = build("resnet34-gray", 4).eval().requires_grad_(False)
    model = exported(replace(job.reference, model=network, info=info), "fp32")
    images = job.evaluation_set.images[:8, :1]
    after = equalised(model, images, job.threads)
    before = run(model, images, job.threads)
    assert np.abs(run(after, images, job.threads) - before).max() < 1e-4 * max(1, np.abs(before).max())
    scaled = json.loads(next(entry.value for entry in after.metadata_props if entry.key == KEY))
    assert sum(out is not None for _, out in scaled.values()) == 36
