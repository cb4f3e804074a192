"""Precision as the built file has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stageproof.export.formats import FORMATS
from stageproof.export.formats.build import produce
from stageproof.export.formats.built import Found, assert_precision
from stageproof.runtime.errors import ExportError
from tests import tiny


def patient(job):
    """Accepts the flips that 64 images cannot exclude, and two of them; probabilities keep their tolerance."""
    return replace(job, options=replace(job.options, flip_tolerance=0.15))


BUILT = [
    ("onnx", "fp16"),
    ("onnx", "bf16"),
    ("openvino", "fp16"),
    ("torch-export", "bf16"),
    ("torchscript", "bf16"),
    ("pytorch", "fp16"),
    ("pytorch", "bf16"),
]


@pytest.mark.parametrize(("name", "precision"), BUILT)
def test_reduced_precision_is_in_the_file_and_holds(tiny_job, name, precision):
    with tiny.known_to_runtime():
        assert_holds(tiny_job, name, precision, layers=2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), BUILT)
def test_in_the_published_network_too(job, name, precision):
    assert_holds(job, name, precision, layers=55)


def assert_holds(job, name, precision, layers):
    (outcome,) = produce(patient(job), name, [precision])
    assert outcome.status == "passed", outcome.reason
    assert outcome.found == {precision: layers}
    assert FORMATS[name].inspect(job.folder / outcome.file).layers == {precision: layers}


def test_openvino_takes_its_weights_beside_it(tiny_job):
    (outcome,) = produce(patient(tiny_job), "openvino", ["fp32"])
    assert outcome.status == "passed", outcome.reason
    assert outcome.files == ("model.xml", "model.bin")


@pytest.mark.parametrize("layers", [{"fp32": 55}, {"fp32": 28, "fp16": 27}, {"fp32": 2, "fp16": 2}, {}])
def test_what_is_not_mostly_of_its_precision_is_refused(layers):
    with pytest.raises(ExportError, match=r"model.onnx has .*; expected fp16"):
        assert_precision(Found(layers), "fp16", "model.onnx")


def test_most_layers_are_enough():
    assert_precision(Found({"int8": 50, "fp32": 5}), "int8", "model.onnx")
