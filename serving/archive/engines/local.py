"""`Local`: workers as processes of this machine, each with a Predictor and a share of the threads."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from stageproof.runtime.errors import StageproofError
from stageproof.runtime.system.cpus import available_cpus
from stageproof.serving.archive.engines import Lost, Workers
from stageproof.serving.archive.engines.shard_queue import ShardQueue
from stageproof.serving.archive.errors import ArchiveError
from stageproof.serving.archive.worker import Job, Scored, Scorer

_SPAWN = get_context("spawn")  # engines do not survive a fork
_PR_SET_PDEATHSIG = 1
_SECONDS_TO_END = 10.0
"""For a process whose connection is closed, so that its own exit status is reported."""


class Local:
    """Processes of this machine."""

    def __init__(self, workers: Workers) -> None:
        on_cpu = workers.device == "cpu"
        self._count = workers.count or (max(1, available_cpus() // workers.threads) if on_cpu else 1)

    def once(self, function: Callable[[Job], Any], job: Job) -> Any:
        """As `Engine.once`."""
        worker = _Worker(_call, (function, job))
        try:
            result = worker.connection.recv()
        except EOFError:
            raise ArchiveError(f"the worker ended while it loaded the bundle: {worker.ending()}.") from None
        finally:
            worker.end()
        if isinstance(result, StageproofError):
            raise result
        return result

    def run(self, job: Job, shards: Sequence[int]) -> Iterator[Scored | Lost]:
        """As `Engine.run`."""
        count = min(self._count, len(shards))
        queue = ShardQueue(shards, count)
        workers: list[_Worker] = []
        try:
            while True:
                while queue and len(workers) < count:
                    workers.append(_Worker(_serve, (job,)))
                    workers[-1].give(queue)
                if not workers:
                    return
                for connection in wait([one.connection for one in workers]):
                    worker = next(one for one in workers if one.connection is connection)
                    try:
                        result = worker.connection.recv()
                    except (EOFError, OSError):  # the process ended
                        workers.remove(worker)
                        worker.process.join(_SECONDS_TO_END)
                        worker.end()
                        yield _lost(worker, queue)
                        continue
                    if isinstance(result, StageproofError):
                        raise result
                    queue.finished()
                    worker.shard = None
                    if queue:
                        worker.give(queue)
                    else:
                        workers.remove(worker)
                        worker.end()
                    yield result
        finally:
            for worker in workers:
                worker.end()

    def close(self) -> None:
        """As `Engine.close`: nothing is shared."""


@dataclass
class _Worker:
    target: Callable[..., None]
    arguments: tuple[Any, ...]
    shard: int | None = None
    connection: Connection = field(init=False)
    process: Any = field(init=False)

    def __post_init__(self) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=self.target, args=(theirs, os.getpid(), *self.arguments), daemon=False)
        self.process.start()
        theirs.close()

    def give(self, queue: ShardQueue) -> None:
        """Send the next shard."""
        self.shard = queue.take()
        with suppress(OSError):  # a process that ended is noticed when its result is awaited
            self.connection.send(self.shard)

    def ending(self) -> str:
        """How the process ended, in words."""
        self.process.join()
        code = self.process.exitcode
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def end(self) -> None:
        """End the process if it has not ended yet: nothing is lost, because parts are written whole."""
        self.process.kill() if self.shard is not None else self.connection.close()
        self.process.join()
        self.connection.close()


def _lost(worker: _Worker, queue: ShardQueue) -> Lost:
    assert worker.shard is not None
    reason = worker.ending()
    return Lost(worker.shard, f"process {worker.process.pid}", reason, queue.lost(worker.shard, reason))


def _call(connection: Connection, parent: int, function: Callable[[Job], Any], job: Job) -> None:
    _end_with(parent)
    try:
        connection.send(function(job))
    except StageproofError as error:
        connection.send(error)


def _serve(connection: Connection, parent: int, job: Job) -> None:
    """The worker: scores the shards whose numbers arrive, until the connection is closed."""
    _end_with(parent)
    scorer = None
    try:
        while True:
            shard = connection.recv()
            scorer = scorer or Scorer(job)
            connection.send(scorer.score(shard))
    except StageproofError as error:
        connection.send(error)
    except EOFError:
        pass


def _end_with(parent: int) -> None:
    """End this process when its parent does: a part that nobody waits for needs no processor (Linux prctl(2)). Ctrl-C
    is left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)
