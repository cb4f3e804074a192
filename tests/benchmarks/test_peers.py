"""A peer that computes something else would make any speed comparison worthless."""

from __future__ import annotations

import pytest

from benchmarks.latency import jpegs
from benchmarks.peers import published_snippet
from export.reference import from_run
from runtime import Predictor


def test_the_snippet_gives_the_predictors_probabilities(trained_run, bundle):
    predictor = Predictor(bundle, backend="onnx")
    snippet = published_snippet(from_run(trained_run), threads=1)
    for image in jpegs(16):
        expected = predictor.predict(image).probabilities
        assert snippet(image) == pytest.approx([expected[label] for label in predictor.model.labels], abs=1e-5)


def test_the_images_are_different_grey_jpegs():
    files = jpegs(32)
    assert len(set(files)) == len(files) == 32
    assert all(file.startswith(b"\xff\xd8") for file in files)
