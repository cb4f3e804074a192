"""Exit statuses of all commands: 0 success, 1 a check or the work failed, 2 invalid input or usage."""

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
"""Exit status if the reader of the output closes the pipe; shells report the same for a program ended by SIGPIPE."""

INVALID_INPUT = (InputError, DatasetError, CheckpointError, BundleError, DependencyError, BackendUnavailable)
"""Exceptions with exit status 2. All others are failures of a check or of the work, with exit status 1."""


def status_of(error: StageproofError) -> int:
    """Exit status for this exception: 2 for invalid input, otherwise 1."""
    return 2 if isinstance(error, INVALID_INPUT) else 1


def exit_status(main: Callable[[], int], extra: str = "") -> int:
    """Run `main` and return its exit status.

    No traceback if the reader of its output closes the pipe early, as `head` does, or if a package is not installed;
    `extra` of setup.cfg names what installs it. Files that the command creates are accessible by their owner only
    (umask 077), because most contain patient data; the export makes its finished bundle readable for others.
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
            return report_error(missing)
        finally:
            sys.stdout.flush()  # also after --help, which raises SystemExit
    except BrokenPipeError:
        # Otherwise Python flushes stdout at exit and reports the broken pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT


def require_or_exit(extra: str, *modules: str) -> None:
    """As `runtime.cli.extras.require`, but exits with status 2; for modules run with -m that import them at the top."""
    try:
        require(extra, *modules)
    except DependencyError as error:
        sys.exit(report_error(error))


def report_error(error: StageproofError) -> int:
    """Print the error on standard error and return its exit status."""
    # A TrainingError may include the traceback of another process, with several lines; all others are one line.
    text = escapes.lines(str(error)) if isinstance(error, TrainingError) else escapes.line(str(error))
    print(f"{type(error).__name__}: {text}", file=sys.stderr)  # noqa: T201
    return status_of(error)
