"""Many images: batches under way at once, memory used again, always in order."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stageproof.runtime import ImageError, Predictor, backends
from stageproof.runtime.inference.input_batches import Rows
from stageproof.runtime.inference.streaming import BURST, in_order


def test_a_stream_answers_as_single_predictions_do(bundle: Path, phantoms) -> None:
    predictor = Predictor(bundle, backend="onnx", guard=False)
    alone = [predictor.predict(image) for image in phantoms.images[:40]]
    for got, expected in zip(predictor.stream(phantoms.images[:40], batch_size=3, workers=4), alone, strict=True):
        assert got.label == expected.label
        assert got.probabilities == pytest.approx(dict(expected.probabilities), abs=1e-5)


def test_the_engine_runs_one_batch_of_streams_at_a_time(
    bundle: Path, phantoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, most = 0, 0
    counting = threading.Lock()
    real = backends.load

    def load(name: str, path: Path, **settings: Any) -> backends.Backend:
        backend = real(name, path, **settings)
        run = backend.run

        def watched(images: np.ndarray) -> np.ndarray:
            nonlocal busy, most
            with counting:
                busy += 1
                most = max(most, busy)
            time.sleep(0.003)
            try:
                return run(images)
            finally:
                with counting:
                    busy -= 1

        backend.run = watched  # type: ignore[method-assign]
        return backend

    monkeypatch.setattr(backends, "load", load)
    predictor = Predictor(bundle, backend="onnx", guard=False)
    assert len(list(predictor.stream(phantoms.images, batch_size=4, workers=6))) == len(phantoms)
    assert most == 1


def test_an_audit_keeps_the_order_of_the_answers(bundle: Path, phantoms, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    predictor = Predictor(bundle, backend="onnx", guard=False, audit=log)
    images = [*phantoms.images[:20], b"broken", *phantoms.images[20:40]]
    answers = list(islice(predictor.stream(images, batch_size=3, workers=4), 30))
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()[1:]]
    assert [line["label"] for line in lines] == [answer.label for answer in answers]  # and none that nobody got
    assert [line["probabilities"] for line in lines] == [
        {name: round(value, 6) for name, value in answer.probabilities.items()} for answer in answers
    ]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(("count", "batch_size"), [(0, 4), (1, 4), (103, 4), (500, 7), (500, 100)])
def test_results_keep_the_order_whichever_batch_is_first(workers: int, count: int, batch_size: int) -> None:
    pick = random.Random(workers)
    taken: list[int] = []
    predicted: list[int] = []

    def read(sources: list[int]) -> list[str]:
        taken.append(len(sources))
        time.sleep(pick.random() * 0.004)
        return [str(source) for source in sources]

    def predict(batch: list[str], first: int) -> list[int]:
        assert int(batch[0]) == first
        predicted.append(len(batch))
        time.sleep(pick.random() * 0.002)
        return [int(item) * 2 for item in batch]

    got = in_order(range(count), read, predict, batch_size=batch_size, workers=workers)
    assert list(chain.from_iterable(got)) == list(range(0, 2 * count, 2))
    assert max(predicted, default=0) == min(batch_size, count)
    assert len(predicted) == -(-count // batch_size), "every batch is full but the last"
    if batch_size < BURST and count > 3 * BURST:
        assert max(taken) == BURST // batch_size * batch_size


@pytest.mark.parametrize(("batch_size", "workers"), [(4, 3), (16, 2), (100, 2)])
def test_the_number_of_sources_in_memory_is_bounded(batch_size: int, workers: int) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    stream = in_order(endless(), list, lambda batch, first: batch, batch_size=batch_size, workers=workers)
    for given, _ in enumerate(islice(stream, 1000 // batch_size)):
        held = taken - given * batch_size
        if given < 1:
            assert held <= (2 * workers + 2) * batch_size
        assert held <= max(BURST, batch_size) + (2 * workers + 2) * batch_size


@pytest.mark.parametrize("count", [1, 3, 4])
def test_one_batch_runs_in_the_callers_thread(count: int) -> None:
    threads = set()

    def seen(batch: list[int], first: int = 0) -> list[int]:
        threads.add(threading.get_ident())
        return batch

    assert list(in_order(iter(range(count)), seen, seen, batch_size=4, workers=2)) == [list(range(count))]
    assert threads == {threading.get_ident()}


def test_one_thread_reads_while_the_others_predict() -> None:
    """In a long stream; two that read at the same time would wait for each other."""
    reading, most = 0, 0
    counting = threading.Lock()

    def read(sources: list[int]) -> list[int]:
        nonlocal reading, most
        with counting:
            reading += 1
            most = max(most, reading if sources[0] >= BURST else 0)
        time.sleep(0.004)
        with counting:
            reading -= 1
        return sources

    def predict(batch: list[int], first: int) -> list[int]:
        time.sleep(0.01)
        return batch

    assert len(list(in_order(range(640), read, predict, batch_size=8, workers=2))) == 80
    assert most == 1


def test_an_error_in_a_thread_reaches_the_caller_after_earlier_results_and_ends_the_others() -> None:
    def fail_at_nine(batch: list[int], first: int = 0) -> list[int]:
        if 9 in batch:
            raise ZeroDivisionError("the ninth")
        return batch

    for read, predict in ((list, fail_at_nine), (fail_at_nine, lambda batch, first: batch)):
        got: list[int] = []
        with pytest.raises(ZeroDivisionError, match="the ninth"):
            got.extend(chain.from_iterable(in_order(count(), read, predict, batch_size=2, workers=3)))
        assert got == list(range(8))
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("stageproof-stream")]


def test_an_error_of_the_sources_reaches_the_caller() -> None:
    def broken() -> Iterator[int]:
        yield from range(300)
        raise OSError("the disk is gone")

    got: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        got.extend(chain.from_iterable(in_order(broken(), list, lambda batch, _: batch, batch_size=4, workers=2)))
    assert got == list(range(len(got)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stageproof-stream")]


def test_rows_are_used_again_and_never_shared() -> None:
    rows = Rows((1, 2, 3))
    first = rows.take(4)
    assert first.shape == (4, 1, 2, 3)
    assert first.dtype == np.float32
    assert not np.shares_memory(first, rows.take(4))
    rows.give_back(first)
    assert rows.take(3) is first  # more than asked for
    rows.give_back(first)
    assert len(rows.take(9)) == 9


def test_threads_never_get_the_same_rows() -> None:
    rows = Rows((1, 8, 8))

    def ask(worker: int) -> int:
        wrong = 0
        for _ in range(300):
            mine = rows.take(1)
            mine[:] = worker
            time.sleep(0)
            wrong += not (mine == worker).all()
            rows.give_back(mine)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 0


def test_single_predictions_do_not_mix_their_rows(onnx_predictor: Predictor, phantoms) -> None:
    """The row of an image that was rejected or could not be read is free for the next one."""
    expected = dict(onnx_predictor.predict(phantoms.images[0]).probabilities)
    for other in (b"broken", phantoms.images[50], b""):
        with suppress(ImageError):
            onnx_predictor.predict(other)
        assert dict(onnx_predictor.predict(phantoms.images[0]).probabilities) == expected
