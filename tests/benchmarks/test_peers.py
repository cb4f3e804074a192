"""A peer that computes something else would make any speed comparison worthless."""

from __future__ import annotations

import importlib
from dataclasses import replace
from importlib.util import find_spec

import pytest

from stageproof.benchmarks.inference.images import jpegs
from stageproof.benchmarks.peers import peers
from stageproof.benchmarks.peers.context import PeerContext
from stageproof.benchmarks.peers.eager import AS_PUBLISHED, SNIPPET
from stageproof.runtime import Predictor
from stageproof.runtime.bundle.manifest import read_manifest

NEAR = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.25}
"""bf16 moves logits by some 0.15 here, and a probability near 1/2 by a quarter of that."""


@pytest.fixture
def given(bundle, trained_run, tmp_path):
    return PeerContext(bundle, read_manifest(bundle), trained_run, 1, "cpu", tmp_path, slow_peers=False)


@pytest.fixture(scope="module")
def images():
    return jpegs(16)


@pytest.fixture(scope="module")
def expected(bundle, images):
    """The Predictor's probabilities, in the order of the model's labels."""
    predictor = Predictor(bundle, backend="onnx")
    answers = [predictor.predict(image).probabilities for image in images]
    return [[answer[label] for label in predictor.model.labels] for answer in answers]


def loaded(contender):
    return importlib.import_module(contender.module).load(**contender.arguments)


def agrees(contender, images, expected):
    peer = loaded(contender)
    near = NEAR[contender.precision]
    for image, probabilities in zip(images[:4], expected, strict=False):
        assert peer.answer(image) == pytest.approx(probabilities, abs=near)
    assert set(peer.stages) == {"read", "preprocess", "compute", "post"}
    assert min(peer.stages.values()) >= 0
    for answer, probabilities in zip(peer.answer_all(images), expected, strict=True):
        assert answer == pytest.approx(probabilities, abs=near)


def test_every_peer_at_hand_gives_the_predictors_probabilities(given, images, expected):
    found, notes = peers(given)
    assert [contender.name for contender in found] == [
        SNIPPET,
        "eager channels_last bf16",
        AS_PUBLISHED,
        "plain ONNX Runtime fp32",
        "plain OpenVINO fp32",
        "plain OpenVINO bf16",
    ]
    assert len({contender.name for contender in found}) == len(found)
    assert sum("int8" in note for note in notes) == 4
    assert [contender.name for contender in found if not contender.comparable] == [AS_PUBLISHED]
    for contender in found:
        assert contender.settings
        if contender.comparable:
            agrees(contender, images, expected)


def test_the_snippet_is_also_measured_at_its_own_size(given, images):
    """32 × 32 here: what it costs users is 224 × 224."""
    from PIL import Image

    contender = next(one for one in peers(given)[0] if one.name == AS_PUBLISHED)
    peer = loaded(contender)
    assert peer._preprocess(Image.new("RGB", (48, 40))).shape == (3, 224, 224)
    assert sum(peer.answer(images[0])) == pytest.approx(1, abs=1e-5)


def test_without_the_run_the_peers_in_pytorch_are_left_out_and_said(given):
    found, notes = peers(replace(given, run=None))
    assert {contender.backend for contender in found} == {"onnx", "openvino"}
    assert any(note.startswith(SNIPPET) and "--run" in note for note in notes)


def test_on_a_gpu_only_its_own_peers_are_listed(given):
    found, _ = peers(replace(given, device="cuda"))
    assert {contender.precision for contender in found if contender.backend == "torch"} == {"fp32", "fp16"}
    assert not any("OpenVINO" in contender.name for contender in found)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_peers_that_compile_and_calibrate_agree_too(given, images, expected):
    found, _ = peers(replace(given, slow_peers=True, calibration=tuple(jpegs(128)[64:])))
    slow = [contender for contender in found if "compile" in contender.name or "AOT" in contender.name]
    own = [contender for contender in found if "own quantiser" in contender.name]
    assert len(slow) == 4
    assert [contender.backend for contender in own] == (["onnx", "openvino"] if find_spec("nncf") else ["onnx"])
    for contender in [*slow, *own]:
        agrees(contender, images, expected)
    # What lies in the work folder is used again.
    kept = (".pt2", ".onnx", ".xml")
    stamps = {path: path.stat().st_mtime_ns for path in given.work.iterdir() if path.suffix in kept}
    assert len(stamps) == 2 + len(own)
    for contender in own:
        loaded(contender)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
