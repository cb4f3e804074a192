"""`RayActors`: workers as actors of a Ray cluster, or of Ray on this machine.

Ray places actors and notices lost processes and nodes. It keeps no results: durability rests on the parts, which
workers write to a file system that all nodes share.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stageproof.runtime.errors import StageproofError
from stageproof.serving.archive.engines import Lost, Workers
from stageproof.serving.archive.engines.shard_queue import ShardQueue
from stageproof.serving.archive.errors import ArchiveError
from stageproof.serving.archive.worker import Job, Scored, Scorer

# Ray sends statistics on its use to its makers unless told otherwise, before it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what newer versions do by default

import ray

logger = logging.getLogger(__name__)

_PATIENCE = 60.0
"""Seconds without a worker after which a warning says that the cluster has no room."""


class RayActors:
    """Actors of a Ray cluster."""

    def __init__(self, workers: Workers) -> None:
        self._asked = workers
        self._connected = False
        self._resources = {"num_cpus": workers.threads, "num_gpus": 0 if workers.device == "cpu" else 1}

    def once(self, function: Callable[[Job], Any], job: Job) -> Any:
        """As `Engine.once`."""
        self._connect()
        task = ray.remote(max_retries=0, **self._resources)(_called)
        try:
            result = ray.get(task.remote(function, job))
        except ray.exceptions.RayError as error:
            raise ArchiveError(f"the worker ended while it loaded the bundle: {_first_line(error)}") from error
        if isinstance(result, StageproofError):
            raise result
        return result

    def run(self, job: Job, shards: Sequence[int]) -> Iterator[Scored | Lost]:
        """As `Engine.run`. A shard goes to an actor that has loaded the bundle, so that none waits for a lost node."""
        self._connect()
        count = min(self._asked.count or self._room(), len(shards))
        kind = ray.remote(max_restarts=0, max_task_retries=0, **self._resources)(_Actor)
        queue, actors = ShardQueue(shards, count), 0
        running: dict[Any, tuple[Any, int | None]] = {}  # reference → actor, its shard; None while it loads
        try:
            while True:
                while queue and actors < count:
                    actor = kind.remote(job)
                    running[actor.load.remote()] = (actor, None)
                    actors += 1
                if not running or (not queue and all(shard is None for _, shard in running.values())):
                    return
                done, _ = ray.wait(list(running), timeout=_PATIENCE)
                if not done and all(shard is None for _, shard in running.values()):
                    logger.warning(
                        f"no worker has started for {_PATIENCE:.0f} s: {count} need {self._resources} each, the "
                        f"cluster has {ray.available_resources()} free. Waiting for nodes"
                    )
                for reference in done:
                    actor, shard = running.pop(reference)
                    try:
                        result = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        actors -= 1
                        ray.kill(actor)  # it may only be out of reach, and keep its CPUs
                        reason = _first_line(error)
                        if shard is None:
                            queue.lost_before_a_shard(reason)
                            logger.warning(f"a worker ended while it loaded the bundle: {reason}")
                        else:
                            yield Lost(shard, "Ray actor", reason, queue.lost(shard, reason))
                        continue
                    if isinstance(result, StageproofError):
                        raise result
                    if shard is not None:
                        queue.finished()
                        yield result
                    if queue:
                        following = queue.take()
                        running[actor.score.remote(following)] = (actor, following)
                    else:
                        actors -= 1
                        ray.kill(actor)
        finally:
            for actor, _ in running.values():
                ray.kill(actor)

    def _room(self) -> int:
        """Workers that the cluster has CPUs, or GPUs, for."""
        found = ray.cluster_resources()
        name, each = ("CPU", self._asked.threads) if self._asked.device == "cpu" else ("GPU", 1)
        return max(1, int(found.get(name, 0) // each))

    def _connect(self) -> None:
        """Connect to the cluster; a program that is connected already stays so."""
        if ray.is_initialized():
            return
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if self._asked.address is None:
            # Only this machine can connect, and no dashboard listens.
            options |= {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
            if self._asked.count is not None:
                options["num_cpus"] = max(self._asked.count * self._asked.threads, 1)
        try:
            # "local": None would connect to whatever cluster this machine has, or had.
            ray.init(address=self._asked.address or "local", **options)
        except Exception as error:  # Ray raises bare exceptions where a part of it does not start
            what = f"reached at {self._asked.address}" if self._asked.address else "started on this machine"
            raise ArchiveError(
                f"Ray cannot be {what}: {_first_line(error)} Check --address and the load of the machine."
            ) from error
        self._connected = True

    def close(self) -> None:
        """Disconnect, if this connected; a cluster that was started for it ends."""
        if self._connected:
            ray.shutdown()
            self._connected = False


class _Actor:
    """A worker. Errors that would occur again are returned: Ray would wrap raised ones in its own."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scorer: Scorer | None = None

    def load(self) -> StageproofError | None:
        try:
            self._scorer = Scorer(self._job)
        except StageproofError as error:
            return error
        return None

    def score(self, shard: int) -> Scored | StageproofError:
        assert self._scorer is not None
        try:
            return self._scorer.score(shard)
        except StageproofError as error:
            return error


def _called(function: Callable[[Job], Any], job: Job) -> Any:
    try:
        return function(job)
    except StageproofError as error:
        return error


def _first_line(error: Exception) -> str:
    return next((one.strip() for one in str(error).splitlines() if one.strip()), type(error).__name__)
