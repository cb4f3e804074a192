"""The one table of formats, and what is made from it."""

from __future__ import annotations

import pytest

from stageproof.export.engines.runners import check_backends
from stageproof.export.formats import FORMATS, PRECISIONS, combinations, file_name, missing_package
from stageproof.export.parity.report import TOLERANCES
from stageproof.runtime.errors import InputError


def test_all_stands_for_every_format_in_every_precision_it_has():
    assert combinations(["all"], ["all"]) == {
        "onnx": ["fp32", "fp16", "bf16", "int8"],
        "openvino": ["fp32", "fp16", "int8"],
        "torchscript": ["fp32", "fp16", "bf16"],
        "torch-export": ["fp32", "bf16"],
        "pytorch": ["fp32", "fp16", "bf16"],
        "aotinductor": ["fp32", "bf16"],
        "tensorrt": ["fp32", "fp16", "bf16", "int8", "fp8"],
    }


def test_what_is_asked_for_twice_is_built_once():
    assert combinations(["onnx", "onnx", "all"], ["fp32", "fp32"])["onnx"] == ["fp32"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("onxx", "Did you mean 'onnx'"), ("ONNX", "Did you mean 'onnx'"), ("torchscipt", "Did you mean 'torchscript'")],
)
def test_a_mistyped_format_is_refused_with_a_suggestion_and_never_corrected(name, suggestion):
    with pytest.raises(InputError, match=suggestion):
        combinations([name], ["fp32"])


def test_a_mistyped_precision_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match=r"Unknown precision 'fp-16'\. Did you mean 'fp16'"):
        combinations(["onnx"], ["fp-16"])
    with pytest.raises(InputError, match="Available: fp32, fp16, bf16, int8, fp8, all"):
        combinations(["onnx"], ["quarter"])


def test_a_format_that_has_none_of_the_precisions_says_which_it_has():
    with pytest.raises(InputError, match="torchscript does not support int8; it supports fp32, fp16, bf16"):
        combinations(["onnx", "torchscript"], ["int8"])


def test_no_two_artifacts_share_a_file_and_every_precision_has_a_tolerance():
    names = [file_name(module, p) for module in FORMATS.values() for p in module.PRECISIONS]
    assert len(set(names)) == len(names)
    assert set(TOLERANCES) == set(PRECISIONS)


def test_every_format_that_needs_no_gpu_is_run_by_a_backend():
    runs = {name for module in check_backends().values() for name in module.FORMATS}
    assert {name for name, module in FORMATS.items() if not module.NEEDS_GPU} <= runs


def test_a_format_whose_package_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(FORMATS["openvino"], "REQUIRES", {"no_such_package": "openvino"})
    assert (
        missing_package(FORMATS["openvino"]) == "needs the package no_such_package: pip install 'stageproof[openvino]'"
    )
    monkeypatch.setattr(FORMATS["openvino"], "REQUIRES", {"no_such_package|json": "openvino"})
    assert missing_package(FORMATS["openvino"]) is None
