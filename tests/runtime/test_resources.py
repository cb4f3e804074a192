"""What a Predictor costs its host: memory after loading, and the work done beside the engine."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from stageproof.runtime import Predictor, backends

ROOT = Path(__file__).resolve().parents[2]
ENGINES = sorted({"onnx", "openvino"} & set(backends.available()))

COLD = """
import json, sys
from runtime import Predictor
predictor = Predictor(sys.argv[1], backend=sys.argv[2])
prediction = predictor.predict(sys.argv[3])
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"mib": int(status["VmRSS"].split()[0]) / 1024}))
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
    """Bytes of a 128 x 128 JPEG to a Prediction, less the engine: how many functions are called and how much memory is
    held beside the decoded image. What that takes in time, `python -m benchmarks` measures stage by stage."""
    data = scan.read_bytes()
    assert beside.guarded
    for _ in range(3):
        beside.predict(data)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        beside.predict(data)
    finally:
        sys.setprofile(None)
    assert calls <= 800  # 559 on Python 3.11
    tracemalloc.start()
    try:
        beside.predict(data)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        beside.predict(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before <= 8 * 128 * 128  # 68 kB: no picture in float64
