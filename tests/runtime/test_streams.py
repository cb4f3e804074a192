"""Many images and studies: order, errors, overlap, constant memory."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import BackendError, InputError, Predictor


def test_batches_of_any_size_keep_the_order(onnx_predictor: Predictor, phantoms) -> None:
    images = phantoms.images[:23]
    alone = [onnx_predictor.predict(image) for image in images]
    for size in (1, 7, 23, 64):
        together = onnx_predictor.predict_batch(iter(images), batch_size=size)
        assert [p.label for p in together] == [p.label for p in alone]
        for one, other in zip(together, alone, strict=True):
            assert one.probabilities == pytest.approx(dict(other.probabilities), abs=1e-5)
    assert onnx_predictor.predict_batch([]) == []


def test_an_error_is_its_items_result_and_stops_nothing(onnx_predictor: Predictor, phantoms, tmp_path: Path) -> None:
    images = [phantoms.images[0], b"", phantoms.images[1], tmp_path / "none.png", None, phantoms.images[2]]
    results = onnx_predictor.predict_batch(images, batch_size=2)
    assert [result.status for result in results] == ["ok", "rejected", "ok", "rejected", "rejected", "ok"]
    assert {result.code for result in results if result.status == "rejected"} == {"unreadable"}
    assert "is empty (0 bytes)" in results[1].reason
    assert "no such file" in results[3].reason
    assert "got builtins.NoneType" in results[4].reason
    assert results[1].probabilities == {}
    assert results[1].label is None
    assert results[5].probabilities == pytest.approx(dict(onnx_predictor.predict(images[5]).probabilities), abs=1e-5)


def test_an_engine_that_fails_stops_the_batch(copy: Path, phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(copy, backend="onnx", guard=False)

    def run(images: np.ndarray) -> np.ndarray:
        raise RuntimeError("device lost")

    monkeypatch.setattr(predictor._serving.engine, "run", run)
    with pytest.raises(BackendError, match=r"onnxruntime .* failed on a batch of 4: device lost"):
        predictor.predict_batch(phantoms.images[:4])


@pytest.mark.parametrize("one", ["scan.jpg", b"bytes", Path("scan.jpg")])
def test_one_image_where_several_are_expected(onnx_predictor: Predictor, one: object) -> None:
    with pytest.raises(InputError, match=r"expected several\. Use predict\(\) for one image"):
        onnx_predictor.predict_batch(one)
    with pytest.raises(InputError, match="batch_size is 0, expected at least 1"):
        onnx_predictor.stream([], batch_size=0)
    with pytest.raises(InputError, match="workers is -1, expected at least 1"):
        onnx_predictor.stream([], workers=-1)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stream_takes_no_more_than_it_needs(onnx_predictor: Predictor, phantoms, workers: int) -> None:
    """Constant memory: a few batches are taken ahead, and what was answered is let go."""
    taken, alive = 0, weakref.WeakSet()

    class Source:
        def read(self) -> bytes:
            return phantoms.images[0]

    def endless():
        nonlocal taken
        while True:
            taken += 1
            source = Source()
            alive.add(source)
            yield source

    stream = onnx_predictor.stream(endless(), batch_size=4, workers=workers)
    ahead = 4 * 2 * (workers + 1)
    assert taken == 0
    most = 0
    for answered, prediction in enumerate(itertools.islice(stream, 40), start=1):
        assert prediction.status == "ok"
        assert taken <= answered + ahead
        if answered % 10 == 0:
            gc.collect()
            most = max(most, len(alive))
    assert 0 < most <= ahead + 2
    stream.close()


def test_the_next_batch_is_read_while_the_engine_runs(copy: Path, phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's first run, held until the images after its batch are read: without the overlap it would fail."""
    predictor = Predictor(copy, backend="onnx", guard=False)
    real, read, held = predictor._serving.engine.run, threading.Semaphore(0), iter([True])

    class Source:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self) -> bytes:
            read.release()
            return self.data

    def run(images: np.ndarray) -> np.ndarray:
        if next(held, False):
            for _ in range(4):  # this batch's two images, and the next batch's two
                assert read.acquire(timeout=120), "the next batch was not read while this one ran"
        return real(images)

    monkeypatch.setattr(predictor._serving.engine, "run", run)
    sources = (Source(image) for image in phantoms.images[:8])
    results = list(predictor.stream(sources, batch_size=2, workers=2))
    assert [prediction.status for prediction in results] == ["ok"] * 8


def test_a_stream_that_is_left_leaves_no_thread(onnx_predictor: Predictor, phantoms) -> None:
    stream = onnx_predictor.stream(itertools.cycle(phantoms.images), batch_size=2)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stageproof-stream")]


def test_an_iterable_that_fails_passes_its_error_on(onnx_predictor: Predictor, phantoms) -> None:
    def broken():
        yield phantoms.images[0]
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        onnx_predictor.predict_batch(broken())


def test_a_study_is_the_mean_of_its_slices(onnx_predictor: Predictor, phantoms) -> None:
    images = [*phantoms.images[:4], b"broken"]
    study = onnx_predictor.predict_study(images)
    assert (study.used, study.rejected) == ((0, 1, 2, 3), (4,))
    table = np.array([list(study.slices[index].probabilities.values()) for index in study.used])
    assert list(study.probabilities.values()) == pytest.approx(list(table.mean(0)))
    assert list(study.spread.values()) == pytest.approx(list(table.std(0)))
    assert study.label == list(study.probabilities)[int(table.mean(0).argmax())]
    assert study.agreement == np.mean(table.argmax(1) == table.mean(0).argmax())
    assert study.status == "ok"


def test_a_study_of_nothing_usable(onnx_predictor: Predictor) -> None:
    study = onnx_predictor.predict_study([b"", b"x"])
    assert (study.status, study.label, study.rejected) == ("rejected", None, (0, 1))
    assert "all 2 slices were rejected" in study.reason
    with pytest.raises(InputError, match="images is empty"):
        onnx_predictor.predict_study([])


def test_a_study_can_be_unsure(bundle: Path, phantoms) -> None:
    study = Predictor(bundle, backend="onnx", guard=False, abstain_below=0.99).predict_study(phantoms.images[:4])
    assert (study.status, study.label) == ("abstained", None)
    assert study.probabilities
    assert study.agreement is not None
