"""Engines and forked processes: what was loaded before a fork is not used after it, and not destroyed either.

A fork copies the memory of a process and only one of its threads. An engine in the child therefore waits for worker
threads that are not there: in a prediction, in its destructor, or in what its library does when the process exits. So a
child gets a ForkError in place of a prediction, and runs none of those destructors.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

from stageproof.runtime.errors import ForkError

_CANNOT_RESTART = {"torch", "openvino"}
"""Libraries that hang where they run again in a child of a process in which they ran: OpenMP in torch waits for its
old threads; OpenVINO 2026.4 for locks, now and then, if it was busy during the fork. ONNX Runtime starts again."""

_engines: weakref.WeakSet[Any] = weakref.WeakSet()
_running: set[str] = set()
_before_fork: set[str] = set()


def loaded(engine: Any, library: str) -> None:
    """Remember a loaded engine, so that a forked child leaves it alone. library: the module that it belongs to."""
    import ctypes  # noqa: F401  so that a child has it, which is no time to import anything

    _engines.add(engine)
    _running.add(library)


def check_process(pid: int) -> None:
    """Raise ForkError unless this process is `pid`, in which a Predictor was loaded. Takes 0.1 µs."""
    if os.getpid() != pid:
        raise ForkError(
            f"This Predictor was loaded in process {pid} and is used in process {os.getpid()}, which was forked from "
            "it: an engine's threads do not survive a fork. Load the Predictor in the worker process, after the fork."
        )


def check_library(library: str) -> None:
    """Raise ForkError where `library` ran in the process that this one was forked from, and cannot start again."""
    if library in _before_fork:
        raise ForkError(
            f"{library} ran in the process that this one was forked from, and would wait for threads that are not "
            "here. Load the Predictor in the worker process only, not also before the fork; or start workers by "
            "multiprocessing's 'spawn' or 'forkserver'."
        )


def _in_child() -> None:
    if not _running:
        return
    import ctypes

    _before_fork.update(_running & _CANNOT_RESTART)
    for engine in list(_engines):
        # A reference that nobody gives back: the destructor would join threads that are not here, and hang or abort.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    _exit_without_handlers()


def _exit_without_handlers() -> None:
    """Let this process end, with its exit status, as soon as Python has: as multiprocessing ends its children.

    Exit handlers of the engines' libraries wait for their threads (onnxruntime 1.32, as soon as it is imported), or
    crash now and then (torch 2.14). Handlers run in the reverse order of their registration, so these two come first.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.on_exit(libc._exit, None)  # which calls _exit(status)
        libc.__cxa_atexit(libc.fflush, None, None)  # before it: fflush(NULL) writes what C code has buffered


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
