"""The scenarios: which questions are asked of whom, in which order, for how long. Named after MLPerf Inference.

single_stream   one image, and the next when it has been answered: latency
multi_stream    eight images as one question: latency
offline         all images at once, in batches: throughput
server          images at random moments, at a share of the offline throughput: latency from when each was due
engine          ready tensors, the engine alone, at several batch sizes

Workers take turns, in an order that is drawn anew each time, all of them with the same images, so that a machine that
drifts drifts for all, and nobody always follows the same one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stageproof.benchmarks.contenders.worker import Worker

BURST = 12
"""Images of one turn of single_stream, one as soon as the other is answered. The first of a turn, before them, finds
the caches full of others' work and is not counted; the next few still pay for some of that."""
OFFLINE = 256
"""Images of one turn of offline, at least: fewer would measure how a stream begins and ends."""
TRIED = 160
"""Images on which the batch size is chosen."""
LONG = 1024
"""Images of the stream before that: after some hundred a Predictor answers with another engine."""
QUESTION = 8
"""Images of one question of multi_stream."""
AGREE = 0.10
"""Medians of windows that lie within this share of each other agree."""
_MOST_WARM_UP = 12
_RUNS = 2

Say = Callable[[str], None]


@dataclass
class Taken:
    """What one worker's turns took."""

    milliseconds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    @property
    def stable(self) -> bool:
        """Whether the medians of the first, second and last third agree."""
        return agree([float(np.median(part)) for part in np.array_split(self.milliseconds, 3) if len(part)])


def agree(medians: Sequence[float]) -> bool:
    """Whether all of them lie within `AGREE` of their middle one; one alone agrees with nothing."""
    return len(medians) > 1 and max(medians) - min(medians) <= AGREE * float(np.median(medians))


def in_order(workers: Sequence[Worker], turn: int) -> Iterator[Worker]:
    """Every worker once, in the order of this turn (below 0: warming up), each when the one before it has let go of the
    processors."""
    for position in np.random.default_rng([turn < 0, abs(turn)]).permutation(len(workers)):
        worker = workers[position]
        yield worker
        worker.settle()


def single_stream(workers: Sequence[Worker], samples: int, say: Say) -> dict[str, Taken]:
    """By contender: `samples` or more latencies of one image; twice as many where the first did not agree."""
    taken = {worker.contender.name: Taken() for worker in workers}
    rounds = math.ceil(samples / BURST)
    _warm_up(workers, lambda worker, turn: worker.ask("burst", turn * BURST, BURST)[0])
    done = 0
    while done < rounds or (done < 2 * rounds and not all(one.stable for one in taken.values())):
        for worker in in_order(workers, done):
            times, stages = worker.ask("burst", done * BURST, BURST)
            one = taken[worker.contender.name]
            one.milliseconds += times
            for answered in stages:
                for stage, spent in answered.items():
                    one.stages.setdefault(stage, []).append(spent)
        done += 1
        if done % 10 == 0:
            say(f"single_stream: {done * BURST} of {rounds * BURST} images")
    return taken


def multi_stream(workers: Sequence[Worker], samples: int, say: Say) -> dict[str, Taken]:
    """By contender: `samples` latencies of one question of `QUESTION` images."""
    say(f"multi_stream: {samples} questions of {QUESTION} images")
    return _in_turns(workers, samples, lambda worker, turn: [worker.ask("question", turn * QUESTION, QUESTION)])


def engine(workers: Sequence[Worker], batch: int, samples: int, say: Say) -> dict[str, Taken]:
    """By contender: `samples` latencies of the engine alone on `batch` ready tensors."""
    say(f"engine: {samples} runs of {batch} images")
    turns = math.ceil(samples / _RUNS)

    def ask(worker: Worker, turn: int) -> list[float]:
        times: list[float] = worker.ask("call", "engine", turn * _RUNS * batch, batch, _RUNS)
        return times

    return _in_turns(workers, turns, ask)


def best_batches(workers: Sequence[Worker], images: int) -> dict[str, int]:
    """By contender: the batch size of its own list at which `images` images take least, each tried twice in turn."""
    sizes = sorted({size for worker in workers for size in worker.contender.batches})
    least: dict[tuple[str, int], float] = {}
    for turn in range(2):
        for size in sizes:
            for worker in in_order(workers, turn):
                if size in worker.contender.batches:
                    key = worker.contender.name, size
                    least[key] = min(least.get(key, math.inf), worker.ask("throughput", images, size))
    names = [worker.contender.name for worker in workers]
    return {name: min((size for of, size in least if of == name), key=lambda s: least[name, s]) for name in names}


def offline(
    workers: Sequence[Worker], batches: Mapping[str, int], images: int, turns: int, say: Say
) -> dict[str, Taken]:
    """By contender: milliseconds an image in each of `turns` turns over `images` images, in batches of its own size."""
    say(f"offline: {turns} turns of {images} images")

    def ask(worker: Worker, turn: int) -> list[float]:
        return [worker.ask("throughput", images, batches[worker.contender.name]) * 1e3 / images]

    return _in_turns(workers, turns, ask, warm_up=False)


def _in_turns(
    workers: Sequence[Worker], turns: int, ask: Callable[[Worker, int], list[float]], *, warm_up: bool = True
) -> dict[str, Taken]:
    taken = {worker.contender.name: Taken() for worker in workers}
    if warm_up:
        _warm_up(workers, ask)
    for turn in range(turns):
        for worker in in_order(workers, turn):
            taken[worker.contender.name].milliseconds += ask(worker, turn)
    return taken


def _warm_up(workers: Sequence[Worker], ask: Callable[[Worker, int], list[float]]) -> None:
    """Turns that are not counted, until the last three of every worker agree."""
    medians: dict[str, list[float]] = {worker.contender.name: [] for worker in workers}
    for turn in range(_MOST_WARM_UP):
        for worker in in_order(workers, turn):
            medians[worker.contender.name].append(float(np.median(ask(worker, -1 - turn))))
        if turn >= 2 and all(agree(found[-3:]) for found in medians.values()):
            return
