"""The servers that are measured: how each is started, what it is sent, and with which settings.

The program of a peer is in `benchmarks.serving.peers`; its docstring names the documentation of its settings.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stageproof
from stageproof.benchmarks.serving.client.protocols import (
    Protocol,
    base64_json,
    base64_list,
    open_inference,
    open_inference_json,
    raw,
)
from stageproof.benchmarks.serving.peers.pipeline import HOST, NAME
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.errors import InputError

OURS = "stageproof"
BATCHING = "one session with all threads, batches of at most {batch}"
_PROBE_S = 30
_ROOT = str(Path(stageproof.__file__).resolve().parents[1])
"""The folder in which the package `stageproof` is found: a checkout or site-packages."""


@dataclass(frozen=True)
class Peer:
    """A server of the ecosystem."""

    title: str
    distribution: str
    """Its distribution, whose version is recorded."""
    module: str
    """In `benchmarks.serving.peers`."""
    protocol: Protocol
    settings: str
    """What it runs with, for the record."""


PEERS: Mapping[str, Peer] = {
    "fastapi": Peer(
        "FastAPI around ONNX Runtime",
        "fastapi",
        "fastapi_server",
        raw("/ready"),
        "uvicorn with uvloop and httptools, one session, a pool of {threads} threads, no batching",
    ),
    "litserve": Peer(
        "LitServe",
        "litserve",
        "litserve_server",
        base64_json("/health"),
        BATCHING + ", batch_timeout 2 ms, fast_queue",
    ),
    "bentoml": Peer("BentoML", "bentoml", "bentoml_server", base64_list("/readyz"), BATCHING + ", adaptive window"),
    "mlserver": Peer(
        "MLServer",
        "mlserver",
        "mlserver_server",
        open_inference_json(NAME),
        BATCHING + ", max_batch_time 2 ms, one parallel worker, Open Inference JSON",
    ),
    "kserve": Peer(
        "KServe",
        "kserve",
        "kserve_server",
        open_inference_json(NAME),
        "one session, a pool of {threads} threads, no batching, Open Inference JSON",
    ),
    "rayserve": Peer(
        "Ray Serve", "ray", "rayserve_server", raw("/-/healthz"), BATCHING + ", batch_wait_timeout_s 2 ms, one replica"
    ),
    "pytriton": Peer(
        "PyTriton",
        "nvidia-pytriton",
        "pytriton_server",
        open_inference(NAME, batch_of_vectors=True),
        BATCHING + ", dynamic batcher without delay, Open Inference binary",
    ),
}


@dataclass(frozen=True)
class Server:
    """A server that can be started here."""

    name: str
    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    protocol: Protocol
    settings: str
    order: tuple[str, ...]
    """Labels in the order of the probabilities that the server sends."""
    versions: Mapping[str, str] = field(default_factory=dict)


def peer(name: str, python: str, model: Mapping[str, Any], work: Path) -> Server:
    """The peer `name`, run by the interpreter `python`.

    model: fields of `peers.pipeline.Settings` without the port. work: existing folder for its files.
    Raises InputError if the interpreter cannot be run or lacks what the peer needs.
    """
    described = PEERS[name]
    versions = _versions(name, python)
    package = work / "peers" / "serving_peers"
    if not package.exists():
        package.parent.mkdir(exist_ok=True)
        package.symlink_to(Path(__file__).resolve().parent / "peers", target_is_directory=True)
    port = free_port()
    settings = work / f"{name}.json"
    settings.write_text(json.dumps({**model, "port": port}), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(package.parent),
        "SERVING_PEER": str(settings),
        "BENTOML_HOME": str(work / "bentoml"),
        # Nothing is reported to the projects of the peers.
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
    }
    return Server(
        name,
        described.title,
        (python, "-c", f"from serving_peers.{described.module} import serve; serve()"),
        environment,
        port,
        described.protocol,
        described.settings.format(**model),
        tuple(model["labels"]),
        versions,
    )


def ours(bundle: Path, precision: str, threads: int) -> Server:
    """The service, with the engine that the peers have. It sends probabilities in the clinical order of the classes."""
    port = free_port()
    engine = ("--backend", "onnx", "--precision", precision, "--threads", str(threads))
    return Server(
        OURS,
        "Stageproof",
        (sys.executable, "-m", "stageproof", "serve", str(bundle), "--port", str(port), *engine, "--no-access-log"),
        {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))},
        port,
        open_inference(NAME),
        "one worker, onnx as the runtime loads it, guard and isolated decoding on, Open Inference binary",
        read_manifest(bundle).model.classes.names,
    )


def free_port() -> int:
    """A loopback port that is free, and the next one as well, which some peers use for gRPC."""
    while True:
        with socket.socket() as first:
            first.bind((HOST, 0))
            port: int = first.getsockname()[1]
            with socket.socket() as second:
                try:
                    second.bind((HOST, port + 1))
                except OSError:
                    continue
                return port


def _versions(name: str, python: str) -> Mapping[str, str]:
    """Distribution → version, of what the peer imports."""
    wanted = (PEERS[name].distribution, "numpy", "pillow", "onnxruntime")
    code = (
        "import json, platform, sys\n"
        "from importlib.metadata import PackageNotFoundError, version\n"
        "found = {'python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = version(name)\n"
        "    except PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [python, "-c", code, *wanted],
            capture_output=True,
            text=True,
            check=True,
            timeout=_PROBE_S,
            env=environment,
            cwd="/",
        )
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InputError(f"{python} cannot be run for {name} ({error}). Expected a Python interpreter.") from error
    lacking = [package for package in wanted if package not in found]
    if lacking:
        raise InputError(f"{name} needs {', '.join(lacking)}, which {python} does not have.")
    return found
