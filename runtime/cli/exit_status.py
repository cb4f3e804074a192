"""Exit statuses that all commands share: 0 done, 1 a check failed or the work did, 2 invalid input or usage."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from stageproof.runtime.cli.extras import from_import_error, require
from stageproof.runtime.errors import (
    BackendUnavailable,
    BundleError,
    CheckpointError,
    DatasetError,
    DependencyError,
    InputError,
    StageproofError,
    TrainingError,
)
from stageproof.runtime.text import escapes

READER_LEFT = 128 + 13
"""Exit status where nobody reads the output to its end; shells give it to a program that SIGPIPE ended."""

INVALID_INPUT = (InputError, DatasetError, CheckpointError, BundleError, DependencyError, BackendUnavailable)
"""Errors of what a command was given to work with; every other one is of a check or of the work itself."""


def status_of(error: StageproofError) -> int:
    """Exit status of a command that this error ended: 2 for invalid input, otherwise 1."""
    return 2 if isinstance(error, INVALID_INPUT) else 1


def exit_status(main: Callable[[], int], extra: str = "") -> int:
    """Exit status of `main`; without a traceback where whoever reads its output leaves early, as `head` does, or where
    a package is not installed that `extra` of setup.cfg installs.

    What the command writes is for its user alone (umask 077): most of it shows patients. Bundles are opened at the end.
    """
    os.umask(0o077)
    try:
        try:
            with escapes.escaping():
                return main()
        except ModuleNotFoundError as error:
            missing = from_import_error(error, extra) if extra else None
            if missing is None:
                raise
            return told(missing)
        finally:
            sys.stdout.flush()  # also after --help, which leaves by SystemExit
    except BrokenPipeError:
        # Python would meet the pipe once more at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT


def require_or_exit(extra: str, *modules: str) -> None:
    """As `runtime.cli.extras.require`, for a module that imports them at its top and is run with -m: exits with 2."""
    try:
        require(extra, *modules)
    except DependencyError as error:
        sys.exit(told(error))


def told(error: StageproofError) -> int:
    """Exit status of a command that this error ended, after saying so on the standard error."""
    # A traceback of another process has lines of its own; everything else is one.
    text = escapes.lines(str(error)) if isinstance(error, TrainingError) else escapes.line(str(error))
    print(f"{type(error).__name__}: {text}", file=sys.stderr)  # noqa: T201
    return status_of(error)


def say(text: str) -> None:
    """One line of progress or warning on the standard error."""
    print(escapes.line(text), file=sys.stderr, flush=True)  # noqa: T201
