"""Studies are read in the pipeline: in its threads, with measured times, and without keeping images at full size."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import Predictor
from stageproof.runtime.images.reader import Picture, read_all
from stageproof.runtime.inference import input_batches
from stageproof.runtime.inference.input_batches import prepare, prepare_frames

ROOT = Path(__file__).resolve().parents[2]


class Slow:
    """A source whose reading takes a while, and which remembers who read it."""

    def __init__(self, data: bytes, readers: list[str]) -> None:
        self.data, self.readers = data, readers

    def read(self) -> bytes:
        self.readers.append(threading.current_thread().name)
        threading.Event().wait(0.005)
        return self.data


def test_slices_are_read_by_the_pipelines_threads(onnx_predictor: Predictor, phantoms) -> None:
    readers: list[str] = []
    sources = [Slow(image, readers) for image in phantoms.images[:40]]
    study = onnx_predictor.predict_study(sources, batch_size=4)
    assert len(study.used) == 40
    assert all(name.startswith("stageproof-stream") for name in readers)
    assert min(one.timings.read_ms for one in study.slices) >= 5


def test_a_study_is_what_a_stream_of_its_slices_is(onnx_predictor: Predictor, phantoms) -> None:
    images = [*phantoms.images[:30], b"broken"]
    together, alone = onnx_predictor.predict_study(images), onnx_predictor.predict_batch(images)
    for one, other in zip(together.slices, alone, strict=True):
        assert (one.status, one.label, one.reason) == (other.status, other.label, other.reason)
        assert dict(one.probabilities) == pytest.approx(dict(other.probabilities), abs=1e-6)


def test_few_images_are_alive_at_full_size(onnx_predictor: Predictor, phantoms, monkeypatch) -> None:
    alive: list[weakref.ref] = []
    most = 0

    def watched(source, most_frames=None, *settings) -> list[Picture]:
        nonlocal most
        pictures = read_all(source, most_frames, *settings)
        alive.extend(weakref.ref(picture.image) for picture in pictures)
        most = max(most, sum(ref() is not None for ref in alive))
        return pictures

    monkeypatch.setattr(input_batches, "read_all", watched)
    gc.collect()
    study = onnx_predictor.predict_study(phantoms.images[:90], batch_size=4)
    assert len(study.used) == len(alive) == 90
    assert most <= 8, "one for each thread that reads, and what it resizes"


def test_frames_of_a_file_are_slices(onnx_predictor: Predictor, monkeypatch) -> None:
    """As a multi-frame DICOM file: more frames than a batch, each let go once it is small."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (64, 64), np.uint8) for _ in range(70)]
    counts = {b"many": 70, b"one": 1}

    def read(source, most=None, *settings) -> list[Picture]:
        count = counts.get(source) if isinstance(source, bytes) else None
        return read_all(source, most) if count is None else [read_all(frame)[0] for frame in frames[:count]]

    monkeypatch.setattr(input_batches, "read_all", read)
    sizes: list[int] = []
    real = onnx_predictor._run_engine

    def run(images):
        sizes.append(len(images))
        return real(images)

    monkeypatch.setattr(onnx_predictor, "_run_engine", run)
    study = onnx_predictor.predict_study([b"one", b"many", b"", b"one"], batch_size=16)
    assert (len(study.slices), study.rejected) == (73, (71,))
    assert max(sizes) == 16
    expected = onnx_predictor.predict_batch(frames)
    for one, other in zip(study.slices[1:71], expected, strict=True):
        assert dict(one.probabilities) == pytest.approx(dict(other.probabilities), abs=1e-6)
    spec = onnx_predictor.model.input
    assert [len(one) for one in prepare_frames([b"many", b"one", b""], spec, None)] == [70, 1, 1]
    assert prepare([b"one"], spec, None)[0].pixels is not None


BIG = """
import resource, sys
from runtime import Predictor
predictor = Predictor(sys.argv[1], backend="onnx", guard=False)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
predictor.predict_study([sys.argv[2]] * 2)
before = peak()
study = predictor.predict_study([sys.argv[2]] * 64)
assert len(study.used) == 64
print(peak() - before)
"""


@pytest.mark.slow
def test_a_study_of_large_images_stays_small(bundle: Path, tmp_path: Path) -> None:
    """64 of 6,000 x 6,000 pixels are 2.3 GB."""
    from PIL import Image

    path = tmp_path / "large.png"
    Image.new("L", (6000, 6000), 60).save(path, compress_level=1)
    command = [sys.executable, "-c", BIG, str(bundle), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=True)
    assert int(done.stdout) < 400, "MiB: some images for each thread, and not one for each slice"
