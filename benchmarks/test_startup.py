"""Measures the import time that the runtime adds to a process that already imports numpy and Pillow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

BEFORE = "import numpy, PIL.Image"
WITH = f"{BEFORE}, runtime"


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """The environment variables of this process, with bytecode caching enabled, as for an installed package."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(tmp_path)}


def started(code: str, environment: Mapping[str, str]) -> float:
    """Run time of a new interpreter that executes `code`, in milliseconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return (time.perf_counter() - start) * 1e3


def test_import(benchmark: BenchmarkFixture, environment: Mapping[str, str]) -> None:
    """`import runtime` after numpy and Pillow: minimum of several alternating runs, since noise only adds time."""
    pairs = [(started(BEFORE, environment), started(WITH, environment)) for _ in range(10)]
    before, after = (min(column) for column in zip(*pairs, strict=True))
    benchmark.extra_info.update(numpy_and_pillow_ms=before, with_runtime_ms=after, added_ms=after - before)
    benchmark.pedantic(started, args=(WITH, environment), rounds=5)


def test_command_line_help(benchmark: BenchmarkFixture) -> None:
    """`python -m runtime --help` in a new process."""
    command = [sys.executable, "-m", "runtime", "--help"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=5)
