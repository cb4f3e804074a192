"""Starts the processes of a run on this machine, and ends them all when one fails or the user stops the run.

Processes and supervisor speak through inherited pipes alone: there is no port to connect to. torchrun's agent is not
used because its store listens on every interface and unpickles what it receives.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from stageproof.runtime.errors import StageproofError

STOPPING_SECONDS = 600.0
"""How long processes may take to finish a step and write a checkpoint after SIGTERM."""
FAILED_SECONDS = 30.0
"""How long the others may take to end after one process failed: they may hang in an exchange with it."""
SETTLING_SECONDS = 1.0
"""How long to wait for another process's reason after the first failure was seen: the cause may be seen second."""
REPEATED_SECONDS = 10.0
"""After how long SIGTERM is sent once more: a library's callback may have swallowed the exception that it raised."""
ORPHANED_SECONDS = 60.0
"""How long a process may take to end whose supervisor was killed."""
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class Stopped(Exception):  # noqa: N818  (not an error: the user asked for it)
    """A signal ended the processes."""


class Failure(Exception):  # noqa: N818  (what happened to a process; the caller makes an error of it)
    """The process that failed first."""

    def __init__(self, rank: int, when: float, kind: str, message: str, trace: str) -> None:
        """kind: class of the exception, empty for a process that died without one. trace: its traceback, empty for
        exceptions that explain themselves."""
        super().__init__(message)
        self.rank, self.when, self.kind, self.message, self.trace = rank, when, kind, message, trace


@dataclass
class _Member:
    """One process, as the supervisor sees it."""

    rank: int
    process: BaseProcess
    pipe: Connection
    answer: Any = None
    done: bool = False
    failure: Failure | None = None

    def read(self) -> None:
        """Take in what the process sent, and how it ended."""
        code = self.process.exitcode  # before the pipe: what it sent is there by now
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                done, content = self.pipe.recv()
                if done:
                    self.answer, self.done = content, True
                else:
                    self.failure = Failure(self.rank, *content)
        if code is not None and not self.done and self.failure is None:
            self.failure = Failure(self.rank, -1.0, "", _ended(code), "")


def run_processes(
    function: Callable[..., Any], arguments: tuple[Any, ...], count: int, environment: Mapping[str, str]
) -> Any:
    """Call `function(*arguments)` in `count` new processes; what it returns in the first of them.

    `environment`, RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE are in the environment of each.
    Raises Failure for the process that failed first, and Stopped after SIGTERM, SIGINT, SIGHUP or SIGQUIT; all
    processes have ended by then.
    """
    context = multiprocessing.get_context("spawn")
    members: list[_Member] = []
    stopping: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopping.append(number)
        _terminate(members)

    try:
        with _handled(on_signal):
            for rank in range(count):
                receiver, sender = context.Pipe(duplex=False)
                places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                told = {**environment, **{name: str(value) for name, value in places.items()}}
                process = context.Process(target=_member, args=(function, arguments, told, sender), name=f"rank-{rank}")
                with _inherited():
                    process.start()
                members.append(_Member(rank, process, receiver))
                sender.close()
            if stopping:  # by a signal that came before the last of them was in the list
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
    """Return when every process has ended; where one fails, the others are ended."""
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
        # Those that were ended before they could finish a step say so in many ways; an error of ours is worth more.
        told = [failure for failure in failures if failure.kind.endswith("Error") and not failure.trace]
        raise told[0] if told else Stopped
    # A process that died without a word is the cause: what the others say of lost connections follows from it.
    raise failures[0]


def _member(
    function: Callable[..., Any], arguments: tuple[Any, ...], environment: Mapping[str, str], pipe: Connection
) -> None:
    """What a process does: call the function, and send what came of it."""
    os.environ.update(environment)
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        answer = function(*arguments)
    except BaseException as error:  # noqa: BLE001  whatever ends this process is sent to the supervisor
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        explained = isinstance(error, StageproofError) or type(error).__name__ in ("Interrupted", "KeyboardInterrupt")
        trace = "" if explained else "".join(traceback.format_exception(error))
        pipe.send((False, (time.monotonic(), type(error).__name__, str(error), trace)))
        sys.stdout.flush()
        sys.stderr.flush()
        # Not by the interpreter's own end, where libraries may wait for processes that wait for this one.
        os._exit(1)
    pipe.send((True, answer if environment["RANK"] == "0" else None))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a process as Ctrl-C does, so that it cleans up; `train.engine.signals` takes it over later."""
    raise KeyboardInterrupt


def _end_with_the_supervisor() -> None:
    """End this process when its supervisor was killed: with a checkpoint where one can be written in time."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None, "a process of a run has a supervisor"
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
    """Signals that ask to stop go to `handler`, where Python takes signals: in the main thread."""
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
    """What a process inherits that starts in here: Ctrl-C of the terminal is the supervisor's alone to take, and the
    working folder is no place to import from."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    safe = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"  # Python starts it with -c, which would put the working folder first
    try:
        yield
    finally:
        if safe is None:
            del os.environ["PYTHONSAFEPATH"]
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ended(code: int) -> str:
    """How a process ended that sent no reason."""
    if code >= 0:
        return f"it ended with exit status {code} and no reason"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    memory = " (the system may have been out of memory)" if name == "SIGKILL" else ""
    return f"it was ended by signal {name}{memory}"
