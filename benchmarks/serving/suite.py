"""Runs the serving benchmarks: every server in every round under every load, and returns the record.

All servers are started once and stay loaded; those that are not measured are paused. Their order is random and new in
each round, so that drift of the machine affects all of them. Each part (a server in a round) is written when it is
measured, so that an interrupted run continues in the same --work folder.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.benchmarks.inference.images import images_for
from stageproof.benchmarks.machine.circumstances import circumstances, commit
from stageproof.benchmarks.records.schema import write_text
from stageproof.benchmarks.serving.analysis.record import Cell, build, cell
from stageproof.benchmarks.serving.client.load import CAPACITY, LOADS, closed_loop
from stageproof.benchmarks.serving.client.protocols import raw
from stageproof.benchmarks.serving.in_process import InProcess, expected_answers
from stageproof.benchmarks.serving.measure import Running
from stageproof.benchmarks.serving.options import SERVERS, ServingOptions
from stageproof.benchmarks.serving.peers.pipeline import HOST
from stageproof.benchmarks.serving.process_tree import ProcessTree
from stageproof.benchmarks.serving.servers import OURS, Server, free_port, ours, peer
from stageproof.export.engines.child_process import run_in_child_process
from stageproof.runtime.bundle.manifest import TENSOR, Manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BackendError, BundleError, InputError
from stageproof.runtime.inference.engine_settings import EngineSettings
from stageproof.runtime.system.cpus import available_cpus
from stageproof.runtime.system.work_folders import work_folder
from stageproof.train.terminal.bars import bar

logger = logging.getLogger(__name__)

IN_PROCESS = "predictor"
CEILING = "client alone"


def run(options: ServingOptions) -> dict[str, Any]:
    """The record (`analysis.record`) of all servers.

    Raises BundleError for a bundle without an ONNX file that passed its check, InputError for unusable images or a
    --work folder of another run, BackendError if the service itself cannot be measured.
    """
    if not sys.platform.startswith("linux"):
        raise InputError("the serving benchmarks read /proc, so they run on Linux only.")
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    manifest = verified(options.bundle)
    file, precision = _onnx(manifest, options)
    threads = options.threads or available_cpus()
    images, source = images_for(manifest, options.bundle, options.run, options.data, options.images)
    with _folder(options.work) as work:
        parts = _parts(options, manifest, precision, threads, images, work)
        logger.info("recording hardware, load and versions")
        about = circumstances()
        expected = run_in_child_process(expected_answers, (options.bundle, precision, images), work / "expected.log")
        spec, batch = manifest.model.input, EngineSettings().batch_size(manifest.model.input.shape)
        model = {
            "model": str((options.bundle / file).resolve()),
            "labels": manifest.model.labels,
            **spec.to_dict(),
            "temperature": manifest.model.temperature,
            "threads": threads,
            "batch": batch,
        }
        notes: list[str] = []
        servers = list(_servers(options, precision, threads, model, work, notes))
        with ExitStack() as stack:
            running: dict[str, Running] = {}
            described = []
            for server in servers:
                logger.info(f"starting {server.title}")
                try:
                    one = stack.enter_context(Running(server, images, expected, work))
                except BackendError as error:
                    if server.name == OURS:
                        raise
                    notes.append(f"{server.title} was not measured. {error}")
                    continue
                one.tree.pause()
                running[server.name] = one
                described.append(_described(server, one.start_s))
            ceiling = _ceiling(images, options.seconds / 2, work)
            alone = stack.enter_context(InProcess(options.bundle, precision, threads, batch, images, work))
            _rounds(options, running, alone, parts, notes)
        cells, in_process = _collected(parts, {*running, IN_PROCESS}, options.rounds)
    after = circumstances()
    about |= {"busy": about["busy"] or after["busy"], "noise_after": after["noise"], "others_after": after["others"]}
    return build(
        cells,
        ceiling,
        commit=commit(),
        started=started,
        circumstances=about,
        bundle=manifest.model.to_dict(),
        precision=precision,
        images={"count": len(images), "source": source},
        threads=threads,
        rounds=options.rounds,
        predictor=in_process,
        servers=described,
        notes=notes,
    )


def _onnx(manifest: Manifest, options: ServingOptions) -> tuple[str, str]:
    """(name, precision) of the ONNX file that every server runs."""
    found = [
        (check.latency_ms, artifact.file, artifact.precision)
        for artifact in manifest.artifacts
        if artifact.takes == TENSOR and artifact.format == "onnx"
        for check in artifact.checks
        if check.backend == "onnx" and options.precision in (None, artifact.precision)
    ]
    if not found:
        wanted = f" in {options.precision}" if options.precision else ""
        raise BundleError(
            f"{options.bundle} has no ONNX file{wanted} that passed its check in ONNX Runtime, which all servers run. "
            "Export one: --to onnx, with onnxruntime installed."
        )
    return min(found)[1:]


def _servers(
    options: ServingOptions, precision: str, threads: int, model: dict[str, Any], work: Path, notes: list[str]
) -> Iterator[Server]:
    for name in SERVERS:
        if options.only and name not in options.only:
            continue
        if name == OURS:
            yield ours(options.bundle.resolve(), precision, threads)
            continue
        given = options.interpreters.get(name)
        try:
            yield peer(name, given or sys.executable, model, work)
        except InputError as error:
            if given:
                raise
            notes.append(f"{name} was not measured: {error} Give an interpreter that has it: --peer {name}=PYTHON")


def _described(server: Server, start_s: float) -> dict[str, Any]:
    return {
        "name": server.name,
        "title": server.title,
        "settings": server.settings,
        "versions": dict(server.versions),
        "start_s": round(start_s, 2),
    }


def _ceiling(images: Sequence[bytes], seconds: float, work: Path) -> list[Cell]:
    """What the load generator reaches with a server that does nothing."""
    port, protocol, cells = free_port(), raw("/"), []
    requests = [protocol.encode(image) for image in images]
    code = f"from stageproof.benchmarks.serving.client.trivial_server import serve; serve({port})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with ProcessTree((sys.executable, "-c", code), environment, work, work / "trivial.log") as tree:
        for load in LOADS:
            if not load.clients:
                continue
            for _ in range(100):  # until it listens
                found = asyncio.run(closed_loop(f"http://{HOST}:{port}", requests, load.clients, seconds, 0.2))
                if found.latencies_ms:
                    break
            else:
                raise BackendError(f"the trivial server does not answer: {tree.last_lines()}")
            # Thousands of latencies a second: their quantiles are enough.
            kept = np.quantile(found.latencies_ms, np.linspace(0, 1, 101)).round(4).tolist()
            per_s = len(found.latencies_ms) / seconds
            cells.append(
                Cell(
                    CEILING,
                    load.name,
                    0,
                    seconds,
                    kept,
                    [0.0] * len(kept),
                    dict(found.errors),
                    offered_per_s=round(per_s, 1),
                    client_cpu=round(found.client_cpu_s / seconds, 4),
                )
            )
    return cells


def _rounds(
    options: ServingOptions, running: dict[str, Running], alone: InProcess, parts: Path, notes: list[str]
) -> None:
    names = [IN_PROCESS, *running]
    with bar("serving", options.rounds * len(names)) as advance:
        for round_ in range(options.rounds):
            for position in np.random.default_rng(round_).permutation(len(names)):
                name = names[position]
                path = _part(parts, name, round_)
                if not path.exists():
                    logger.info(f"round {round_ + 1} of {options.rounds}: {name}")
                    if name == IN_PROCESS:
                        content: Any = alone.measured(options.seconds, options.stream_images, round_)
                    else:
                        content = _measured(running[name], options, parts, round_)
                    write_text(json.dumps(content), path)
                advance()
    for one in running.values():
        if (status := one.tree.exit_status) is not None:
            notes.append(f"{one.server.title} ended during the run with {status}: {one.tree.last_lines()}")


def _measured(one: Running, options: ServingOptions, parts: Path, round_: int) -> list[dict[str, Any]]:
    capacity = None
    if (first := _part(parts, one.server.name, 0)).exists():
        capacity = _capacity([cell(entry, str(first)) for entry in json.loads(first.read_text(encoding="utf-8"))])
    one.tree.resume()
    cells: list[Cell] = []
    try:
        for load in LOADS:
            rate = capacity or _capacity(cells)
            if not load.clients and rate is None:
                logger.warning(f"{one.server.title} completed nothing with {CAPACITY}: no {load.name}")
                continue
            cells.append(one.cell(load, load.weight * options.seconds, rate or 0.0, round_, options.rounds))
    finally:
        one.tree.pause()
    return list(map(asdict, cells))


def _capacity(cells: Sequence[Cell]) -> float | None:
    """Images per second of the closed loop that counts as capacity, in the first round."""
    found = [len(one.latencies_ms) / one.seconds for one in cells if one.load == CAPACITY]
    return found[0] if found and found[0] > 0 else None


def _collected(parts: Path, names: set[str], rounds: int) -> tuple[list[Cell], dict[str, Any]]:
    cells: list[Cell] = []
    alone: dict[str, Any] = {"latencies_ms": [], "stream_ms": [], "batch": None}
    for round_ in range(rounds):
        for name in sorted(names):
            content = json.loads(_part(parts, name, round_).read_text(encoding="utf-8"))
            if name == IN_PROCESS:
                alone["latencies_ms"] += content["latencies_ms"]
                alone["stream_ms"] += content["stream_ms"]
                alone["batch"] = content["batch"]
            else:
                cells += [cell(entry, name) for entry in content]
    return cells, alone


def _part(parts: Path, name: str, round_: int) -> Path:
    return parts / f"{round_}-{name}.json"


def _parts(
    options: ServingOptions, manifest: Manifest, precision: str, threads: int, images: Sequence[bytes], work: Path
) -> Path:
    """The folder of what is measured. Raises InputError if it is that of a run with other options."""
    plan = {
        "model": manifest.model.digest,
        "precision": precision,
        "threads": threads,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "stream_images": options.stream_images,
        "images": sha256(b"".join(images)).hexdigest(),
        "loads": [asdict(load) for load in LOADS],
        "commit": commit(),
    }
    parts = work / "parts"
    parts.mkdir(exist_ok=True)
    path = parts / "plan.json"
    if path.exists() and (found := json.loads(path.read_text(encoding="utf-8"))) != plan:
        changed = ", ".join(key for key in plan if found.get(key) != plan[key])
        raise InputError(f"--work {work} holds a run that differs in {changed}. Give another folder, or remove it.")
    write_text(json.dumps(plan), path)
    return parts


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Yields `kept`, created if necessary, or a temporary folder that is removed afterwards."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with work_folder() as folder:
        yield folder
