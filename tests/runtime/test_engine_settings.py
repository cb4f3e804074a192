"""The two modes of an engine: how many calls run at once, and how many images each has."""

from __future__ import annotations

import pytest

from stageproof.runtime.inference.engine_settings import MODES, EngineSettings, OptimizeFor


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
def test_the_batch_size_is_fixed_by_device_and_input(shape: tuple[int, ...], device: str, expected: int) -> None:
    assert {EngineSettings(device=device, threads=2, optimize_for=mode).batch_size(shape) for mode in MODES} == {
        expected
    }


@pytest.mark.parametrize(
    ("threads", "device", "expected"),
    [(1, "cpu", 1), (2, "cpu", 2), (3, "cpu", 3), (4, "cpu", 4), (64, "cpu", 4), (8, "cuda", 1), (8, "tensorrt", 1)],
)
def test_throughput_runs_up_to_four_calls_at_once_on_a_cpu(threads: int, device: str, expected: int) -> None:
    def calls(mode: OptimizeFor) -> int:
        return EngineSettings(device=device, threads=threads, optimize_for=mode).concurrent_calls

    assert calls("throughput") == expected
    assert calls("latency") == 1


@pytest.mark.parametrize(
    ("mode", "threads", "cpus", "expected"),
    [
        ("latency", 2, 2, 2),
        ("latency", 16, 16, 2),
        ("throughput", 1, 1, 2),
        ("throughput", 2, 2, 2),
        ("throughput", 2, 8, 3),
        ("throughput", 4, 4, 4),
        ("throughput", 16, 16, 5),
    ],
)
def test_a_stream_has_a_thread_for_each_call_and_one_that_reads(
    mode: OptimizeFor, threads: int, cpus: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.inference.engine_settings.available_cpus", lambda: cpus)
    assert EngineSettings(threads=threads, optimize_for=mode).workers == expected
