"""`supervise`: several worker processes behind one port. A worker that dies is started again.

The parent binds the port, loads no bundle and answers nothing. The workers accept connections from the same socket, so
that none is refused while a worker starts. With gRPC, each worker has a socket of its own (SO_REUSEPORT).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import wait
from typing import Any

from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.messages import shown
from stageproof.runtime.errors import InputError, StageproofError
from stageproof.runtime.system.work_folders import work_folder
from stageproof.serving.http.hangups import held_back, let_through
from stageproof.serving.http.logs import ServiceHandler
from stageproof.serving.http.options import Options

logger = logging.getLogger(__name__)

_CONTEXT = multiprocessing.get_context("spawn")  # an engine does not survive a fork
_LONGEST_PAUSE_S = 30.0
_LASTING_S = 60.0
"""A worker that ran longer did not die of its start: the pauses begin anew."""


def supervise(options: Options, listener: socket.socket, token: bytes | None) -> int:
    """Run `options.workers` processes until SIGTERM or SIGINT; exit status.

    A worker that cannot start exits with status 1 or 2; before any worker was ready, this ends all of them.
    """
    if options.grpc_port is not None:
        _check_free(options.host, options.grpc_port)
    with work_folder() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # before a worker imports prometheus_client
        return _Supervisor(options, listener, token).run()


def _check_free(host: str, port: int) -> None:
    """Raise StageproofError if the port is taken: the workers share it, and would share it with a stranger too."""
    if port == 0:
        raise InputError("--grpc-port is 0, a free port, which several workers cannot share. Give a port.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the service before this one
            probe.bind((host, port))
    except OSError as error:
        raise StageproofError(f"--grpc-port {port} of {host} cannot be bound ({error.strerror}).") from error


class _Supervisor:
    def __init__(self, options: Options, listener: socket.socket, token: bytes | None) -> None:
        self._options, self._given = options, (options, listener, token)
        self._was_ready = _CONTEXT.Event()
        self._workers: dict[int, Any] = {}
        """Number → process."""
        self._starts: dict[int, float] = {}
        self._begun: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._stop = False
        self._status = 0

    def run(self) -> int:
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: self._end())
        signal.signal(signal.SIGHUP, lambda *_: self._send(signal.SIGHUP))
        let_through()
        for number in range(self._options.workers):
            self._start(number)
        while not self._stop:
            for number in [number for number, due in self._starts.items() if due <= time.monotonic()]:
                self._start(number)
            wait([worker.sentinel for worker in self._workers.values()], timeout=0.2)
            for number, worker in [*self._workers.items()]:
                if worker.exitcode is not None:
                    self._died(number, worker)
        self._send(signal.SIGTERM)
        end = time.monotonic() + self._options.drain_s + 10
        for worker in self._workers.values():
            worker.join(max(0.0, end - time.monotonic()))
            if worker.exitcode is None:
                logger.error(f"worker {worker.pid} did not stop in time and was killed")
                worker.kill()
                worker.join()
        return self._status

    def _end(self) -> None:
        self._stop = True

    def _send(self, number: int) -> None:
        for worker in self._workers.values():
            if worker.exitcode is None:
                os.kill(worker.pid, number)

    def _start(self, number: int) -> None:
        self._starts.pop(number, None)
        self._begun[number] = time.monotonic()
        worker = _CONTEXT.Process(
            target=_worker, args=(*self._given, self._was_ready), name=f"stageproof-worker-{number}"
        )
        with held_back():
            worker.start()
        self._workers[number] = worker
        logger.info(f"worker {number} started, process {worker.pid}")

    def _died(self, number: int, worker: Any) -> None:
        from prometheus_client import multiprocess

        del self._workers[number]
        multiprocess.mark_process_dead(worker.pid)
        if self._stop:
            return
        if worker.exitcode > 0 and not self._was_ready.is_set():
            self._status, self._stop = worker.exitcode, True
            return
        if time.monotonic() - self._begun[number] > _LASTING_S:
            self._failures.pop(number, None)
        failures = self._failures[number] = self._failures.get(number, 0) + 1
        pause = min(_LONGEST_PAUSE_S, 0.1 * 2 ** min(failures - 1, 10))
        logger.error(
            f"worker {number}, process {worker.pid}, ended with status {worker.exitcode}; it is started again in "
            f"{pause:g} s"
        )
        self._starts[number] = time.monotonic() + pause


def _worker(options: Options, listener: socket.socket, token: bytes | None, ready: Any) -> None:
    """Main function of a worker process, which ends if its parent does. ready: event, set after the self-test."""

    def follow() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    @shown(ServiceHandler)
    def run() -> int:
        from stageproof.serving.http.process import serve  # imports prometheus_client

        try:
            serve(options, listener, token, ready.set, accept_when_ready=ready.is_set())
        except StageproofError as error:
            return report_error(error)
        return 0

    threading.Thread(target=follow, daemon=True).start()
    sys.exit(exit_status(run, extra="serve"))
