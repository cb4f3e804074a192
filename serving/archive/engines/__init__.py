"""Engines distribute shards over processes or machines. One module each, behind `Engine`; `ENGINES` names them.

An engine only decides where `Scorer.score` runs. It keeps no results: what is finished is what has a part. A new
engine (Dask, Spark, a batch system) is a module with a class that has the methods of `Engine`, and a row in
`ENGINES`; `ShardQueue` counts its losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from stageproof.serving.archive.worker import Job, Scored


@dataclass(frozen=True)
class Lost:
    """A worker ended before it had written the part of its shard."""

    shard: int
    worker: str
    reason: str
    again: bool
    """Whether another worker scores the shard; False after `engines.shard_queue.ATTEMPTS` losses."""


class Engine(Protocol):
    """Runs workers."""

    def once(self, function: Callable[[Job], Any], job: Job) -> Any:
        """The result of a module-level `function` in a worker. Raises its StageproofError; ArchiveError if the worker
        ends."""
        ...

    def run(self, job: Job, shards: Sequence[int]) -> Iterator[Scored | Lost]:
        """Score `shards` with one `Scorer` per worker, in any order; what happens, as it happens.

        Raises the StageproofError of a worker: it would occur again. Closing the iterator ends the workers.
        """
        ...

    def close(self) -> None:
        """Give back what `once` and `run` share, such as the connection to a cluster."""
        ...


@dataclass(frozen=True)
class Workers:
    """What an engine starts."""

    count: int | None
    """Number of workers; None: as many as the machine or cluster has CPUs for."""
    threads: int
    """CPU threads of each."""
    device: str
    address: str | None = None
    """Of a cluster; None: this machine."""


ENGINES = {
    "local": "stageproof.serving.archive.engines.local:Local",
    "ray": "stageproof.serving.archive.engines.ray_actors:RayActors",
}
"""Name → module:class, which takes `Workers`."""


def engine(name: str, workers: Workers) -> Engine:
    """The engine of this name. Raises DependencyError if its packages are not installed."""
    module, _, kind = ENGINES[name].partition(":")
    made: Engine = getattr(import_module(module), kind)(workers)
    return made
