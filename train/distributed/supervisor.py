"""`run_processes`: runs a function in several new processes, and ends all of them if one fails or on a signal.

The processes communicate with the supervisor through inherited pipes only, so that there is no open port. torchrun's
agent is not used because its store listens on all interfaces and unpickles what it receives.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from stageproof.runtime.cli.messages import LOGGER, is_shown
from stageproof.runtime.errors import StageproofError
from stageproof.train.terminal.forwarding import Receiver, Wanted, forwarded
from stageproof.train.terminal.messages import shown

STOPPING_SECONDS = 600.0
"""Time limit for the processes to finish a step and write a checkpoint after SIGTERM."""
FAILED_SECONDS = 30.0
"""Time limit for the other processes to end after one failed: they may hang in a collective operation with it."""
SETTLING_SECONDS = 1.0
"""Time to wait for failures of other processes after the first one is seen: the original failure may arrive later."""
REPEATED_SECONDS = 10.0
"""Time after which SIGTERM is sent again: a callback in a library may have suppressed the exception that it raised."""
ORPHANED_SECONDS = 60.0
"""Time limit for a process to end after its supervisor was killed."""
_ANSWER, _FAILURE = "answer", "failure"
"""Kinds of messages from a process, beside those of `train.terminal.forwarding`."""
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class Stopped(Exception):  # noqa: N818  (not an error: requested by the user)
    """The processes were stopped by a signal."""


class Failure(Exception):  # noqa: N818  (the caller converts it to an error)
    """The failure of the process that failed first."""

    def __init__(self, rank: int, when: float, kind: str, message: str, trace: str) -> None:
        """when: monotonic time. kind: class name of the exception, empty if the process ended without one. trace: its
        traceback, empty for exceptions whose message is enough."""
        super().__init__(message)
        self.rank, self.when, self.kind, self.message, self.trace = rank, when, kind, message, trace


@dataclass
class _Member:
    """A process and what the supervisor has received from it."""

    rank: int
    process: BaseProcess
    pipe: Connection
    answer: Any = None
    done: bool = False
    failure: Failure | None = None
    records: Receiver = field(default_factory=Receiver)

    def read(self) -> None:
        """Read the messages of the process, and its exit status."""
        code = self.process.exitcode  # read before the pipe: if it has ended, all of its messages have arrived
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                kind, content = self.pipe.recv()
                if kind == _ANSWER:
                    self.answer, self.done = content, True
                elif kind == _FAILURE:
                    self.failure = Failure(self.rank, *content)
                else:
                    self.records.take(kind, content)
        if code is not None and not self.done and self.failure is None:
            self.failure = Failure(self.rank, -1.0, "", _ended(code), "")


def run_processes(
    function: Callable[..., Any], arguments: tuple[Any, ...], count: int, environment: Mapping[str, str]
) -> Any:
    """Call `function(*arguments)` in `count` new processes; returns the result of rank 0.

    The environment of each has `environment`, RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE.
    Messages of rank 0 are printed there if this process prints its own, else its log records are handled here.
    Raises Failure for the process that failed first, Stopped after SIGTERM, SIGINT, SIGHUP or SIGQUIT; in both cases
    after all processes have ended.
    """
    context = multiprocessing.get_context("spawn")
    members: list[_Member] = []
    stopping: list[int] = []
    wanted = None if is_shown() else Wanted(LOGGER.getEffectiveLevel(), bars=False)

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopping.append(number)
        _terminate(members)

    try:
        with _handled(on_signal):
            for rank in range(count):
                receiver, sender = context.Pipe(duplex=False)
                ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                variables = {**environment, **{name: str(value) for name, value in ranks.items()}}
                process = context.Process(
                    target=_member, args=(function, arguments, variables, sender, wanted), name=f"rank-{rank}"
                )
                with _inherited():
                    process.start()
                members.append(_Member(rank, process, receiver))
                sender.close()
            if stopping:  # a signal arrived before the last process was added to the list
                _terminate(members)
            _supervise(members, stopping)
    finally:
        for member in members:
            if member.process.exitcode is None:
                member.process.kill()
            member.process.join()
            member.pipe.close()
    return _outcome(members, stopped=bool(stopping))


def _supervise(members: Sequence[_Member], stopping: Sequence[int]) -> None:
    """Return when all processes have ended. If one fails, end the others."""
    settled, deadline, repeated = float("inf"), float("inf"), float("inf")
    while alive := [member.process.sentinel for member in members if member.process.exitcode is None]:
        wait(alive, 0.2)
        for member in members:
            member.read()
        now = time.monotonic()
        if stopping:
            deadline = min(deadline, now + STOPPING_SECONDS)
            repeated = min(repeated, now + REPEATED_SECONDS)
        if any(member.failure is not None for member in members):
            settled = min(settled, now + SETTLING_SECONDS)
        if now >= settled and deadline > now + FAILED_SECONDS:
            deadline = now + FAILED_SECONDS
            repeated = now
        if now >= repeated:
            repeated = now + REPEATED_SECONDS
            _terminate(members)
        if now >= deadline:
            for member in members:
                member.process.kill()
    for member in members:
        member.read()


def _outcome(members: Sequence[_Member], stopped: bool) -> Any:
    failures = sorted((member.failure for member in members if member.failure), key=lambda failure: failure.when)
    if not failures:
        return members[0].answer
    if stopped:
        # Processes stopped within a step may raise any exception; a StageproofError (no traceback) has priority.
        explained = [failure for failure in failures if failure.kind.endswith("Error") and not failure.trace]
        raise explained[0] if explained else Stopped
    # A process that ended without an exception (when = -1) comes first: it causes the lost connections of the others.
    raise failures[0]


def _member(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    environment: Mapping[str, str],
    pipe: Connection,
    wanted: Wanted | None,
) -> None:
    """Main function of a process: call the function, send its result or exception."""
    os.environ.update(environment)
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _messages(environment["RANK"], wanted, pipe):
            answer = function(*arguments)
    except BaseException as error:  # noqa: BLE001  every exception is sent to the supervisor
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        explained = isinstance(error, StageproofError) or type(error).__name__ in ("Interrupted", "KeyboardInterrupt")
        trace = "" if explained else "".join(traceback.format_exception(error))
        pipe.send((_FAILURE, (time.monotonic(), type(error).__name__, str(error), trace)))
        sys.stdout.flush()
        sys.stderr.flush()
        # No normal interpreter exit, in which libraries may wait for processes that wait for this one.
        os._exit(1)
    pipe.send((_ANSWER, answer if environment["RANK"] == "0" else None))


def _messages(rank: str, wanted: Wanted | None, pipe: Connection) -> AbstractContextManager[None]:
    """While it lasts, rank 0 prints its messages (`wanted` is None) or sends them to the supervisor."""
    if rank != "0":
        return nullcontext()
    return shown() if wanted is None else forwarded(partial(_send_whole, pipe), wanted)


def _send_whole(pipe: Connection, message: tuple[str, Any]) -> None:
    """Send a message that SIGTERM, which raises an exception, does not interrupt: the supervisor waits for the rest."""
    if not hasattr(signal, "pthread_sigmask"):
        pipe.send(message)
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        pipe.send(message)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM raises KeyboardInterrupt, so that the process cleans up; `train.engine.signals` replaces this handler."""
    raise KeyboardInterrupt


def _end_with_the_supervisor() -> None:
    """End this process after its supervisor was killed: by SIGTERM, so that it can write a checkpoint first."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None, "this process was not started by a supervisor"
    wait([supervisor.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHANED_SECONDS)
    os._exit(1)


def _terminate(members: Sequence[_Member]) -> None:
    for member in members:
        if member.process.exitcode is None:
            member.process.terminate()


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle stop signals with `handler`, in the main thread only: Python allows no handlers in other threads."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _inherited() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C (the supervisor handles it) and do not import from the working folder."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    safe = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"  # spawn runs Python with -c, which would put the working folder on sys.path
    try:
        yield
    finally:
        if safe is None:
            del os.environ["PYTHONSAFEPATH"]
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ended(code: int) -> str:
    """Description of how a process ended that sent no exception."""
    if code >= 0:
        return f"it ended with exit status {code} and without an exception"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    memory = " (the system may have been out of memory)" if name == "SIGKILL" else ""
    return f"it was ended by signal {name}{memory}"
