"""The benchmark scenarios, named after MLPerf Inference, and their interleaved timing.

single_stream   one image at a time: latency
multi_stream    queries of eight images: latency
offline         all images available at once, in batches: throughput, also of the engine alone on preprocessed tensors
server          images arrive at random times, at a fraction of the stream's throughput: latency since arrival
engine          preprocessed tensors, the engine alone, one call at a time, at several batch sizes

Predictors are optimised for throughput in offline, for latency in all others.

Workers alternate in random order, a new one each round, with the same images, so that drift of the machine affects all
of them and no worker always follows the same other one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stageproof.benchmarks.contenders.worker import Worker
from stageproof.train.terminal.bars import bar

BURST = 12
"""Images of one single_stream turn, run one after another. An untimed image runs first, since other processes have used
the caches; the next few images are still slightly slower."""
OFFLINE_IMAGES = 256
"""Minimum number of images of an offline turn: with fewer, start and end of the stream dominate."""
BATCH_SEARCH_IMAGES = 160
"""Number of images for choosing the batch size."""
QUERY_SIZE = 8
"""Images of one multi_stream query."""
AGREE = 0.10
"""Largest relative range of medians that count as equal."""
_MOST_WARM_UP = 12
_RUNS = 2

logger = logging.getLogger(__name__)

Measure = Callable[[Worker, int], list[float]]
"""Times of one turn of a worker, in milliseconds; the turns of the warm-up are below 0."""


@dataclass
class Timings:
    """Times of one worker in one scenario."""

    milliseconds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    @property
    def stable(self) -> bool:
        """Whether the medians of the first, second and last third of the times agree."""
        return agree([float(np.median(part)) for part in np.array_split(self.milliseconds, 3) if len(part)])


def agree(medians: Sequence[float]) -> bool:
    """Whether the range of `medians` is within `AGREE` of their median; False for fewer than two."""
    return len(medians) > 1 and max(medians) - min(medians) <= AGREE * float(np.median(medians))


def shuffled(workers: Sequence[Worker], turn: int) -> Iterator[Worker]:
    """Yields every worker once, in the random order of this turn (below 0: warm-up); waits after each worker until it
    is idle."""
    for position in np.random.default_rng([turn < 0, abs(turn)]).permutation(len(workers)):
        worker = workers[position]
        yield worker
        worker.wait_until_idle()


def single_stream(workers: Sequence[Worker], samples: int) -> dict[str, Timings]:
    """Contender → at least `samples` latencies of one image; up to twice as many while any contender is not stable."""
    timings = {worker.contender.name: Timings() for worker in workers}
    rounds = math.ceil(samples / BURST)
    logger.info(f"single_stream: {rounds * BURST} images")
    _warm_up(workers, lambda worker, turn: worker.request("burst", turn * BURST, BURST)[0], "single_stream")

    def measure(turn: int, advance: Callable[[], None]) -> None:
        for worker in shuffled(workers, turn):
            times, stages = worker.request("burst", turn * BURST, BURST)
            one = timings[worker.contender.name]
            one.milliseconds += times
            for answered in stages:
                for stage, spent in answered.items():
                    one.stages.setdefault(stage, []).append(spent)
            advance()
        if turn % 10 == 9:
            logger.info(f"single_stream: {(turn + 1) * BURST} of {rounds * BURST} images")

    with bar("single_stream", rounds * len(workers)) as advance:
        for turn in range(rounds):
            measure(turn, advance)
    with bar("single_stream, until times are stable", rounds * len(workers)) as advance:
        for turn in range(rounds, 2 * rounds):
            if all(one.stable for one in timings.values()):
                break
            measure(turn, advance)
    return timings


def multi_stream(workers: Sequence[Worker], samples: int) -> dict[str, Timings]:
    """Contender → `samples` latencies of a query of `QUERY_SIZE` images."""
    logger.info(f"multi_stream: {samples} queries of {QUERY_SIZE} images")

    def measure(worker: Worker, turn: int) -> list[float]:
        return [worker.request("query", turn * QUERY_SIZE, QUERY_SIZE)]

    return _interleaved(workers, samples, measure, "multi_stream")


def engine(workers: Sequence[Worker], batch: int, samples: int) -> dict[str, Timings]:
    """Contender → at least `samples` latencies of the engine alone on `batch` preprocessed tensors."""
    logger.info(f"engine: {samples} runs of {batch} images")
    turns = math.ceil(samples / _RUNS)

    def measure(worker: Worker, turn: int) -> list[float]:
        times: list[float] = worker.request("call", "engine", turn * _RUNS * batch, batch, _RUNS)
        return times

    return _interleaved(workers, turns, measure, f"engine, batch size {batch}")


def best_batches(workers: Sequence[Worker], images: int) -> dict[str, int]:
    """Contender → the fastest of its batch sizes for `images` images, minimum of two interleaved runs each."""
    sizes = sorted({size for worker in workers for size in worker.contender.batches})
    least: dict[tuple[str, int], float] = {}
    logger.info(f"offline: choosing batch sizes with {images} images")
    with bar("offline: choosing batch sizes", 2 * sum(len(worker.contender.batches) for worker in workers)) as advance:
        for turn in range(2):
            for size in sizes:
                for worker in shuffled(workers, turn):
                    if size in worker.contender.batches:
                        key = worker.contender.name, size
                        least[key] = min(least.get(key, math.inf), worker.request("throughput", images, size))
                        advance()
    names = [worker.contender.name for worker in workers]
    return {name: min((size for of, size in least if of == name), key=lambda s: least[name, s]) for name in names}


def offline(
    workers: Sequence[Worker], batches: Mapping[str, int], images: int, turns: int
) -> tuple[dict[str, Timings], dict[str, Timings]]:
    """Contender → milliseconds per image in each of `turns` turns over `images` images; and the same of the engines
    alone, of those contenders that are Predictors, measured just before or after their stream.

    batches: contender → size.
    """
    logger.info(f"offline: {turns} turns of {images} images")
    timings = {worker.contender.name: Timings() for worker in workers}
    engines = {worker.contender.name: Timings() for worker in workers if worker.contender.kind == "predictor"}

    def stream(worker: Worker, batch: int) -> None:
        spent = worker.request("throughput", images, batch) * 1e3 / images
        timings[worker.contender.name].milliseconds.append(spent)

    def engine_alone(worker: Worker, batch: int) -> None:
        if worker.contender.name in engines:
            spent = worker.request("call", "engine_stream", images, batch)
            engines[worker.contender.name].milliseconds.append(spent)

    with bar("offline", turns * len(workers)) as advance:
        for turn in range(turns):
            for worker in shuffled(workers, turn):
                first, second = (stream, engine_alone) if turn % 2 else (engine_alone, stream)
                first(worker, batches[worker.contender.name])
                worker.wait_until_idle()
                second(worker, batches[worker.contender.name])
                advance()
    return timings, engines


def _interleaved(workers: Sequence[Worker], turns: int, measure: Measure, what: str) -> dict[str, Timings]:
    timings = {worker.contender.name: Timings() for worker in workers}
    _warm_up(workers, measure, what)
    with bar(what, turns * len(workers)) as advance:
        for turn in range(turns):
            for worker in shuffled(workers, turn):
                timings[worker.contender.name].milliseconds += measure(worker, turn)
                advance()
    return timings


def _warm_up(workers: Sequence[Worker], measure: Measure, what: str) -> None:
    """Run untimed turns until the medians of the last three turns agree for every worker."""
    medians: dict[str, list[float]] = {worker.contender.name: [] for worker in workers}
    with bar(f"{what}: warming up, at most", _MOST_WARM_UP * len(workers)) as advance:
        for turn in range(_MOST_WARM_UP):
            for worker in shuffled(workers, turn):
                medians[worker.contender.name].append(float(np.median(measure(worker, -1 - turn))))
                advance()
            if turn >= 2 and all(agree(found[-3:]) for found in medians.values()):
                return
