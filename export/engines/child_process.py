"""Runs a task in a separate process with its output in a log file, so that a crash or memory leak stays there."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import StageproofError


def run_in_child_process(
    task: Callable[..., Any], arguments: tuple[Any, ...], log: Path, say: Callable[[str], None]
) -> Any:
    """The return value of `task(*arguments, say)`, run in a new process; its stdout and stderr go to `log`.

    say: called in this process with each progress line of the task.

    Raises a StageproofError that the task raises, and ChildProcessError, with the last line of the log, if the process
    ends in any other way.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(task, arguments, log, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            wait([ours, process.sentinel])
            try:
                kind, value = ours.recv()
            except EOFError:
                break
            if kind == "say":
                say(value)
            elif kind == "done":
                return value
            elif kind == "error":
                raise value
    finally:
        process.join(timeout=30)
        if process.is_alive():
            process.kill()
        ours.close()
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
    last = text.splitlines()[-1] if text else "its log is empty"
    raise ChildProcessError(f"its process ended with {process.exitcode}: {last[:300]}")


def _child(task: Callable[..., Any], arguments: tuple[Any, ...], log: Path, answer: Connection) -> None:
    _end_with_parent()
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)  # engines write through C, not through sys.stdout
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")
        answer.send(("say", text))

    try:
        answer.send(("done", task(*arguments, say)))
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
