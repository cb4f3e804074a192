"""The real tritonserver of the wheel nvidia-pytriton, as a process that serves a model repository."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.serving.conftest import ROOT

PYTHON = "STAGEPROOF_TRITON_PYTHON"
"""Environment variable: a Python whose environment has nvidia-pytriton, onnxruntime and what runtime needs. Default:
the one that runs the tests. Triton's own stub wants a Python with a shared libpython of the same version."""
_FIND = (
    "import importlib.util as u, json, sys; spec = u.find_spec('pytriton'); "
    "print(json.dumps([spec and spec.submodule_search_locations[0], '%d.%d' % sys.version_info[:2]]))"
)


@dataclass(frozen=True)
class Triton:
    """A running server."""

    http: str
    grpc: str
    log: Path


@cache
def installed() -> tuple[Path, str] | None:
    """(folder of pytriton, version of its Python); None if it is not installed."""
    python = os.environ.get(PYTHON, sys.executable)
    folder, version = json.loads(subprocess.run([python, "-c", _FIND], capture_output=True, check=True).stdout)
    return (Path(folder), version) if folder else None


@contextmanager
def running(repository: Path, work: Path) -> Iterator[Triton]:
    """The server of the model repository, ready; on free ports of the loopback interface. Skips where it is missing."""
    found = installed()
    if found is None:
        pytest.skip(f"no tritonserver: install nvidia-pytriton, or name its Python in {PYTHON}")
    package, version = found
    server, backends = package / "tritonserver", work / "backends"
    shutil.copytree(server / "backends" / "python", backends / "python")
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    for model in repository.iterdir():
        (model / "1" / "python_path.txt").write_text(f"{ROOT}\n{package.parent}\n", encoding="utf-8")
    http, grpc = free_port(), free_port()
    command = [
        *(server / "bin" / "tritonserver", "--model-repository", repository, "--backend-directory", backends),
        *("--http-address", "127.0.0.1", "--http-port", http, "--grpc-address", "127.0.0.1", "--grpc-port", grpc),
        # After a malformed tensor of BYTES its Python backend does not unload, and the server waits for that in vain.
        *("--allow-metrics", "false", "--exit-timeout-secs", 5),
    ]
    libraries = {"LD_LIBRARY_PATH": str(package.parent / "nvidia_pytriton.libs"), "OMP_NUM_THREADS": "1"}
    log = work / "tritonserver.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, env={"PATH": os.environ["PATH"], **libraries}
        )
    try:
        _until_ready(process, f"http://127.0.0.1:{http}/v2/health/ready", log)
        yield Triton(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", log)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_ready(process: subprocess.Popen, address: str, log: Path) -> None:
    for _ in range(1200):
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace"))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
