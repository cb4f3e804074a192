"""Precision as the built file has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stageproof.export.formats import FORMATS
from stageproof.export.formats.build import produce
from stageproof.export.formats.measured_precision import Found, assert_precision
from stageproof.runtime.errors import ExportError


@pytest.fixture(scope="module")
def patient_job(job):
    """Accepts the flips that 64 images cannot exclude; probabilities keep their tolerance."""
    return replace(job, options=replace(job.options, flip_tolerance=0.1))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("onnx", "fp16"),
        pytest.param("onnx", "bf16", marks=pytest.mark.slow),
        ("openvino", "fp16"),
        pytest.param("torch-export", "bf16", marks=pytest.mark.slow),
        pytest.param("torchscript", "bf16", marks=pytest.mark.slow),
        pytest.param("pytorch", "fp16", marks=pytest.mark.slow),  # PyTorch on a CPU is slow in it
        pytest.param("pytorch", "bf16", marks=pytest.mark.slow),
    ],
)
def test_reduced_precision_is_in_the_file_and_holds(patient_job, name, precision):
    (outcome,) = produce(patient_job, name, [precision])
    assert outcome.status == "passed", outcome.reason
    assert outcome.found == {precision: 55}
    assert FORMATS[name].inspect(patient_job.folder / outcome.file).layers == {precision: 55}


def test_openvino_takes_its_weights_beside_it(patient_job):
    (outcome,) = produce(patient_job, "openvino", ["fp32"])
    assert outcome.status == "passed", outcome.reason
    assert outcome.files == ("model.xml", "model.bin")


@pytest.mark.parametrize("layers", [{"fp32": 55}, {"fp32": 28, "fp16": 27}, {"fp32": 2, "fp16": 2}, {}])
def test_what_is_not_mostly_of_its_precision_is_refused(layers):
    with pytest.raises(ExportError, match=r"model.onnx was to be fp16, but the built file has"):
        assert_precision(Found(layers), "fp16", "model.onnx")


def test_most_layers_are_enough():
    assert_precision(Found({"int8": 50, "fp32": 5}), "int8", "model.onnx")
