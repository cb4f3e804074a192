"""The gate catches what it is for: every fault here is planted in a real export, which must fail."""

from __future__ import annotations

import copy
import json
import re
import shutil

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stageproof.export import run as pipeline
from stageproof.export.bundle.guard import write_guard
from stageproof.export.formats import graph_store
from stageproof.export.formats import onnx as onnx_format
from stageproof.export.graphs import half_precision
from stageproof.export.graphs.metadata import describe
from stageproof.export.options import Options
from stageproof.runtime import backends
from stageproof.runtime.bundle.manifest import METADATA_KEY
from stageproof.runtime.bundle.verify import verified
from tests import tiny


@pytest.fixture(scope="module", autouse=True)
def here():
    """Formats are built in this process, so that a fault can be planted in it."""
    with tiny.known(guard=write_guard):
        yield


@pytest.fixture(scope="module")
def clean(tiny_job) -> onnx.ModelProto:
    """The graph as exported, before its description is put in."""
    return onnx.load(graph_store.graph(tiny_job, "fp32").path)


def edit(model, name, change):
    """Replace the stored tensor called `name` by `change` of it."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))


def weights_perturbed(model):
    rng = np.random.default_rng(0)
    for tensor in list(model.graph.initializer):
        if len(tensor.dims) >= 2:
            edit(model, tensor.name, lambda w: (w * (1 + 0.01 * rng.standard_normal(w.shape))).astype(np.float32))


def channels_swapped(model):
    edit(model, "conv1.weight", lambda w: w[:, ::-1].copy())


def mean_and_std_forgotten(model):
    """The artifact is given pixels normalised, and takes them for 0 to 1: it was built without its normalisation."""
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    model.graph.initializer.extend([numpy_helper.from_array(mean, "mean"), numpy_helper.from_array(std, "std")])
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "images" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Add", ["scaled", "mean"], ["pixels"]))
    model.graph.node.insert(0, helper.make_node("Mul", ["images", "std"], ["scaled"]))


def classes_permuted(model):
    edit(model, "fc.weight", lambda w: w[[1, 0, 2, 3]].copy())
    edit(model, "fc.bias", lambda b: b[[1, 0, 2, 3]].copy())


def batch_frozen(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


def answers_not_numbers(model):
    edit(model, "fc.bias", lambda b: np.full_like(b, np.nan))


FAULTS = {
    "weights perturbed by 1 %": (weights_perturbed, "predictions|changes a probability"),
    "channels swapped": (channels_swapped, "changes a probability by up to"),
    "mean and std forgotten": (mean_and_std_forgotten, "changes a probability by up to"),
    "classes permuted": (classes_permuted, "changes [1-9]"),
    "batch axis frozen at 1": (batch_frozen, "the batch axis of 'images' is fixed at 1"),
    "not a number": (answers_not_numbers, "changes 64 of 64"),
}


def failed(run, out, reason: str, precision: str = "fp32"):
    """Export; assert that it failed for that reason, that the bundle verifies, and serves nothing of it."""
    # 64 images leave a bound of 4.6 %: enough for 10 %, and refused at once for less.
    allowed = None if precision == "fp32" else 0.1
    exported = pipeline.export(Options(source=run, out=out, precision=(precision,), flip_tolerance=allowed, threads=1))
    assert not exported.whole
    (outcome,) = exported.outcomes
    assert outcome.status == "rejected"
    assert re.search(reason, outcome.reason), outcome.reason
    assert verified(out).artifacts == ()
    report = json.loads((out / "rejected" / f"{outcome.file}.json").read_text())
    assert report["reason"] == outcome.reason
    return outcome


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_the_gate_catches(fault, clean, tiny_run, tmp_path, monkeypatch):
    plant, reason = FAULTS[fault]

    def exported(reference, precision):
        model = copy.deepcopy(clean)
        plant(model)
        return model

    monkeypatch.setattr(graph_store, "exported", exported)
    outcome = failed(tiny_run, tmp_path / "bundle", reason)
    assert (tmp_path / "bundle" / "rejected" / f"{outcome.file}.rejected").is_file()


def test_the_gate_itself_catches_a_frozen_batch(tiny_job, clean, tmp_path):
    from stageproof.export.parity.gate import judge

    model = copy.deepcopy(clean)
    batch_frozen(model)
    describe(model, tiny_job.description("fp32"))
    onnx.save(model, tmp_path / "frozen.onnx")
    verdict = judge(tiny_job, tmp_path / "frozen.onnx", "onnx", "fp32")
    assert not verdict.passed
    assert "fails on the comparison images" in verdict.failures[0]


def test_an_opset_that_no_engine_reads_is_one_clear_line(clean, tiny_run, tmp_path, monkeypatch):
    def exported(reference, precision):
        model = copy.deepcopy(clean)
        model.opset_import[0].version = 99
        return model

    monkeypatch.setattr(graph_store, "exported", exported)
    monkeypatch.setattr(backends.BACKENDS["openvino"], "REQUIRES", {"no_such_engine": "openvino"})  # it reads any
    (outcome,) = pipeline.export(Options(source=tiny_run, out=tmp_path / "bundle", threads=1)).outcomes
    assert outcome.status == "missing"
    assert outcome.reason.startswith("model.onnx was not added, since no backend here can check it. ")
    assert re.search("does not load in 'onnx': .* till opset [0-9]+", outcome.reason), outcome.reason
    assert "\n" not in outcome.reason
    assert str(tmp_path) not in outcome.reason
    assert verified(tmp_path / "bundle").artifacts == ()


def test_the_gate_catches_labels_reordered_in_the_description(clean, tiny_run, tmp_path, monkeypatch):
    def describe(model, description):
        del model.metadata_props[:]
        reversed_ = {**description, "labels": description["labels"][::-1]}
        model.metadata_props.add(key=METADATA_KEY, value=json.dumps(reversed_))

    monkeypatch.setattr(graph_store, "exported", lambda reference, precision: copy.deepcopy(clean))
    monkeypatch.setattr(graph_store, "describe", describe)
    failed(tiny_run, tmp_path / "bundle", "has labels .* in its metadata, expected")


@pytest.mark.parametrize("place", [0.1, 0.999])
def test_the_gate_catches_one_corrupted_byte(place, clean, tiny_run, tmp_path, monkeypatch):
    """Also one that moves no decision: the lowest bits of a weight."""
    real = onnx_format.build

    def build(job, precision, path):
        built = real(job, precision, path)
        content = bytearray(path.read_bytes())
        content[int(len(content) * place) // 4 * 4] ^= 1
        path.write_bytes(content)
        return built

    monkeypatch.setattr(graph_store, "exported", lambda reference, precision: copy.deepcopy(clean))
    monkeypatch.setattr(onnx_format, "build", build)
    failed(tiny_run, tmp_path / "bundle", "has SHA-256 .* on disk, expected .*: it changed after it was written")


def test_the_gate_catches_an_fp16_file_that_is_fp32(clean, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_store, "exported", lambda reference, precision: copy.deepcopy(clean))
    reason = "model.fp16.onnx has 2 layers in fp32; expected fp16"
    failed(tiny_run, tmp_path / "bundle", reason, precision="fp16")


def test_the_gate_catches_batchnorm_left_in_training_mode(slices, write_run, tmp_path, monkeypatch):
    import torch

    from stageproof.train.data.sources.source import load_samples
    from stageproof.train.networks import ARCHITECTURES

    def build(classes=4, channels=3):
        model = tiny.build(classes, channels)
        model.conv1 = torch.nn.Sequential(model.conv1, torch.nn.BatchNorm2d(tiny.CHANNELS))
        return model

    monkeypatch.setitem(ARCHITECTURES, tiny.NAME, build)
    torch.manual_seed(0)
    samples = load_samples(slices)
    network, held = tiny.fitted(samples, build()), lambda name, index: index % 4 == 0
    run = write_run(tmp_path / "run", network, samples, slices, tiny.SIZE, held, tiny.NAME)
    real = half_precision.lowered

    class Training(torch.nn.Module):
        """Normalises each batch by itself, as a model does that was never put into eval mode."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images)

    def lowered(model, precision):
        wrapped = copy.deepcopy(real(model, precision))
        for module in wrapped.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.track_running_stats = False
                module.running_mean = module.running_var = None
        return Training(wrapped).eval()

    monkeypatch.setattr(half_precision, "lowered", lowered)
    outcome = failed(run, tmp_path / "bundle", "and by .* between batch sizes")
    assert sum(outcome.found.values()) == 2, "it was exported, and is measured"


def test_a_failure_leaves_what_the_bundle_serves(clean, tiny_run, small_bundle, tmp_path, monkeypatch):
    out = tmp_path / "bundle"
    shutil.copytree(small_bundle, out)
    before = (out / "manifest.json").read_bytes()

    def exported(reference, precision):
        model = copy.deepcopy(clean)
        weights_perturbed(model)
        return model

    monkeypatch.setattr(graph_store, "exported", exported)
    exported_now = pipeline.export(Options(source=tiny_run, out=out, threads=1))
    assert not exported_now.whole
    assert (out / "manifest.json").read_bytes() == before
    assert verified(out).artifacts
    assert (out / "rejected" / "model.onnx.rejected").is_file()
