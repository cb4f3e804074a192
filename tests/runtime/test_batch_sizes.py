"""How many images the engine is given at once: what suits the device, and what is found out in long streams."""

from __future__ import annotations

from pathlib import Path

import pytest

from stageproof.runtime import Predictor
from stageproof.runtime.inference import batch_sizes
from stageproof.runtime.inference import streaming as streams
from stageproof.runtime.inference.batch_sizes import TRIED, BatchSizes, largest
from stageproof.runtime.inference.lanes import SHORT, in_lanes


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
            stalled = 100.0 if turn == 0 and size == fastest == 4 else 0.0  # now and then, which the median passes over
            sizes.took(size, size, size * (2.0 if size == fastest else 2.2) + stalled)
    assert sizes.best == fastest
    assert [sizes.next() for _ in range(4)] == [fastest] * 4
    assert set(tried.values()) == {TRIED}


def test_a_batch_counts_as_what_it_held_before_the_guard_saw_it_by_the_images_that_passed() -> None:
    sizes = BatchSizes(16)
    for _ in range(TRIED):
        for size, milliseconds in ((16, 1.0), (8, 3.0), (4, 2.0)):
            sizes.took(size, 1 + size // 4, milliseconds * (1 + size // 4))
    assert sizes.best == 16


def test_other_sizes_teach_nothing_and_no_size_keeps_more_times_than_it_takes() -> None:
    sizes = BatchSizes(16)
    for _ in range(10 * TRIED):
        for size in (32, 17, 15, 2, 1, 8):
            sizes.took(size, 1, 1.0)
    assert sizes.best is None
    assert sum(map(len, sizes._took.values())) == TRIED // 8


@pytest.mark.parametrize(("size", "tried"), [(1, {1}), (2, {2, 1}), (3, {3, 1})])
def test_small_sizes_have_fewer_to_try(size: int, tried: set[int]) -> None:
    sizes, seen = BatchSizes(size), set()
    while sizes.best is None:
        seen.add(one := sizes.next())
        sizes.took(one, one, float(one))
    assert seen == tried


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("length", [80, 100, 110, 130, 150, 199])
def test_streams_that_are_hardly_long_come_to_a_choice_too(length: int, lanes: int) -> None:
    sizes = BatchSizes(16)

    def answer(batch: list[int]) -> list[int]:
        if batch[0] >= SHORT:
            sizes.took(len(batch), len(batch), float(len(batch)))
        return batch

    for _ in range(150):
        stream = in_lanes(
            iter(range(length)),
            list,
            answer,
            batch_size=lambda taken: sizes.next() if taken >= SHORT else 16,
            lanes=lanes,
        )
        assert list(stream) == list(range(length))
        if sizes.best is not None:
            return
    assert sizes.best is not None


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
    sizes = BatchSizes(8)
    took = sizes.took  # neither the engine's own speed nor what else the machine does has a part in this
    monkeypatch.setattr(sizes, "took", lambda size, count, _: took(size, count, count * (1.0 if size == 4 else 5.0)))
    monkeypatch.setattr(predictor._batches, "_sizes", sizes)
    real, asked = several.engine.run, []
    monkeypatch.setattr(several.engine, "run", lambda images: (asked.append(len(images)), real(images))[1])
    for times in (10, 4):  # three sizes are tried on 48 images each
        asked.clear()
        answers = predictor.predict_batch(images * times if said else iter(images * times))
        assert [answer.label for answer in answers] == [answer.label for answer in alone] * times
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
    before = {size: list(times) for size, times in predictor._batches._sizes._took.items()}
    predictor.predict_batch(phantoms.images[:24] * 4, batch_size=predictor._batches.largest // 2)
    assert set(asked) == {predictor._batches.largest // 2}
    assert predictor._batches._sizes._took == before, "and teaches nothing: who asks may have other threads beside it"
