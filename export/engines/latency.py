"""Measures the latency of all artifacts of a bundle on this machine, interleaved in random order.

Predictor chooses the fastest artifact, so the latencies of one manifest must be comparable. If each artifact were timed
right after it is built, other work on the machine at that moment could decide the choice. Here each round runs all
artifacts in a new random order, so that a slow period affects them equally. The measurement has its own process, since
building leaves threads and memory behind; before each run the process becomes idle, since thread pools of the previous
engine busy-wait for a while.
"""

from __future__ import annotations

import logging
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.export.engines.child_process import run_in_child_process
from stageproof.export.engines.idle import wait_until_idle
from stageproof.export.engines.runners import load, machine, one_line
from stageproof.export.preprocessing import TAKES
from stageproof.runtime.bundle.manifest import Artifact, Golden
from stageproof.runtime.images.raster import read_image
from stageproof.runtime.preprocess import InputSpec, preprocess

logger = logging.getLogger(__name__)

FEWEST_ROUNDS, MOST_ROUNDS = 5, 20
SECONDS = 5.0
"""No further round begins after this time, once there are `FEWEST_ROUNDS`."""
IN_A_ROW = 3
"""Timed runs of one artifact per round, after an untimed one that refills the CPU caches."""

Pair = tuple[str, str]
"""File and backend."""


def timed(
    folder: Path,
    artifacts: Sequence[Artifact],
    golden: Sequence[Golden],
    spec: InputSpec,
    threads: int,
    log: Path,
    foreign: AbstractSet[str] = frozenset(),
) -> list[Artifact]:
    """The artifacts in `folder`, with the latency of each check replaced by one measured now on this machine.

    A check that cannot run here keeps its recorded latency and machine; all do if the measuring process dies.
    log: file for the engines' output. foreign: files that contain code and were not built by this export; they are not
    loaded.
    """
    if not any(artifact.checks for artifact in artifacts):
        return list(artifacts)
    logger.info("measuring latency of all passed artifacts, interleaved")
    image = folder / golden[0].file
    try:
        trusted = [one for one in artifacts if one.file not in foreign]
        found = run_in_child_process(_measure, (folder, trusted, image, spec, threads), log)
    except ChildProcessError as error:
        logger.warning(
            f"The interleaved latency measurement failed: {error}. Each artifact keeps the latency of its check."
        )
        return list(artifacts)
    return [_with(artifact, found, machine(threads)) for artifact in artifacts]


def _with(artifact: Artifact, found: Mapping[Pair, tuple[float, str]], current: str) -> Artifact:
    checks = []
    for check in artifact.checks:
        if answer := found.get((artifact.file, check.backend)):
            latency, engine = answer
            where = current if engine == check.engine else f"{current}, {engine}"
            check = replace(check, latency_ms=latency, machine=where)
        checks.append(check)
    return replace(artifact, checks=tuple(checks))


def _measure(
    folder: Path, artifacts: list[Artifact], image: Path, spec: InputSpec, threads: int
) -> dict[Pair, tuple[float, str]]:
    """(latency in milliseconds, engine) of every pair that can run here."""
    picture = read_image(image)
    tensor, pixels = preprocess(picture, spec)[None], np.array(picture.convert("RGB"))[None]
    calls, engines = {}, {}
    for artifact in artifacts:
        given = pixels if artifact.takes == TAKES else tensor
        for check in artifact.checks:
            try:
                path, takes = folder / artifact.file, artifact.takes
                loaded = load(check.backend, path, artifact.precision, threads, takes=takes, trust_code=True)
                loaded.run(given)
            # Engines raise exceptions of any type.
            except Exception as error:  # noqa: BLE001
                reason = one_line(error, folder / artifact.file)
                logger.info(
                    f"{artifact.file} in {check.backend} was not timed and keeps its recorded latency: {reason}"
                )
                continue
            pair = (artifact.file, check.backend)
            calls[pair] = lambda run=loaded.run, given=given: run(given)
            engines[pair] = loaded.engine
    return {pair: (latency, engines[pair]) for pair, latency in interleaved_latency(calls).items()}


def interleaved_latency(calls: Mapping[Pair, Callable[[], object]]) -> dict[Pair, float]:
    """Median latency of each call in milliseconds, over rounds that run all calls in random order."""
    times: dict[Pair, list[float]] = {pair: [] for pair in calls}
    order, shuffled = list(calls), random.Random(0)
    begun = time.perf_counter()
    for round_ in range(MOST_ROUNDS if calls else 0):
        if round_ >= FEWEST_ROUNDS and time.perf_counter() - begun > SECONDS:
            break
        shuffled.shuffle(order)
        for pair in order:
            wait_until_idle(time.process_time)
            calls[pair]()
            for _ in range(IN_A_ROW):
                start = time.perf_counter()
                calls[pair]()
                times[pair].append(time.perf_counter() - start)
    return {pair: statistics.median(values) * 1e3 for pair, values in times.items()}
