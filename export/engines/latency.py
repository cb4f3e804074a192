"""How fast each artifact of a bundle is here, all of them timed in turn.

Predictor takes the fastest, so the figures of one manifest must compare. Timed as soon as it is built, each artifact
meets another minute of the machine, and a moment of other work decides which one serves. Here every round asks all of
them, in another order each time: what slows the machine for a while slows them alike. It is done in a process of its
own, since building leaves threads and memory behind; and before each turn the process comes to rest, since the thread
pools of the engine before spin for a while at the next one's cost.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.export.engines.child_process import in_own_process
from stageproof.export.engines.idle import until_at_rest
from stageproof.export.engines.runners import load, machine, one_line
from stageproof.export.preprocessing import TAKES
from stageproof.runtime.bundle.manifest import Artifact, Golden
from stageproof.runtime.images.raster import read_image
from stageproof.runtime.preprocess import InputSpec, preprocess

FEWEST_ROUNDS, MOST_ROUNDS = 5, 20
SECONDS = 5.0
"""After so many no further round begins, once there are enough."""
IN_A_ROW = 3
"""Answers timed in one turn, after one that is not: others used the caches since."""

Pair = tuple[str, str]
"""File and backend."""


def timed(
    folder: Path,
    artifacts: Sequence[Artifact],
    golden: Sequence[Golden],
    spec: InputSpec,
    threads: int,
    log: Path,
    say: Callable[[str], None],
    foreign: AbstractSet[str] = frozenset(),
) -> list[Artifact]:
    """The artifacts, which lie in `folder`, each check with its latency here and now.

    A check that cannot be asked here keeps the figure and the machine that it has, and so do all of them if the process
    that asks dies. log: what the engines print. foreign: files that carry code and were not built by this export, which
    are not loaded.
    """
    if not any(artifact.checks for artifact in artifacts):
        return list(artifacts)
    say("timing all that passed, in turn")
    image = folder / golden[0].file
    try:
        trusted = [one for one in artifacts if one.file not in foreign]
        found = in_own_process(_measure, (folder, trusted, image, spec, threads), log, say)
    except ChildProcessError as error:
        say(f"The artifacts were not timed in turn: {error}. The latency at each one's own check stands.")
        return list(artifacts)
    return [_with(artifact, found, machine(threads)) for artifact in artifacts]


def _with(artifact: Artifact, found: Mapping[Pair, tuple[float, str]], here: str) -> Artifact:
    checks = []
    for check in artifact.checks:
        if answer := found.get((artifact.file, check.backend)):
            latency, engine = answer
            where = here if engine == check.engine else f"{here}, {engine}"
            check = replace(check, latency_ms=latency, machine=where)
        checks.append(check)
    return replace(artifact, checks=tuple(checks))


def _measure(
    folder: Path, artifacts: list[Artifact], image: Path, spec: InputSpec, threads: int, say: Callable[[str], None]
) -> dict[Pair, tuple[float, str]]:
    """Milliseconds and engine of every pair that can be asked here."""
    picture = read_image(image)
    tensor, pixels = preprocess(picture, spec)[None], np.array(picture.convert("RGB"))[None]
    asked, engines = {}, {}
    for artifact in artifacts:
        given = pixels if artifact.takes == TAKES else tensor
        for check in artifact.checks:
            try:
                path, takes = folder / artifact.file, artifact.takes
                loaded = load(check.backend, path, artifact.precision, threads, takes=takes, trust_code=True)
                loaded.run(given)
            # Engines fail with what their bindings raise.
            except Exception as error:  # noqa: BLE001
                reason = one_line(error, folder / artifact.file)
                say(f"{artifact.file} in {check.backend} was not timed, and keeps the latency it had: {reason}")
                continue
            pair = (artifact.file, check.backend)
            asked[pair] = lambda run=loaded.run, given=given: run(given)
            engines[pair] = loaded.engine
    return {pair: (latency, engines[pair]) for pair, latency in in_turn(asked).items()}


def in_turn(asked: Mapping[Pair, Callable[[], object]]) -> dict[Pair, float]:
    """Median milliseconds of each call, over rounds in which every one has its turn."""
    times: dict[Pair, list[float]] = {pair: [] for pair in asked}
    order, shuffled = list(asked), random.Random(0)
    begun = time.perf_counter()
    for turn in range(MOST_ROUNDS if asked else 0):
        if turn >= FEWEST_ROUNDS and time.perf_counter() - begun > SECONDS:
            break
        shuffled.shuffle(order)
        for pair in order:
            until_at_rest(time.process_time)
            asked[pair]()
            for _ in range(IN_A_ROW):
                start = time.perf_counter()
                asked[pair]()
                times[pair].append(time.perf_counter() - start)
    return {pair: statistics.median(values) * 1e3 for pair, values in times.items()}
