"""Many threads, many images, many hours in small: every answer its own, no deadlock, no growth."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import pytest

from stageproof.runtime import Predictor


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_16_threads_ask_for_500_images_each(predictor: Predictor) -> None:
    from stageproof.train.data.phantom.__main__ import phantom_samples

    images = phantom_samples(patients=25, slices=5, size=48, seed=31).images
    assert len(images) == 500
    alone = [dict(predictor.predict(image).probabilities) for image in images]
    together = threading.Barrier(16)

    def ask(worker: int) -> float:
        together.wait()
        most = 0.0
        for index in range(500):
            index = (index * 7 + worker * 31) % 500  # every thread all images, each in another order
            got = predictor.predict(images[index]).probabilities
            most = max(most, *(abs(got[name] - alone[index][name]) for name in got))
        return most

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(ask, range(16))) < 1e-5


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_20000_predictions_grow_memory_by_less_than_2_percent(bundle: Path, phantoms) -> None:
    predictor = Predictor(bundle, guard=False)  # in the fastest backend
    images = [image for image in phantoms.images if predictor.predict(image).status == "ok"]
    for _ in predictor.stream(islice(cycle(images), 2000), batch_size=8):
        pass
    before = resident()
    for _ in predictor.stream(islice(cycle(images), 10_000), batch_size=8):
        pass
    for image in islice(cycle(images), 10_000):
        predictor.predict(image)
    assert resident() < before * 1.02


def resident() -> int:
    """Bytes of memory that this process holds."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS in /proc/self/status")
