"""How many images the engine is given at once: what suits the device, and what is found out in long streams."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from runtime import Predictor, batch_sizes, streams
from runtime.batch_sizes import TRIED, BatchSizes, largest


@pytest.mark.parametrize(
    ("shape", "device", "expected"),
    [
        ((3, 224, 224), "cpu", 8),
        ((3, 128, 128), "cpu", 16),
        ((1, 32, 32), "cpu", 32),
        ((3, 4000, 4000), "cpu", 1),
        ((3, 224, 224), "cuda", 32),
    ],
)
def test_the_largest_is_what_suits_the_device(shape: tuple[int, ...], device: str, expected: int) -> None:
    assert largest(shape, device) == expected


@pytest.mark.parametrize("fastest", [16, 8, 4])
def test_each_is_tried_and_the_fastest_stays(fastest: int) -> None:
    sizes, tried = BatchSizes(16), dict.fromkeys((16, 8, 4), 0)
    while sizes.best is None:
        size = sizes.next()
        for turn in range(64 // size):
            tried[size] += size
            stalled = 100.0 if turn == 0 and size == fastest == 4 else 0.0  # once, which the median does not mind
            sizes.took(size, size * (2.0 if size == fastest else 2.2) + stalled)
    assert sizes.best == fastest
    assert [sizes.next() for _ in range(4)] == [fastest] * 4
    assert min(tried.values()) >= TRIED
    assert max(tried.values()) <= TRIED + 64


def test_a_batch_that_lost_some_to_the_guard_counts_as_what_it_was_meant_to_be() -> None:
    sizes = BatchSizes(16)
    for _ in range(TRIED):
        for count in (13, 7, 3):
            sizes.took(count, count * {13: 1.0, 7: 3.0, 3: 2.0}[count])
    assert sizes.best == 16


def test_what_the_caller_asked_for_teaches_nothing_of_other_sizes() -> None:
    sizes = BatchSizes(16)
    for _ in range(10 * TRIED):
        for count in (32, 17, 2, 1):
            sizes.took(count, 1.0)
    assert sizes.best is None


@pytest.mark.parametrize(("size", "tried"), [(1, [1]), (2, [2, 1]), (3, [3, 1])])
def test_small_sizes_have_fewer_to_try(size: int, tried: list[int]) -> None:
    sizes = BatchSizes(size)
    assert [sizes.next() for _ in range(2 * len(tried))] == tried * 2


@pytest.mark.parametrize("said", [True, False])
def test_a_long_stream_goes_on_with_the_size_that_was_fastest(
    bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    monkeypatch.setattr(streams, "PAYS_AFTER", 8)
    monkeypatch.setattr(batch_sizes, "TRIED", 48)
    monkeypatch.setattr(batch_sizes, "MOST", 8)
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2)
    images = phantoms.images[:24]
    alone = [predictor.predict(image) for image in images]
    predictor.predict_batch(images * 4)
    several = predictor._batches._several
    assert several is not None
    real, asked = several.engine.run, []

    def run(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        if len(images) != 4:
            time.sleep(0.004 * len(images))
        return real(images)

    monkeypatch.setattr(several.engine, "run", run)
    for _ in range(2):
        asked.clear()
        answers = predictor.predict_batch(images * 20 if said else iter(images * 20))
        assert [answer.label for answer in answers] == [answer.label for answer in alone] * 20
    assert predictor._batches._sizes.best == 4
    assert set(asked) == {4}


def test_a_size_that_was_asked_for_is_kept(bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PAYS_AFTER", 8)
    predictor = Predictor(bundle, backend="onnx", guard=False, threads=2)
    predictor.predict_batch(phantoms.images[:24] * 4)
    several = predictor._batches._several
    assert several is not None
    real, asked = several.engine.run, []
    monkeypatch.setattr(several.engine, "run", lambda images: (asked.append(len(images)), real(images))[1])
    predictor.predict_batch(phantoms.images[:24] * 5, batch_size=6)
    assert set(asked) == {6}
