"""Records for the tests of reports and comparisons: real timings of small calculations, and simulated runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stageproof.benchmarks.records.read import Record, parsed
from stageproof.benchmarks.records.schema import Row, build
from stageproof.benchmarks.training.interleaved_timing import time_interleaved

SNIPPET = "published snippet (eager PyTorch)"
MACHINE = {
    "cpu": "a CPU",
    "cpus": 2,
    "mhz": 2600.0,
    "load_average": 0.4,
    "memory_bytes": 2**34,
    "noise": 0.012,
    "others": 0.01,
    "busy": False,
    "versions": {"numpy": "2", "torch": "2"},
}
MODEL = {"architecture": "resnet50", "digest": "0" * 64, "input": {"height": 224, "width": 224, "channels": 3}}


def row(name: str, samples, kind: str = "predictor", **about) -> Row:
    """One of single_stream, unless said otherwise."""
    first = {"scenario": "single_stream", "backend": "openvino", "precision": "fp32", "batch": 1, "threads": 2}
    samples = [float(sample) for sample in samples]
    whole = Row(
        name=name, kind=kind, settings="as it comes", samples_ms=samples, images_per_s=1.0, stable=True, **first
    )
    return replace(whole, **about)


def content(rows, machine=None, **about):
    """The JSON-ready record of rows."""
    first = {"commit": "0123456789ab", "started": "2026-01-01T00:00:00+00:00", "circumstances": machine or MACHINE}
    first |= {"bundle": MODEL, "images": {"count": 64, "source": "phantoms"}, "threads": 2, "floors": {}}
    return build(list(rows), **{**first, "work": {"gflop_per_image": 8.2}, "scaling": None, "notes": [], **about})


def record(rows, name: str = "a.json", machine=None, **about) -> Record:
    """The same as it is read."""
    return parsed(content(rows, machine, **about), name)


def timed(amounts, rounds: int, warm_up: int = 20) -> list[Row]:
    """Real times of sines over that many numbers, by name, in turn; names that begin with ``peer`` are peers."""
    tasks = {name: np.linspace(0, 1, amount, dtype=np.float32) for name, amount in amounts.items()}
    contenders = {name: (lambda _, numbers=numbers: np.sin(numbers)) for name, numbers in tasks.items()}
    measured = time_interleaved(contenders, lambda turn: turn, rounds, warm_up)
    return [
        row(entry.name, entry.milliseconds, "peer" if entry.name.startswith("peer") else "predictor")
        for entry in measured
    ]


def simulated(
    random,
    rounds: int,
    peers: int = 3,
    ours: int = 2,
    slower: float = 1.0,
    processes: int = 1,
    spread: float = 0.005,
    memory: float = 0.5,
    **about,
) -> Record:
    """A run on a machine that drifts, where the first of ours takes `slower` times as long.

    For all rows alike: ±5 % from run to run, 3 % up and down and a slope within the run. For each row: `spread` from
    process to process, 3 % from sample to sample, autocorrelated by `memory`, and now and then one half as slow again.
    """
    rounds -= rounds % processes
    common = 0.05 * random.normal() + _wandering(random, rounds, 0.97, 0.03)
    common += np.linspace(-1, 1, rounds) * 0.03 * random.normal()
    rows = []
    for at in range(peers + ours):
        own = np.repeat(spread * random.normal(size=processes), rounds // processes)
        own += _wandering(random, rounds, memory, 0.03)
        own += (random.random(rounds) < 0.02) * random.exponential(0.5, rounds)
        level = (5 + 10 * at) * (slower if at == peers else 1)
        counts = None if processes == 1 else [rounds // processes] * processes
        kind = "peer" if at < peers else "predictor"
        rows.append(row(f"row {at}", level * np.exp(common + own), kind, processes=counts))
    return record(rows, **about)


def _wandering(random, count: int, kept: float, spread: float):
    from scipy.signal import lfilter

    steps = random.normal(size=count + 200)
    return lfilter([1], [1, -kept], steps)[200:] * spread * np.sqrt(1 - kept**2)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """`make.row`, `make.content`, `make.record`, `make.timed`, `make.simulated`."""
    return SimpleNamespace(row=row, content=content, record=record, timed=timed, simulated=simulated)


@pytest.fixture(scope="session")
def machine() -> dict:
    return MACHINE
