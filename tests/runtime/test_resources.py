"""What a Predictor costs its host: memory after loading, time to the first answer, time beside the engine."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import Predictor, backends

ROOT = Path(__file__).resolve().parents[2]
ENGINES = sorted({"onnx", "openvino"} & set(backends.available()))

COLD = """
import json, sys, time
begun = time.perf_counter()
from runtime import Predictor
predictor = Predictor(sys.argv[1], backend=sys.argv[2])
prediction = predictor.predict(sys.argv[3])
spent = time.perf_counter() - begun
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"seconds": spent, "mib": int(status["VmRSS"].split()[0]) / 1024}))
"""


def cold(bundle: Path, backend: str, scan: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", COLD, str(bundle), backend, str(scan)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("backend", ENGINES)
def test_resident_memory_after_the_first_answer(backend: str, guarded_bundle: Path, scan: Path) -> None:
    """Of the whole process, with a float32 ResNet50."""
    assert cold(guarded_bundle, backend, scan)["mib"] <= 300


@pytest.mark.slow  # a wall-clock time, which a busy machine makes longer
@pytest.mark.parametrize("backend", ENGINES)
def test_first_answer_of_a_cold_process(backend: str, guarded_bundle: Path, scan: Path) -> None:
    assert min(cold(guarded_bundle, backend, scan)["seconds"] for _ in range(5)) <= 1.5


@pytest.fixture
def beside(guarded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A guarded predictor whose engine answers at once with what it answered before."""
    predictor = Predictor(guarded_bundle, backend="onnx")
    engine = predictor._serving.engine
    row = engine.run
    answers = {}

    def run(images):
        key = images.shape
        if key not in answers:
            answers[key] = row(images)
        return answers[key]

    monkeypatch.setattr(engine, "run", run)
    return predictor


def test_all_that_is_not_the_engine(beside: Predictor, scan: Path) -> None:
    """Bytes of a 128 x 128 JPEG to a Prediction, less the engine: CPU time, which other work does not lengthen."""
    data = scan.read_bytes()
    assert beside.guarded
    spent = []
    for _ in range(300):
        begun = time.thread_time()
        beside.predict(data)
        spent.append(time.thread_time() - begun)
    assert statistics.median(spent) <= 0.001
