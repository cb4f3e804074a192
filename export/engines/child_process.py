"""Runs a task in a separate process with its output in a log file, so that a crash or memory leak stays there."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from stageproof.runtime.cli.messages import LOGGER, CommandHandler
from stageproof.runtime.errors import StageproofError
from stageproof.train.terminal.forwarding import Receiver, Wanted, forwarded


def run_in_child_process(task: Callable[..., Any], arguments: tuple[Any, ...], log: Path) -> Any:
    """The return value of `task(*arguments)`, run in a new process; its stdout and stderr go to `log`.

    Its log records are written to `log` as well, from INFO on, and handled in this process; this process also draws its
    progress bars.

    Raises a StageproofError that the task raises, and ChildProcessError, with the last line of the log, if the process
    ends in any other way.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(task, arguments, log, theirs, Wanted.here()), daemon=True)
    process.start()
    theirs.close()
    try:
        with Receiver() as receiver:
            while True:
                wait([ours, process.sentinel])
                try:
                    kind, value = ours.recv()
                except EOFError:
                    break
                if receiver.take(kind, value):
                    continue
                if kind == "error":
                    raise value
                return value
    finally:
        process.join(timeout=30)
        if process.is_alive():
            process.kill()
        ours.close()
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
    last = text.splitlines()[-1] if text else "its log is empty"
    raise ChildProcessError(f"its process ended with {process.exitcode}: {last[:300]}")


def _child(task: Callable[..., Any], arguments: tuple[Any, ...], log: Path, answer: Connection, wanted: Wanted) -> None:
    _end_with_parent()
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)  # engines write through C, not through sys.stdout
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    written = CommandHandler()
    written.setLevel(logging.INFO)  # the log of an export is published with its bundle: no details
    LOGGER.addHandler(written)
    with forwarded(answer.send, wanted):
        try:
            answer.send(("done", task(*arguments)))
        except StageproofError as error:
            answer.send(("error", error))
    answer.close()


def _end_with_parent() -> None:
    """End this process when the parent process ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child runs this"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
