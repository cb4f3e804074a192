"""TensorRT for RTX engines, built for a named GPU on a machine that has none."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from stageproof.export.formats import missing_package, tensorrt
from stageproof.export.formats.build import produce
from stageproof.export.options import Options
from stageproof.runtime.errors import ExportError

pytestmark = pytest.mark.skipif(missing_package(tensorrt) is not None, reason="no TensorRT is installed here")


def test_engines_hold_the_graphs_weights_in_its_type_and_are_never_served(tiny_job):
    outcomes = produced(tiny_job)
    assert "there is none here: built, but not served" in outcomes[0].reason


@pytest.mark.slow
def test_those_of_the_published_network_are_half_as_large_in_fp16(job):
    sizes = [outcome.artifact.size_bytes for outcome in produced(job)]
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.05)


def produced(job):
    outcomes = produce(job, "tensorrt", ["fp32", "fp16"])
    for outcome, precision in zip(outcomes, ("fp32", "fp16"), strict=True):
        assert outcome.status == "pending", outcome.reason
        assert set(outcome.found) == {precision}
        assert outcome.artifact.checks == ()
        assert outcome.artifact.requires["flavour"] == "tensorrt-rtx"
        assert outcome.artifact.requires["compute_capability"] == "8.9"
    return outcomes


def test_an_engine_without_the_graphs_weights_is_refused(tiny_job):
    produce(tiny_job, "tensorrt", ["fp32"])
    produce(tiny_job, "onnx", ["fp16"])
    with pytest.raises(ExportError, match=r"contains 0 of 2 weights of fp16\.onnx"):
        tensorrt.found_weights(tiny_job.folder / "model.engine", tiny_job.work / "fp16.onnx")


@pytest.mark.slow
def test_the_grey_networks_engines_are_told_from_their_weights_too(job, tmp_path):
    """Its convolutions are 3 × 3, whose weights the library keeps with the channels last."""
    import torch

    from stageproof.runtime.preprocess import InputSpec
    from stageproof.train.networks import build

    torch.manual_seed(0)
    info = replace(job.reference.info, architecture="resnet34-gray", input=InputSpec(32, 32, 1, (0.3,), (0.3,)))
    network = build("resnet34-gray", 4).eval().requires_grad_(False)
    grey = replace(job, reference=replace(job.reference, model=network, info=info), folder=tmp_path, work=tmp_path)
    for outcome, precision in zip(produce(grey, "tensorrt", ["fp32", "bf16"]), ("fp32", "bf16"), strict=True):
        assert outcome.status == "pending", outcome.reason
        assert set(outcome.found) == {precision}
        assert outcome.found[precision] >= 36


def test_an_unknown_gpu_is_refused_with_those_there_are(tiny_job):
    other = replace(tiny_job, options=replace(tiny_job.options, compute_capability=("8.9", "9.9")))
    (outcome,) = produce(other, "tensorrt", ["fp32"])
    assert outcome.status == "rejected"
    assert "--compute-capability 9.9 is not supported by this library. Supported: 12.0, 12.1" in outcome.reason


def test_one_engine_for_several_gpus(tiny_job):
    several = replace(tiny_job, options=replace(tiny_job.options, compute_capability=("8.9", "12.0")))
    (outcome,) = produce(several, "tensorrt", ["fp32"])
    assert outcome.artifact.requires["compute_capability"] == "8.9, 12.0"


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="this flavour of TensorRT has both")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"compatible": True}, "tensorrt-rtx does not support --compatible. Give all compute"),
        ({"timing_cache": Path("timings")}, "tensorrt-rtx does not support --timing-cache"),
    ],
)
def test_what_this_flavour_does_not_have_is_said(tiny_job, option, message):
    (outcome,) = produce(replace(tiny_job, options=replace(tiny_job.options, **option)), "tensorrt", ["fp32"])
    assert outcome.status == "missing"
    assert message in outcome.reason


@pytest.mark.slow
def test_fp8_stands_in_the_engine(job):
    """Of the random network's decisions too many flip to pass; its graph and engine are what is looked at here."""
    patient = replace(job, options=replace(job.options, flip_tolerance=1.0, tolerance=1.0))
    (outcome,) = produce(patient, "tensorrt", ["fp8"])
    assert outcome.status == "pending", outcome.reason
    assert outcome.found["fp8"] >= 20
    assert outcome.artifact.size_bytes < 40e6


@pytest.mark.slow
def test_a_pending_engine_is_in_the_bundle_and_the_predictor_passes_it_over(firm_bundle, run, tmp_path):
    import shutil

    from stageproof.export import run as pipeline
    from stageproof.runtime.bundle.verify import verified
    from stageproof.runtime.predictor import Predictor

    out = tmp_path / "bundle"
    shutil.copytree(firm_bundle, out)
    exported = pipeline.export(Options(source=run, out=out, to=("tensorrt",)))
    assert exported.whole
    assert [a.file for a in verified(out).artifacts if not a.checks] == ["model.engine"]
    assert Predictor(out).artifact.name == "model.onnx"
