"""Fork protection: an engine loaded before a fork is neither used nor destroyed in the child process.

A fork copies the memory of a process but only one of its threads. In the child, an engine would wait forever for its
worker threads: in a prediction, in its destructor, or in its library's exit handlers. Therefore predictions in the
child raise ForkError, and the destructors do not run.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

from stageproof.runtime.errors import ForkError

_CANNOT_RESTART = {"torch", "openvino"}
"""Libraries that hang in a child if they ran in the parent: OpenMP in torch waits for the parent's threads; OpenVINO
2026.4 occasionally waits for locks held during the fork. ONNX Runtime can restart."""

_engines: weakref.WeakSet[Any] = weakref.WeakSet()
_running: set[str] = set()
_before_fork: set[str] = set()


def loaded(engine: Any, library: str) -> None:
    """Register a loaded engine, so that a forked child does not destroy it. library: its module."""
    import ctypes  # noqa: F401  imported before a fork, because importing in the child is unsafe

    _engines.add(engine)
    _running.add(library)


def check_process(pid: int) -> None:
    """Raise ForkError unless this process is `pid`, the process that loaded a Predictor. Takes 0.1 µs."""
    if os.getpid() != pid:
        raise ForkError(
            f"This Predictor was loaded in process {pid} and is used in process {os.getpid()}, which was forked from "
            "it: an engine's threads do not survive a fork. Load the Predictor in the worker process, after the fork."
        )


def check_library(library: str) -> None:
    """Raise ForkError if `library` ran in the parent process before the fork and cannot restart in this one."""
    if library in _before_fork:
        raise ForkError(
            f"{library} ran in the parent process before the fork and would wait for threads that do not exist here. "
            "Load the Predictor only in the worker process, not also before the fork; or start workers with "
            "multiprocessing's 'spawn' or 'forkserver'."
        )


def _in_child() -> None:
    if not _running:
        return
    import ctypes

    _before_fork.update(_running & _CANNOT_RESTART)
    for engine in list(_engines):
        # A leaked reference: the destructor would join threads that do not exist here, and hang or abort.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    _exit_without_handlers()


def _exit_without_handlers() -> None:
    """Make this process exit without running earlier exit handlers of C libraries, keeping its exit status, as
    multiprocessing does for its children.

    Exit handlers of the engines wait for their threads (onnxruntime 1.32, even if only imported), or occasionally crash
    (torch 2.14). Handlers run in reverse order of registration, so the two registered here run first.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.on_exit(libc._exit, None)  # calls _exit(status)
        libc.__cxa_atexit(libc.fflush, None, None)  # runs before it: fflush(NULL) flushes C buffers


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
